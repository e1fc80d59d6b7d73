import pytest

from reports import formatting


def cells(quantity, values):
    scale = formatting.choose_scale(quantity, values)
    return scale.symbol, [scale(value) for value in values]


@pytest.mark.parametrize(
    ("quantity", "value", "said"),
    [
        (formatting.BYTES_PER_SECOND, 1e9, "1.00 GB/s"),
        (formatting.BYTES_PER_SECOND, 4.34e12, "4,340 GB/s"),
        (formatting.BYTES_PER_SECOND, 5e6, "0.0050 GB/s"),
        (formatting.FLOPS_PER_SECOND, 2e9, "2.00 GFLOP/s"),
        (formatting.FLOPS_PER_SECOND, 989.5e12, "990 TFLOP/s"),
        (formatting.SECONDS, 1e-6, "1.00 us"),
        (formatting.SECONDS, 999e-9, "999 ns"),
        (formatting.SECONDS, 12.34e-3, "12.3 ms"),
        (formatting.SECONDS, 90.0, "90.0 s"),
    ],
)
def test_a_single_value_picks_its_unit(quantity, value, said):
    assert formatting.with_unit(quantity, value) == said


def test_a_column_has_one_unit_and_one_count_of_decimals():
    assert cells(formatting.SECONDS, [1.2345e-3, 0.5e-3, 12e-3]) == ("ms", ["1.234", "0.500", "12.000"])
    assert cells(formatting.SECONDS, [3.4e-6, 52.1e-6, 12.3456e-3]) == ("us", ["3.40", "52.10", "12,345.60"])


def test_a_small_value_among_large_ones_keeps_two_digits():
    assert cells(formatting.BYTES_PER_SECOND, [400e9, 500e9, 6.3e6]) == ("GB/s", ["400.00", "500.00", "0.0063"])


def test_no_number_is_a_dash():
    scale = formatting.choose_scale(formatting.SECONDS, [])
    assert (scale(None), scale(0.0), formatting.percent(None)) == ("–", "–", "–")


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0.00%"), (0.0007, "0.07%"), (0.042, "4.2%"), (0.0999, "10%"), (0.97, "97%"), (1.04, "104%")],
)
def test_percent(share, said):
    assert formatting.percent(share) == said


@pytest.mark.parametrize(("value", "said"), [(1.0, "1.000"), (12.3456, "12.346"), (0.0072951, "0.00730")])
def test_ratio(value, said):
    assert formatting.ratio(value) == said


@pytest.mark.parametrize(
    ("share", "said"), [(None, "–"), (0.042, "4.2%"), (1.0, "100%"), (1.01, ">100%"), (7e9, ">100%")]
)
def test_a_width_past_its_figure_is_not_spelt_out(share, said):
    assert formatting.interval_width(share) == said
