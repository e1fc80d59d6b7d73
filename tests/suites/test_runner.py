"""In which order cases are visited, and when a run ends."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from kernels.linear import TORCH_LINEAR
from kernels.timing.device import SAMPLING_LIMITS, Device, current_device
from kernels.timing.host import TimerSamples
from specs.journal import UNTIMED_RANGE
from specs.measurement import Case, Measurement
from suites import nvtx, runner
from suites.case import group_implementations
from suites.probes.kernel import KernelBench, KernelCaseState
from suites.runner import PassRunner
from tests.reports import planted


def entry(name, implementation="torch", kernel=TORCH_LINEAR, **case):
    shape = {"tokens": 2, "n": 8, "k": 16}
    facts = {"question": "decode", "op": "linear", "kernel": kernel.name, "dtype": "fp32", "flops": 1, "hbm_bytes": 1}
    case = Case(name=name, implementation=implementation, **{**facts, **shape, **case})
    return KernelCaseState(case=case, kernel=kernel, shape=shape, copies=2, weight_bytes=8 * 16 * 4)


class Timer:
    """Gives planted samples and notes who was timed."""

    clock = "planted"
    calls_made = 1

    def __init__(self, samples):
        self._samples = samples

    def warm_up(self, calls, expected):
        calls[0]()

    def sample(self, share):
        return TimerSamples(tuple(self._samples()), 1)


@pytest.fixture
def run(monkeypatch):
    def run(entries, samples=lambda entry: [1e-3], passes_=None, budget=1e9):
        visits = []

        def timer(self, entry):
            visits.append(entry.case.name)
            return Timer(lambda: samples(entry))

        monkeypatch.setattr(KernelBench, "_timer", timer)
        bench = KernelBench(current_device(), entries)
        PassRunner(entries, bench, passes_, budget, lambda entry: None, lambda *_: None).measure()
        return visits

    return run


def test_rivals_are_neighbours_that_differ_only_in_implementation():
    a, b, c = entry("a"), entry("b", "triton"), entry("c", tokens=4)
    assert group_implementations([a, b, c]) == [[a, b], [c]]


def test_rivals_are_visited_in_abba_order_and_both_halves_are_one_pass(run):
    entries = [entry("a"), entry("b", "triton"), entry("c", tokens=4)]
    assert run(entries, lambda entry: [1e-3, 2e-3], passes_=2) == list("abbac") * 2
    assert entries[0].seconds == [(1e-3, 2e-3, 1e-3, 2e-3)] * 2
    assert entries[2].seconds == [(1e-3, 2e-3)] * 2


def test_a_steady_case_ends_after_six_passes_by_precision(run):
    steady = entry("a")
    run([steady])
    assert (len(steady.seconds), steady.stopped_by) == (6, "precision")


def test_a_case_that_stays_wide_goes_on_to_eighteen_passes_while_the_steady_one_rests(run):
    wide, steady, turn = entry("wide"), entry("steady", tokens=4), []

    def samples(entry):
        turn.append(entry)
        return [1e-3 if entry is steady or len(turn) % 3 else 3e-3]

    run([wide, steady], samples)
    assert (len(wide.seconds), wide.stopped_by) == (18, "passes")
    assert (len(steady.seconds), steady.stopped_by) == (6, "precision")


def test_the_first_pass_is_completed_whatever_the_budget(run):
    entries = [entry("a"), entry("b", tokens=4)]
    assert run(entries, budget=1e-9) == ["a", "b"]
    assert {one.stopped_by for one in entries} == {"budget"}


def test_what_a_journal_held_is_not_measured_again(run):
    half, new = entry("half"), entry("new", tokens=4)
    half.seconds, half.relative_error = [(1e-3,)] * 2, 0.0
    assert run([half, new], passes_=3) == ["new", "new", "half", "new"]
    assert [len(one.seconds) for one in (half, new)] == [3, 3]


def test_a_kernel_is_checked_before_it_is_timed_and_only_once(run):
    checked = []

    def reference(x, weight):
        checked.append(1)
        return TORCH_LINEAR.reference(x, weight)

    run([entry("a", kernel=replace(TORCH_LINEAR, reference=reference))], passes_=3)
    assert len(checked) == 1


def test_every_visit_goes_on_behind_the_copy_that_was_read_last(monkeypatch, run):
    """Of three copies, by a timer that tells of two calls a visit: 0 comes first, then 2, 1, and 0 again."""
    read, begun = [], []

    def linear(x, weight, out):
        read.append(weight.data_ptr())
        return TORCH_LINEAR.run(x, weight, out)

    def warm_up(self, calls, expected):
        read.clear()
        for call in calls:
            call()
        begun.append(tuple(read))

    monkeypatch.setattr(Timer, "warm_up", warm_up)
    monkeypatch.setattr(Timer, "calls_made", 2)
    case = entry("a", kernel=replace(TORCH_LINEAR, run=linear))
    case.copies = 3
    run([case], passes_=4)
    first, second, third = begun[0]
    assert len({first, second, third}) == 3
    assert begun[1:] == [(third, first, second), (second, third, first), (first, second, third)]


def test_inputs_are_fresh_in_every_run_and_never_zero(run):
    seen = []

    def reference(x, weight):
        seen.append((x.clone(), weight.clone()))
        return TORCH_LINEAR.reference(x, weight)

    for _ in range(2):
        run([entry("a", kernel=replace(TORCH_LINEAR, reference=reference))], passes_=1)
    (x, weight), (other_x, other_weight) = seen
    assert not torch.equal(x, other_x)
    assert not torch.equal(weight, other_weight)
    assert (x != 0).all()
    assert (weight != 0).all()


def test_a_wrong_result_is_never_timed(run):
    wrong = entry("a", kernel=replace(TORCH_LINEAR, run=lambda x, weight, out: out.fill_(1.0)))
    timed = []
    run([wrong], lambda entry: timed.append(entry) or [1e-3], passes_=1)
    assert wrong.failed.startswith("wrong result: relative error")
    assert not timed
    assert not wrong.seconds
    assert wrong.relative_error is None


def test_throttling_once_seen_stays_on_the_case(monkeypatch, run):
    readings = iter([False, True, False])
    monkeypatch.setattr(Timer, "sample", lambda self, share: TimerSamples((1e-3,), 1, throttled=next(readings)))
    throttled = entry("a")
    run([throttled], passes_=3)
    assert throttled.throttled is True


CLOCKS = {"sm_mhz": 1500.0, "sm_mhz_before": 1980.0, "sm_mhz_after": 1500.0}


@pytest.fixture
def clocks(monkeypatch):
    """Plant what visits say of the clock, one after another: (moved, throttled)."""

    def clocks(*visits):
        left = iter(visits)

        def sample(self, share):
            moved, throttled = next(left)
            return TimerSamples(
                (1e-3,), 1, throttled, CLOCKS if moved else {**CLOCKS, "sm_mhz_before": 1500.0}, moved=moved
            )

        monkeypatch.setattr(Timer, "sample", sample)

    return clocks


def test_samples_of_a_clock_that_moved_are_dropped_and_the_visit_is_counted(clocks, run):
    clocks((False, False), (True, False), (False, False))
    one = entry("a")
    run([one], passes_=3)
    assert one.seconds == [(1e-3,)] * 2
    assert (one.telemetry["moved_visits"], one.stopped_by, one.failed) == (1, "passes", None)
    assert one.telemetry["sm_mhz_before"] == 1500.0, "of a visit that counts"
    assert Measurement.from_benchmark(planted.entry(one.measurement())).telemetry == one.telemetry


def test_a_case_whose_clock_moved_in_every_visit_fails_with_both_clocks_and_what_to_do(clocks, run):
    clocks(*[(True, False)] * 3)
    one = entry("a")
    run([one], passes_=3)
    assert "in all 3 visits, from 1980 to 1500 MHz in the last; end other work on the GPU or fix its" in one.failed
    assert not one.seconds


def test_a_throttled_clock_that_moves_is_labelled_and_keeps_its_samples(clocks, run):
    clocks(*[(True, True)] * 2)
    one = entry("a")
    run([one], passes_=2)
    assert (one.throttled, one.telemetry["moved_visits"], len(one.seconds)) == (True, 2, 2)


def test_moved_visits_are_counted_on_after_a_resume(clocks, run):
    clocks((True, False), (False, False), (True, False), (False, False))
    first, second = entry("a"), entry("a")
    run([first], passes_=2)
    second.restore(first.measurement())
    run([second], passes_=3)
    assert second.telemetry["moved_visits"] == 2


def test_load_that_is_in_no_sample_stands_in_a_range_of_its_own(monkeypatch):
    monkeypatch.setattr(Device, "free_bytes", lambda self: 2**40)
    marked, timed = [], entry("a")
    monkeypatch.setattr(nvtx, "annotate", lambda *told: marked.append(told) or nullcontext())
    timer = KernelBench(Device("cuda", "sm_90", 2**20, SAMPLING_LIMITS["cuda"]), [timed])._timer(timed)
    with timer._between():
        pass
    assert marked == [(UNTIMED_RANGE, "decode", 0)]


def test_limits_are_what_the_messages_say():
    assert (runner.MIN_PASSES, runner.MAX_PASSES) == (6, 18)
