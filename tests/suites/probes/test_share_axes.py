"""Which shares are measured: those of the steps that the experiment would run."""

from types import SimpleNamespace

import pytest

from kernels.timing.device import SAMPLING_LIMITS, Device
from suites.options import Options
from suites.probes import model
from suites.probes.share import share_cases
from suites.workers.launcher import RankPlan

CPU = Device("cpu", "cpu", 2**20, SAMPLING_LIMITS["cpu"])


def found(ranks=2, **asked):
    """(tp, ranks at once) with the sequences of each, in their order."""
    options = SimpleNamespace(**dict.fromkeys(Options.__dataclass_fields__) | asked)
    cases = share_cases(options, CPU, RankPlan(ranks, "cpu"))
    ways = {}
    for share, _ in cases:
        if share.part == "layer":
            ways.setdefault((share.tp, share.ranks), []).append(share.sequences)
    assert len(set(cases)) == len(cases)
    for layer, head in zip(cases[::2], cases[1::2], strict=True):  # side by side, timed in one walk
        assert (layer[0].part, layer[0]._replace(part="lm_head"), layer[1]) == ("layer", *head)
    return {way: sorted(sequences) for way, sequences in ways.items()}


def test_two_ranks_have_a_share_under_tp_alone_and_beside_the_other():
    batches = list(model.BATCHES["cpu"])
    # tp2, pp2-sync, and pp2-async2 with tp1x2, which take every batch but that of one sequence in halves
    assert found() == {(2, 2): batches, (1, 1): batches, (1, 2): [batch // 2 for batch in batches if batch > 1]}


def test_the_batches_and_the_model_are_the_experiments(monkeypatch):
    monkeypatch.setitem(model.BATCHES, "cpu", (6,))
    assert found() == {(2, 2): [6], (1, 1): [6], (1, 2): [3]}
    options = SimpleNamespace(**dict.fromkeys(Options.__dataclass_fields__))
    (share, how), *_ = share_cases(options, CPU, RankPlan(2, "cpu"))
    assert (share.model, share.layers, share.context, how.dtype) == ("llama-3.2-1b", 2, 128, "bf16")


@pytest.mark.parametrize(
    ("ranks", "asked", "expected"),
    [
        (2, {"batch": (7,)}, {(2, 2): [7], (1, 1): [7], (1, 2): [3, 4]}),  # two replicas of it there are not
        (2, {"pp": (2,), "schedule": ("async",), "micro_batches": (2, 4), "batch": (16,)}, {(1, 2): [4, 8]}),
        (2, {"tp": (2,), "batch": (4,)}, {(2, 2): [4]}),
        (2, {"replicas": (2,), "batch": (4,)}, {(1, 2): [2]}),
        (4, {"pp": (4,), "schedule": ("async",), "micro_batches": (3,), "batch": (9,)}, {(1, 3): [3]}),
        (4, {"tp": (2,), "pp": (2,), "batch": (8,)}, {(2, 2): [8], (2, 4): [4]}),
        (2, {"tp": (8,), "batch": (4,)}, {}),  # the experiment says why not
    ],
)
def test_the_options_choose_as_in_the_experiment(ranks, asked, expected):
    assert found(ranks, **asked) == expected


def test_contexts_models_and_layers_are_followed():
    options = SimpleNamespace(
        **dict.fromkeys(Options.__dataclass_fields__)
        | {"model": ("tiny",), "layers": 4, "context": (16, 32), "batch": (2,), "tp": (2,)}
    )
    cases = [share for share, _ in share_cases(options, CPU, RankPlan(2, "cpu"))]
    assert {(share.model, share.layers, share.context) for share in cases} == {("tiny", 4, 16), ("tiny", 4, 32)}


def test_rivals_stand_next_to_each_other():
    options = SimpleNamespace(
        **dict.fromkeys(Options.__dataclass_fields__) | {"impl": ("torch", "triton"), "batch": (4,)}
    )
    cases = share_cases(options, CPU, RankPlan(2, "cpu"))
    for one, other in zip(cases[::2], cases[1::2], strict=True):
        assert (one[0], one[1].implementation, other[1].implementation) == (other[0], "torch", "triton")
