"""What the machine itself changed by is not called faster or slower; between machines there is no drift."""

import random

import pytest

from reports.compare.comparison import compare_files
from reports.results import load
from tests.reports import planted

GPU = {**planted.CPU, "gpu": "NVIDIA H200"}


def steady(cases, factor, seed):
    rng = random.Random(seed)
    return [planted.noisy(one, 1e-3 * factor, rng, between=0.001) for one in cases]


@pytest.fixture
def verdicts(tmp_path):
    """Verdicts of B, whose cases take `factor` times as long and whose ceilings `machine_factor` times."""

    def verdicts(factor, machine_factor, machine=planted.CPU):
        cases = [planted.case(f"s.py::b[{number}]", tokens=number + 1) for number in range(5)]
        a = steady(cases, 1.0, 1) + planted.ceilings(read=10e9, peak=100e9)
        b = steady(cases, factor, 2) + planted.ceilings(read=10e9 / machine_factor, peak=100e9 / machine_factor)
        paths = planted.write(tmp_path / "a.json", a), planted.write(tmp_path / "b.json", b, machine=machine)
        return {pair.a.case.name: pair.verdict for pair in compare_files(*map(load, paths), 0.05).pairs}

    return verdicts


def test_a_case_that_changed_with_its_machine_is_ambiguous(verdicts):
    assert verdicts(1.3, 1.3)["s.py::b[0]"] == "ambiguous"
    assert verdicts(1 / 1.3, 1 / 1.3)["s.py::b[0]"] == "ambiguous"


def test_a_case_that_changed_by_more_than_its_machine_is_found(verdicts):
    assert verdicts(1.5, 1.3)["s.py::b[0]"] == "slower"
    assert verdicts(1 / 1.5, 1 / 1.3)["s.py::b[0]"] == "faster"


def test_a_drift_one_way_excuses_no_change_the_other_way(verdicts):
    assert verdicts(1.2, 1 / 1.3)["s.py::b[0]"] == "slower"


def test_between_machines_the_ratio_of_ceilings_is_the_answer_and_no_drift(verdicts):
    assert verdicts(1.3, 1.3, machine=GPU)["s.py::b[0]"] == "slower"


def test_a_ceiling_is_no_witness_in_its_own_case(tmp_path):
    a, b = planted.ceilings(read=10e9), planted.ceilings(read=5e9)
    paths = [planted.write(tmp_path / name, one) for name, one in (("a.json", a), ("b.json", b))]
    found = {pair.a.case.op: pair.verdict for pair in compare_files(*map(load, paths), 0.05).pairs}
    assert found == {"read": "slower", "linear": "same"}


def pairs_of(tmp_path, a, b, **how):
    paths = [planted.write(tmp_path / f"{name}.json", one, **more) for name, one, more in (("a", a, {}), ("b", b, how))]
    return {pair.a.case.name: pair for pair in compare_files(*map(load, paths), 0.05).pairs}


STREAM = planted.case("s::stream", flops=10**6, hbm_bytes=10**9)
"""A tenth of a second at 10 GB/s, and nothing to compute."""


def slower_product(factor):
    """Ceilings whose product takes longer."""
    read, product = planted.ceilings()
    return [read, planted.replace(product, seconds=((factor * product.median,) * 4,) * 6)]


def test_a_ceiling_that_does_not_bind_a_case_is_no_witness_of_it_on_a_gpu(tmp_path):
    """The matrix product took 1.3 times as long, the read did not change."""
    a = [*steady([STREAM], 1.0, 1), *planted.ceilings()]
    b = [*steady([STREAM], 1.15, 2), *slower_product(1.3)]
    paths = planted.write(tmp_path / "a.json", a, GPU), planted.write(tmp_path / "b.json", b, GPU)
    pair = {one.a.case.name: one for one in compare_files(*map(load, paths), 0.05).pairs}["s::stream"]
    assert (pair.drift, pair.verdict) == ((1.0, 1.0), "slower")


def test_on_a_cpu_it_is_as_far_as_its_change_is_sure(tmp_path):
    """One clock drives both; a product whose passes differ by more than it changed by says nothing."""
    a = [*steady([STREAM], 1.0, 1), *planted.ceilings()]
    b = [*steady([STREAM], 1.15, 2), *slower_product(1.3)]
    found = pairs_of(tmp_path, a, b)["s::stream"]
    assert (found.drift, found.verdict) == ((1.0, pytest.approx(1.3)), "ambiguous")
    noisy = tuple((1.3 * factor,) for factor in (0.5, 0.6, 1.0, 1.0, 1.7, 2.0))
    b[-1] = planted.replace(b[-1], seconds=noisy)
    found = pairs_of(tmp_path, a, b)["s::stream"]
    assert (found.drift, found.verdict) == ((1.0, 1.0), "slower")


def test_ceilings_of_other_work_are_not_compared(tmp_path):
    """Twice the bytes in twice the time is the same bandwidth, and no drift."""
    a, b = planted.ceilings(), planted.ceilings()
    read = b[0]
    b[0] = planted.replace(
        read, case=planted.replace(read.case, hbm_bytes=2 * 10**9), seconds=((2 * read.median,) * 4,) * 6
    )
    found = pairs_of(tmp_path, [*steady([STREAM], 1.0, 1), *a], [*steady([STREAM], 1.6, 2), *b])
    assert read.case.name not in found
    assert found["s::stream"].verdict == "slower"


@pytest.mark.parametrize("fact", [{"torch": "2.14.0"}, {"driver": "999"}, {"power_limit_watts": 350}])
def test_another_driver_or_version_is_no_drift(tmp_path, fact):
    cases = [planted.case(f"s.py::b[{number}]", tokens=number + 1) for number in range(5)]
    a = steady(cases, 1.0, 1) + planted.ceilings(read=10e9, peak=100e9)
    b = steady(cases, 1.3, 2) + planted.ceilings(read=10e9 / 1.3, peak=100e9 / 1.3)
    assert pairs_of(tmp_path, a, b, machine=planted.CPU | fact)["s.py::b[0]"].verdict == "slower"
