import pytest

from specs.errors import UserError
from specs.units import format_bytes, parse_bytes


@pytest.mark.parametrize(("count", "said"), [(32 * 2**20, "32 MiB"), (3 * 2**29, "1.5 GiB"), (512, "512 B")])
def test_a_size_is_shown_in_powers_of_two(count, said):
    assert format_bytes(count) == said


@pytest.mark.parametrize(("text", "count"), [("4096", 4096), ("16KiB", 16384), ("1 MiB", 1048576), ("2GiB", 2**31)])
def test_a_size_is_read_as_it_is_shown(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["16KB", "1M", "0", "-4", "1.5MiB", "", "16kib"])
def test_what_could_be_another_size_is_refused(text):
    with pytest.raises(UserError, match="write bytes as"):
        parse_bytes(text)
