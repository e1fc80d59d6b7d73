"""All-reduces behind a linear in reports: a table of their own, and never among back-to-back calls."""

from dataclasses import replace

import pytest

from reports import output, results
from reports.communication.points import collect_series, fit_series
from reports.communication.report import build_section
from reports.compare.comparison import group_of, match_cases
from reports.show import case_metrics, file_blocks
from specs.errors import UserError
from specs.measurement import WAITED_SHARE
from tests.reports import planted
from tests.reports.communication import planted_ranks
from tests.reports.communication.test_points import points
from tests.reports.planted import measured

KIB = 2**10


def behind(message_bytes, seconds, late=0.0, share=None, layer="o", **facts):
    """An all-reduce over four ranks behind a linear of a 70B, which is 8192 wide."""
    shape = {"model": "llama-3-70b", "tp": 4, "pp": 1, "tokens": message_bytes // (16 * KIB), "cache": "cold"}
    case = planted_ranks.case(
        message_bytes, name=f"late[{layer}-{message_bytes}-{late}]", question="late_ranks", layer=layer, **shape
    )
    telemetry = {"telemetry": {WAITED_SHARE: share}} if share is not None else {}
    return measured(replace(case, late_seconds=late), seconds, **telemetry, **facts)


def page(tmp_path, measurements):
    file = results.load(planted.write(tmp_path / "x.json", measurements, planted.CPU))
    return output.render_terminal(file_blocks(file, case_metrics(file)), width=160)


@pytest.fixture
def late():
    return [
        behind(64 * KIB, 90e-6, skew_seconds=30e-6),
        behind(64 * KIB, 1.06e-3, 1e-3, share=0.98, skew_seconds=0.98e-3),
    ]


def test_they_have_a_table_of_their_own_beside_back_to_back_calls(tmp_path, late):
    message = measured(
        planted_ranks.case(
            64 * KIB, name="message", question="messages", model="llama-3-70b", layer="hidden", tp=4, pp=1, tokens=4
        ),
        45e-6,
    )
    swept = measured(planted_ranks.case(64 * KIB), 50e-6)
    text = page(tmp_path, [*late, swept, message])
    titles = [line.split("  ")[0] for line in text.split("\n") if "·" in line]
    assert titles == ["communication: all_reduce", "messages: all_reduce", "late_ranks: all_reduce"]
    table = text.split("late_ranks: all_reduce")[1]
    rows = [line.split() for line in table.split("\n")]
    assert ["none", "90.0", "0.00%", "30.0", "–", "45.0", "2.00"] in rows, "a model's own message comes first"
    assert ["1.00", "ms", "1,060", "0.00%", "980", "98%", "45.0", "23.56"] in rows
    assert "busbw" not in table
    assert "late" not in text.split("late_ranks: all_reduce")[0]


def test_without_back_to_back_calls_there_is_no_such_column(tmp_path, late):
    head = page(tmp_path, late).split("late_ranks: all_reduce")[1].split("─")[0]
    assert "back-to-back" not in head
    assert "skew" in head


def test_both_linears_stand_under_linear(tmp_path):
    text = page(tmp_path, [behind(64 * KIB, 90e-6), behind(64 * KIB, 80e-6, layer="down")])
    assert ["linear", "us", "95%"] in [line.split() for line in text.split("\n")]


def test_they_have_no_bandwidth_and_no_fit_and_stay_out_of_the_chapter(tmp_path, monkeypatch):
    found = [behind(size * KIB, size * 1e-6) for size in (16, 64, 256, 1024, 4096)]
    taken = list(points(tmp_path, found).values())
    assert {(one.algbw, one.busbw, one.link_share) for one in taken} == {(None, None, None)}
    (series,) = collect_series(taken)
    assert fit_series(series) is None
    assert fit_series(collect_series(points(tmp_path, planted_ranks.sweep()).values())[0])
    assert not build_section([results.load(planted.write(tmp_path / "y.json", found, planted.CPU))]).measured


def test_a_delay_makes_a_series_of_its_own(tmp_path, late):
    assert [one.case.late_seconds for one in collect_series(points(tmp_path, late).values())] == [0.0, 1e-3]


def test_a_comparison_keeps_them_in_a_group_of_their_own_and_apart_by_delay(tmp_path, late):
    assert group_of(late[0].case) == "late_ranks" != group_of(planted_ranks.case())
    other = replace(late[1], case=replace(late[1].case, late_seconds=4e-3))
    files = [results.load(planted.write(tmp_path / name, found)) for name, found in (("a", late), ("b", [other]))]
    with pytest.raises(UserError, match=r"none is the same work, as .*: late_seconds 0\.001 → 0\.004"):
        match_cases(*files)


def test_a_result_file_keeps_the_delay_and_other_cases_have_none(tmp_path, late):
    path = planted.write(tmp_path / "x.json", [*late, measured(planted_ranks.case(), 1e-3)])
    assert [one.case.late_seconds for one in results.load(path).measurements] == [0.0, 1e-3, None]
    assert "late_seconds" not in measured(planted_ranks.case(), 1e-3).extra_info()
    assert late[0].extra_info()["late_seconds"] == 0.0


def test_published_times_are_not_held_against_them(tmp_path, monkeypatch):
    published = planted_ranks.published({16 * KIB: 18, 64 * KIB: 19, 256 * KIB: 20}, "nccl", "trtllm")
    other = results.load(planted.write(tmp_path / "h200.json", published, planted.H200))
    one = measured(planted_ranks.case(64 * KIB, ranks=8, implementation="nccl"), 1e-5)
    in_step = replace(one, case=replace(one.case, late_seconds=0.0, name="late"))
    found = points(tmp_path, [one, in_step], planted.H200, [other])
    assert found[one.case.name].reference
    assert found["late"].reference is None
