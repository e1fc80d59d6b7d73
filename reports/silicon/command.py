"""What `import aiconfigurator` does with its options."""

from pathlib import Path

from reports import output
from reports.silicon import cache, importer, package
from reports.silicon.importer import Wanted
from specs.errors import UserError


def import_aiconfigurator(system: str, to: Path, models: str, widths: str, dtypes: str) -> str:
    """Write the result file of a system; returns what to tell the user.

    Args:
        system: name of the system in the package.
        to: where the file goes.
        models: comma list of slugs.
        widths: comma list of TP.
        dtypes: comma list of number formats.

    Raises:
        UserError: the package, the system or an option is not there, or the file cannot be written.
    """
    found = package.installed()
    found.system(system)
    for option, given in (("--model", models), ("--tp", widths), ("--dtype", dtypes)):
        if not _list(given):
            raise UserError(f"{option} {given!r}: names none; leave the option out for the usual ones")
    wanted = Wanted(_list(models), tuple(_width(text) for text in _list(widths)), _list(dtypes))
    key = f"{found.name}\n{cache.state(found.data / system)}\n{system}\n{wanted}"
    try:
        content, summary, kept = cache.fetch(key, lambda: importer.text(found, system, wanted))
    except ImportError as error:
        raise UserError(f"published silicon: {error.name} is not installed; {package.INSTALL}") from error
    output.write(to, content)
    return f"{summary}\n{to}: written{' from the cache' if kept else ''}"


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def _width(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise UserError(f"--tp {text!r}: not a width of 1 or more; write as in --tp 1,2,4,8")
    return int(text)
