"""What holds for the tables that are published, whatever their figures are."""

import re
from collections import Counter
from importlib import util

import pytest

from reports.importers.aiconfigurator import command, package, tables
from specs.gpus import GPUS

if util.find_spec("aiconfigurator_core") is None:
    pytest.skip("aiconfigurator-core is not installed (extra `silicon`)", allow_module_level=True)


SYSTEMS = {"h200_sxm": (60 * 2**20, 4.8e12), "a100_sxm": (40 * 2**20, 2.039e12), "l40s": (96 * 2**20, 0.864e12)}
"""L2 in bytes and memory in bytes a second."""


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request):
    return request.param


@pytest.fixture(scope="module")
def imported(system):
    folder, gpu = package.find_package().system(system)
    return command.import_points(folder, gpu, command.ImportOptions())


@pytest.fixture(scope="module")
def hot_shapes(system):
    """Framework, n and k of every bf16 GEMM of the newest table whose weights a cache may have held."""
    folder, _ = package.find_package().system(system)
    rows = tables.read_tables(folder, "gemm", "gemm_perf", ("gemm_dtype", "m", "n", "k")).rows
    rows = tables.newest_versions(rows[rows["gemm_dtype"] == "bfloat16"], ["n", "k"])
    l2, memory = SYSTEMS[system]
    weights = 2 * rows["n"] * rows["k"]
    hot = rows[(6 * weights < 4 * l2) | (weights > 0.95 * rows["seconds"] * memory)]
    return set(zip(hot["framework"], hot["n"], hot["k"], strict=True))


def test_there_are_thousands_and_no_case_twice(imported):
    names = Counter(one.case.name for one in imported.measurements)
    assert len(names) > 5000
    assert [name for name, count in names.items() if count > 1] == []


def test_every_time_and_every_size_is_positive(imported):
    for one in imported.measurements:
        assert 0 < one.median < 60
        assert one.case.flops > 0 or one.case.op == "all_reduce"
        assert one.case.hbm_bytes > 0 or one.case.op == "all_reduce" or one.case.distribution != "balanced"
        assert (one.case.wire_bytes_sent_per_rank > 0) == (one.case.op == "all_reduce")


def test_every_point_says_who_measured_it(imported):
    for one in imported.measurements:
        assert one.framework in ("sglang", "trtllm", "vllm")
        assert one.version
        assert one.kernel_source
        assert one.clock == "published"
        assert one.case.cache == ("rotated-6" if one.case.op == "linear" else "unknown")


def test_every_interpolated_point_says_over_what_and_with_which_error(imported):
    over = re.compile(r"(([nk] \d+–\d+)|(tokens \d+–\d+)|([nk] \d+–\d+, tokens \d+–\d+))")
    found = [one for one in imported.measurements if one.provenance == "interpolated"]
    assert len(found) > 500
    for one in found:
        assert over.fullmatch(one.interpolated_over)
        assert 0 <= one.interpolation_error < 2
        assert ("tokens" in one.interpolated_over) == (one.case.tokens in (125, 1000))
    rest = [one for one in imported.measurements if one.provenance != "interpolated"]
    assert {(one.provenance, one.interpolated_over, one.interpolation_error) for one in rest} == {
        ("published", None, None)
    }


def test_the_tokens_of_the_note_are_there_for_every_linear_in_every_framework(imported):
    linears = [one.case for one in imported.measurements if one.case.op == "linear"]
    every = {(one.model, one.layer, one.tp, one.implementation) for one in linears}
    for tokens in (125, 1000):
        assert {(one.model, one.layer, one.tp, one.implementation) for one in linears if one.tokens == tokens} == every


def neighbours(one):
    """The tabulated shapes that a point stands between; its own where it is tabulated."""
    found = re.match(r"([nk]) (\d+)–(\d+)", one.interpolated_over or "")
    if not found:
        return {(one.case.n, one.case.k)}
    ends = map(int, found.groups()[1:])
    return {(end, one.case.k) if found[1] == "n" else (one.case.n, end) for end in ends}


def test_hot_is_what_the_rule_says_or_a_point_over_the_memorys_bandwidth(system, imported, hot_shapes):
    l2, _ = SYSTEMS[system]
    linears = [one for one in imported.measurements if one.case.op == "linear"]
    for one in linears:
        small = 6 * 2 * one.case.n * one.case.k < 4 * l2
        assert one.maybe_hot == (small or any((one.framework, *shape) in hot_shapes for shape in neighbours(one)))
    assert {one.maybe_hot for one in linears} == {True, False}


def test_no_point_that_is_called_cold_reads_faster_than_memory(system, imported):
    _, memory = SYSTEMS[system]
    for one in imported.measurements:
        if one.case.op == "linear" and not one.maybe_hot:
            assert 2 * one.case.n * one.case.k / one.median <= 0.95 * memory


def test_what_is_refused_is_not_there(imported):
    names = {one.case.name for one in imported.measurements}
    assert not names & {*imported.refused, *imported.not_run}


def test_hotness_is_one_for_a_series(imported):
    linears = [one for one in imported.measurements if one.case.op == "linear"]
    found = {(one.case.layer, one.case.tp, one.case.implementation, one.maybe_hot) for one in linears}
    assert len(found) == len({series[:3] for series in found})


def test_an_all_reduce_of_16_kib_over_8_ranks(imported):
    found = {
        (one.case.implementation, one.case.launch, one.case.dtype)
        for one in imported.measurements
        if one.case.op == "all_reduce" and (one.case.ranks, one.case.message_bytes) == (8, 16 * 1024)
    }
    assert found >= {("nccl", "eager", "fp16"), ("custom", "graph", "bf16"), ("custom", "eager", "bf16")}


def test_the_gpus_figures_are_those_of_this_file(system):
    assert (GPUS[system].l2_bytes, GPUS[system].hbm_bytes_per_second) == SYSTEMS[system]
