"""What `show` prints of operations between ranks."""

import pytest

from reports import output, results
from reports.importers.aiconfigurator import package
from reports.output import Format
from reports.show import case_metrics, file_blocks, show
from specs.errors import UserError
from tests.reports import planted
from tests.reports.communication import planted_ranks
from tests.reports.communication.planted_ranks import case, sweep
from tests.reports.planted import measured

MIB = 2**20


@pytest.fixture(autouse=True)
def _no_package(monkeypatch):
    def absent():
        raise UserError("not installed")

    monkeypatch.setattr(package, "find_package", absent)


def page(tmp_path, measurements, machine=planted.CPU):
    file = results.load(planted.write(tmp_path / "x.json", measurements, machine))
    return output.render_terminal(file_blocks(file, case_metrics(file)), width=160)


def test_a_row_has_time_and_both_bandwidths(tmp_path):
    text = page(tmp_path, [measured(case(16 * MIB), 1e-3), measured(case(MIB), 100e-6)])
    assert "\ncommunication: all_reduce  gloo · eager · ranks 4 · bf16\n" in text
    lines = [line.split() for line in text.split("\n")]
    assert ["1", "MiB", "100", "0.00%", "10.5", "15.7"] in lines
    assert ["16", "MiB", "1,000", "0.00%", "16.8", "25.2"] in lines


def test_series_stand_apart_and_rise_by_message(tmp_path):
    found = [*sweep(gap_seconds=0.001, sizes=(4096, 1024)), *sweep(sizes=(4096, 1024))]
    text = page(tmp_path, [found[0], found[2], found[1], found[3]])
    body = text.split("communication: all_reduce", 1)[1].split("─\n", 1)[1].split("\n")
    rows = [line.split()[:4] for line in body[:5]]
    assert rows == [
        ["1.00", "ms", "1", "KiB"],
        ["1.00", "ms", "4", "KiB"],
        [],
        ["none", "1", "KiB", body[3].split()[3]],
        ["none", "4", "KiB", body[4].split()[3]],
    ]


def test_each_operation_has_its_table(tmp_path):
    text = page(tmp_path, [*sweep(op="ping_pong", pair="0-1"), *sweep(), measured(planted.case(), 1.0)])
    titles = [line.split("  ")[0] for line in text.split("\n") if "·" in line]
    assert titles == ["decode", "communication: all_reduce", "communication: ping_pong", "fit"]
    assert "hop" in text.split("communication: ping_pong")[1].split("─")[0]
    assert "hop" not in text.split("communication: all_reduce")[1].split("─")[0]


def test_skew_algorithm_and_link_are_shown_where_something_tells(tmp_path):
    told = measured(case(MIB, implementation="nccl"), 1e-4, skew_seconds=3e-6, algorithm="ring LL", transport="nvlink")
    untold = measured(case(2 * MIB, implementation="nccl"), 2e-4)
    text = page(tmp_path, [told, untold], planted.H200)
    rows = [line.split() for line in text.split("\n")]
    assert ["1", "MiB", "100", "0.00%", "10.5", "15.7", "3.00", "ring", "LL", "3.5%"] in rows
    assert ["2", "MiB", "200", "0.00%", "10.5", "15.7", "–", "unknown", "–"] in rows
    head = page(tmp_path, [untold], planted.H200).split("communication: ")[1].split("─")[0]
    assert not {"algorithm", "link", "skew", "published"} & set(head.split())


def test_over_the_link_by_adding_up_in_the_switch_is_explained(tmp_path):
    one = measured(case(MIB, implementation="nccl"), 1e-6, algorithm="nvls SIMPLE", transport="nvlink")
    assert "over 100% is no error" in page(tmp_path, [one], planted.H200)


def test_published_figures_stand_beside(tmp_path, capsys):
    found = sweep(implementation="nccl", ranks=8, alpha=40e-6, rate=1e15, sizes=(12288, 16384))
    own = planted.write(tmp_path / "own.json", found, planted.H200)
    times = planted_ranks.published({4096: 17, 8192: 18, 16384: 20}, "nccl", "trtllm", dtype="fp16")
    show([own, planted.write(tmp_path / "h200.json", times, planted.H200)], Format.TABLE, None)
    rows = [line.split() for line in capsys.readouterr().out.split("\n")]
    assert ["16", "KiB", "40.0", "0.00%", "0.41", "0.72", "20.0", "2.00"] in rows
    between = ["published:", "interpolated", "8", "KiB–16", "KiB"]
    assert ["12", "KiB", "40.0", "0.00%", "0.31", "0.54", "19.0", "2.11", *between] in rows
    assert ["published,", "the", "fastest", "of", "its", "kind:"] in [row[:6] for row in rows]


def test_a_models_messages_say_what_is_shipped(tmp_path):
    shape = {"question": "messages", "op": "send_recv", "model": "llama-3-70b", "tp": 8, "pp": 2, "pair": "0-1"}
    found = [
        measured(case(tokens * 16384, tokens=tokens, layer=what, name=f"{what}{tokens}", **shape), 1e-4)
        for what in ("hidden", "hidden+residual")
        for tokens in (16, 1)
    ]
    text = page(tmp_path, found)
    assert "\nmessages: send_recv  llama-3-70b · tp 8 · pp 2 · gloo · eager · pair 0-1 · ranks 4 · bf16\n" in text
    assert ["ships", "tokens", "message", "us", "95%", "GB/s", "GB/s"] in [line.split() for line in text.split("\n")]
    rows = [line.split()[:4] for line in text.split("\n") if line.startswith("hidden")]
    assert rows == [
        ["hidden", "1", "16", "KiB"],
        ["hidden", "16", "256", "KiB"],
        ["hidden+residual", "1", "16", "KiB"],
        ["hidden+residual", "16", "256", "KiB"],
    ]


def test_copies_between_several_pairs_make_a_matrix(tmp_path):
    """256 MiB from 0 to 1 in 1 ms are 268 GB/s, back in 2 ms 134."""
    common = {"op": "peer_copy", "implementation": "peer", "ranks": 2}
    found = [
        measured(case(size, pair=pair, **common), seconds * size / 2**28)
        for size in (2**20, 2**28)
        for pair, seconds in (("0-1", 1e-3), ("1-0", 2e-3))
    ]
    found.append(measured(case(2**20, pair="1-2", **common), 1e-6))
    text = page(tmp_path, found)
    assert "\npeer_copy matrix  peer · eager · bf16 · 256 MiB · GB/s; a row sends, a column receives\n" in text
    rows = [line.split() for line in text.split("peer_copy matrix")[1].split("\n")]
    assert ["0", "–", "268"] in rows
    assert ["1", "134", "–"] in rows
    assert ["from", "\\", "to", "0", "1"] in rows  # not 2, whose copies are of another size
    assert "matrix" not in page(tmp_path, found[:4:2])


def test_the_fit_names_its_series_sizes_and_residual(tmp_path):
    rows = [line.split() for line in page(tmp_path, sweep(alpha=20e-6, rate=2e9)).split("\n")]
    interval = ["20.0", "–", "20.0", "3.00", "3.00", "–", "3.00"]
    assert ["20.0", *interval, "busbw", "8", "1", "KiB", "16", "MiB", "0.00%", "6", "passes"] in rows
    assert "\nfit  " not in page(tmp_path, sweep(sizes=(1024, 2048, 2**20)))


def test_a_message_of_unknown_size_stays_in_the_general_table(tmp_path):
    text = page(tmp_path, [measured(planted.replace(case(MIB), message_bytes=None), 1.0)])
    assert "communication: all_reduce" not in text
    assert "\ncommunication  " in text
