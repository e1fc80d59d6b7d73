"""Bandwidths, shares of the link, and which published figure stands beside a measurement."""

import json
import subprocess
import sys

import pytest

from reports import results
from reports.communication import points as communication_points
from reports.importers.aiconfigurator import package
from reports.output import Format
from reports.show import case_metrics, show
from specs.errors import UserError
from tests.reports import planted
from tests.reports.communication import planted_ranks
from tests.reports.planted import measured

MIB = 2**20


@pytest.fixture
def no_package(monkeypatch):
    def absent():
        raise UserError("not installed")

    monkeypatch.setattr(package, "find_package", absent)


def points(tmp_path, measurements, machine=planted.CPU, others=()):
    file = results.load(planted.write(tmp_path / "x.json", measurements, machine))
    found = communication_points.build_points(
        file, case_metrics(file), communication_points.gather_references([file, *others])
    )
    return {one.case.name: one for one in found}


def only(tmp_path, measurement, machine=planted.H200, others=()):
    (found,) = points(tmp_path, [measurement], machine, others).values()
    return found


def h200(tmp_path, *found, name="h200.json"):
    return results.load(planted.write(tmp_path / name, [one for each in found for one in each], planted.H200))


def test_algbw_and_busbw_of_an_all_reduce(tmp_path):
    """16777216 B in 1 ms are 16.777 GB/s; over four ranks times 2 x 3 / 4."""
    one = only(tmp_path, measured(planted_ranks.case(16 * MIB), 1e-3), planted.CPU)
    assert one.algbw == pytest.approx(16.777e9, rel=1e-4)
    assert one.busbw == pytest.approx(25.166e9, rel=1e-4)
    assert one.hop_seconds is None


def test_a_ping_pong_moves_its_message_twice(tmp_path):
    one = only(tmp_path, measured(planted_ranks.case(MIB, op="ping_pong", pair="0-1"), 1e-3), planted.CPU)
    assert one.hop_seconds == pytest.approx(0.5e-3)
    assert one.busbw == one.algbw == pytest.approx(2 * MIB / 1e-3)


def test_a_chain_with_a_norm_has_no_bandwidth(tmp_path):
    one = only(tmp_path, measured(planted_ranks.case(MIB, op="all_reduce_rmsnorm"), 1e-3), planted.CPU)
    assert (one.algbw, one.busbw, one.link_share) == (None, None, None)


def test_share_of_the_link_only_where_it_alone_carried_the_message(tmp_path):
    """One direction of an H200's NVLink is 450e9 B/s: 16777216 B x 1.5 in 1 ms are 5.59 % of it."""
    case = planted_ranks.case(16 * MIB, implementation="nccl")
    over = {"nvlink": pytest.approx(0.05592, rel=1e-3), "pcie": None, "loopback": None, None: None}
    for transport, share in over.items():
        assert only(tmp_path, measured(case, 1e-3, transport=transport)).link_share == share, transport
    assert only(tmp_path, measured(case, 1e-3, transport="nvlink"), planted.CPU).link_share is None


def test_the_fastest_published_figure_of_the_same_kind_stands_beside(tmp_path, no_package):
    other = h200(
        tmp_path,
        planted_ranks.published({16384: 18.3}, "nccl", "trtllm", dtype="fp16"),
        planted_ranks.published({16384: 5.2}, framework="vllm", launch="graph"),
        planted_ranks.published({16384: 3.5}, framework="trtllm", launch="graph"),
        planted_ranks.published({16384: 20.7}, framework="vllm"),
    )
    expected = {
        ("nccl", "eager"): 18.3e-6,
        ("cupy-nccl", "eager"): 18.3e-6,
        ("nccl", "graph"): None,
        ("triton-one-shot", "graph"): 3.5e-6,
        ("symm-multimem", "eager"): 20.7e-6,
        ("gloo", "eager"): None,
    }
    for (implementation, launch), seconds in expected.items():
        case = planted_ranks.case(16384, ranks=8, implementation=implementation, launch=launch)
        one = only(tmp_path, measured(case, 7e-6), others=[other])
        assert (one.reference and one.reference.seconds) == (seconds and pytest.approx(seconds)), implementation
    assert one.reference is None
    best = only(
        tmp_path,
        measured(planted_ranks.case(16384, ranks=8, implementation="triton-one-shot", launch="graph"), 7e-6),
        others=[other],
    )
    assert best.ratio == pytest.approx(2.0)
    assert best.reference.source == "trtllm 1.0 trtllm_graph bf16 (h200.json)"


