"""Lists of numbers as a user types them."""

from specs.errors import UserError, find

LAUNCHES = ("graph", "eager")


def launches(first: str) -> tuple[str, ...]:
    """How all-reduces may have been launched: in a graph where that was timed, or eager alone.

    Raises:
        UserError: it is neither.
    """
    find(dict.fromkeys(LAUNCHES, ""), first, "launch")
    return LAUNCHES[LAUNCHES.index(first) :]


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Rising and each once, from `1,8,64`.

    Raises:
        UserError: one is no whole number above 0.
    """
    found = [one.strip() for one in text.split(",")]
    if odd := next((one for one in found if not one.isascii() or not one.isdigit() or not int(one)), None):
        raise UserError(f"{option} {text!r}: {odd!r} is no whole number above 0; write {option} 1,8,64")
    if not all(found):
        raise UserError(f"{option} {text!r}: an empty place; write {option} 1,8,64")
    return tuple(sorted(set(map(int, found))))


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Rising and each once, from `0.02,0.05`.

    Raises:
        UserError: one is no number above 0.
    """
    try:
        found = sorted({float(one) for one in text.split(",")})
    except ValueError:
        found = [0.0]
    if not found or not all(0 < one < float("inf") for one in found):
        raise UserError(f"{option} {text!r}: not numbers above 0; write {option} 0.02,0.05")
    return tuple(found)
