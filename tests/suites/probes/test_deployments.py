"""Which ways to run a model are compared."""

from types import SimpleNamespace

import pytest

from suites.options import Options
from suites.probes.model import deployments


def found(ranks, kind="cpu", **asked):
    options = SimpleNamespace(**dict.fromkeys(Options.__dataclass_fields__) | asked)
    return [str(one) for one in deployments(options, ranks, kind)]


@pytest.mark.parametrize(
    ("ranks", "kind", "expected"),
    [
        (1, "cuda", "tp1"),
        (2, "cpu", "tp2 pp2-sync pp2-async2 tp1x2"),
        (2, "cuda", "tp2 pp2-sync pp2-async2 pp2-async4 tp1x2"),
        (3, "cpu", "tp3 pp3-sync pp3-async3 tp1x3"),
        (4, "cpu", "tp4 pp4-sync pp4-async4 tp2-pp2-sync tp2-pp2-async2 tp2x2 pp2-async2x2 tp1x4"),
        (
            8,
            "cuda",
            "tp8 pp8-sync pp8-async8 pp8-async16 tp4-pp2-sync tp4-pp2-async2 tp2-pp4-async4 tp4x2 pp4-async4x2 tp1x8",
        ),
    ],
)
def test_all_ranks_under_each_way_and_replicas_of_fewer(ranks, kind, expected):
    assert found(ranks, kind) == expected.split()


@pytest.mark.parametrize(
    ("ranks", "asked", "expected"),
    [
        (4, {"tp": (2,)}, "tp2x2"),
        (4, {"pp": (4,)}, "pp4-sync pp4-async4"),
        (4, {"tp": (1, 4)}, "tp1x4 tp4"),
        (2, {"tp": (8,)}, "tp8"),  # which then says that it wants 8 ranks
        (4, {"tp": (2,), "pp": (2,), "schedule": ("async",), "micro_batches": (2, 4)}, "tp2-pp2-async2 tp2-pp2-async4"),
        (4, {"pp": (1, 4), "schedule": ("tp", "sync")}, "tp1x4 pp4-sync"),
        (4, {"pp": (4,), "schedule": ("tp",)}, "pp4-tp"),
        (4, {"pp": (4,), "schedule": ("sync",), "micro_batches": (4,)}, "pp4-sync"),
        (4, {"schedule": ("async",)}, "pp4-async4"),
        (4, {"schedule": ("tp",)}, "tp4"),
        (4, {"replicas": (2,)}, "tp2x2 pp2-syncx2 pp2-async2x2"),
        (4, {"replicas": (3,)}, "tp1x3"),
        (4, {"micro_batches": (8,)}, "tp4 pp4-sync pp4-async8"),
        (2, {"partition": ("even", "balanced")}, "tp2 pp2-sync pp2-sync-balanced pp2-async2 pp2-async2-balanced tp1x2"),
    ],
)
def test_the_options_choose_their_product_and_what_fits_with_it(ranks, asked, expected):
    assert found(ranks, **asked) == expected.split()