@pytest.mark.parametrize(
    "changes",
    [{"ranks": 4}, {"dtype": "fp32"}, {"gap_seconds": 0.001}, {"op": "all_gather"}, {"message_bytes": 2**30}],
)
def test_what_differs_is_not_compared(tmp_path, no_package, changes):
    other = h200(tmp_path, planted_ranks.published({8192: 18, 16384: 19, 32768: 20}, "nccl", "trtllm"))
    same = {"message_bytes": 16384, "ranks": 8, "implementation": "nccl"}
    assert only(tmp_path, measured(planted_ranks.case(**same), 1e-5), others=[other]).reference
    assert not only(tmp_path, measured(planted_ranks.case(**{**same, **changes}), 1e-5), others=[other]).reference


@pytest.mark.parametrize(
    ("machine", "transport"), [({"gpu": "NVIDIA B200", "gpu_memory_bytes": 180 * 10**9}, None), ({}, "pcie")]
)
def test_neither_is_another_gpu_or_another_link(tmp_path, no_package, machine, transport):
    other = h200(tmp_path, planted_ranks.published({16384: 19}, "nccl", "trtllm"))
    one = measured(planted_ranks.case(16384, ranks=8, implementation="nccl"), 1e-5, transport=transport)
    assert only(tmp_path, one, planted.H200 | machine, [other]).reference is None


def test_ranks_on_several_hosts_are_not_held_against_one(tmp_path, no_package):
    other = h200(tmp_path, planted_ranks.published({16384: 19}, "nccl", "trtllm"))
    one = measured(planted_ranks.case(16384, ranks=8, implementation="nccl"), 1e-5)
    assert only(tmp_path, one, planted.H200 | {"hosts": 2}, [other]).reference is None


def test_between_two_published_sizes_it_is_said_to_be_interpolated(tmp_path, no_package):
    """Half way from 18 us at 8 KiB to 20 us at 16 KiB lies 19 us at 12 KiB."""
    other = h200(tmp_path, planted_ranks.published({4096: 17, 8192: 18, 16384: 20}, "nccl", "trtllm"))
    one = only(tmp_path, measured(planted_ranks.case(12288, ranks=8, implementation="nccl"), 38e-6), others=[other])
    assert one.reference.seconds == pytest.approx(19e-6)
    assert one.reference.between == "8 KiB–16 KiB"
    assert one.ratio == pytest.approx(2.0)


def test_what_is_published_is_not_held_against_itself(tmp_path, no_package):
    found = points(tmp_path, planted_ranks.published({16384: 19}, "nccl", "trtllm"), planted.H200)
    assert [one.reference for one in found.values()] == [None]


def test_without_a_file_the_installed_tables_are_asked(tmp_path):
    """The tables say 18.3 us for 16 KiB over eight H200 with NCCL, in fp16."""
    pytest.importorskip("aiconfigurator_core")
    pytest.importorskip("pyarrow")
    one = only(tmp_path, measured(planted_ranks.case(16384, ranks=8, implementation="nccl"), 36.6e-6))
    assert one.ratio == pytest.approx(2.0, rel=0.01)
    assert one.reference.source.endswith("fp16 (aiconfigurator-core)")


def test_json_has_them_and_null_where_there_is_nothing(tmp_path, no_package, capsys):
    one = measured(planted_ranks.case(16 * MIB), 1e-3, skew_seconds=2e-6, algorithm="ring LL")
    show([planted.write(tmp_path / "x.json", [one, measured(planted.case("m"), 1.0)])], Format.JSON, None)
    collective, linear = json.loads(capsys.readouterr().out)
    assert collective["algbw_bytes_per_second"] == pytest.approx(16.777e9, rel=1e-4)
    assert collective["busbw_bytes_per_second"] == pytest.approx(25.166e9, rel=1e-4)
    assert (collective["skew_seconds"], collective["algorithm"], collective["link_share"]) == (2e-6, "ring LL", None)
    assert (linear["busbw_bytes_per_second"], linear["published_seconds"], linear["published_source"]) == (None,) * 3


def test_a_file_of_a_cpu_is_shown_without_pandas(tmp_path):
    path = planted.write(tmp_path / "x.json", planted_ranks.sweep())
    code = (
        "import sys; from pathlib import Path; from reports.show import show; from reports.output import Format; "
        f"show([Path({str(path)!r})], Format.TABLE, None); assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
