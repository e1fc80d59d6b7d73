"""How high the bar is for many cases at once, worked out by hand."""

import pytest

from reports.compare import comparison


@pytest.mark.parametrize(
    ("chances", "confidence"),
    [
        ([], 0.99),
        ([0.009], 0.99),
        ([0.2], 0.99),
        # nothing is called: Bonferroni's bar, 0.01 / 10
        ([0.5] * 10, 0.999),
        # the second of five is below 0.01 * 2 / 5 = 0.004, the third not below 0.006: two calls
        ([0.4, 0.0002, 0.0038, 0.0062, 0.9], 0.996),
        # the smallest is not below 0.002, yet the second is below 0.004: both are called
        ([0.0024, 0.003, 0.5, 0.6, 0.7], 0.996),
        ([1e-9] * 4, 0.99),
    ],
)
def test_as_many_are_called_as_keep_one_in_a_hundred_of_them_wrong(chances, confidence):
    assert comparison.fdr_confidence(chances) == pytest.approx(confidence)
