import pytest

from specs.errors import UserError
from specs.units import ITEMSIZE, STORED_ITEMSIZE, find_number_format, format_bytes, parse_bytes


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


@pytest.mark.parametrize("name", sorted(ITEMSIZE.keys() - {"fp8", "fp8-block"}))
def test_a_format_that_is_not_quantized_is_that_of_all_parts(name):
    found = find_number_format(name)
    assert found.is_uniform
    assert found.attention == ((name, name),)


@pytest.mark.parametrize("name", ["fp8", "fp8-block", "nvfp4"])
def test_a_quantized_model_keeps_queries_and_residual_stream_in_bf16(name):
    found = find_number_format(name)
    assert not found.is_uniform
    assert (found.weights, found.activations, found.residual) == (name, name, "bf16")
    assert found.attention == (("bf16", "fp8"), ("bf16", "bf16"), ("fp8", "fp8"))


def test_an_element_of_nvfp4_is_half_a_byte_and_a_sixteenth_of_a_scale():
    assert STORED_ITEMSIZE["nvfp4"] == 9 / 16
    assert STORED_ITEMSIZE["bf16"] == 2


def test_an_unknown_number_format_is_refused():
    with pytest.raises(UserError, match="number format"):
        find_number_format("int3")
