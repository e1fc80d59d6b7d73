"""The report's chapter: published all-reduces beside each other, and what was measured here with its fit."""

import json
import re

import pytest

from reports import results
from reports.__main__ import main
from reports.communication import points, report
from reports.html import communication
from reports.html import page as html_page
from reports.html import report as html_report
from tests.reports import planted
from tests.reports.communication import planted_ranks
from tests.reports.html.plots import checked_plots

KIB = 2**10
SIZES = tuple(2**power for power in range(10, 25))
H100 = planted.H200 | {"gpu": "NVIDIA H100 80GB HBM3", "gpu_memory_bytes": 80 * 10**9}


def silicon(path, factor=1.0, machine=planted.H200, ranks=8):
    """18 us by NCCL, 3 us in a graph, 21 and 24 us eager, at 16 KiB; in proportion to the message."""
    source = machine | {"source": "planted tables 1.0"}

    def times(us):
        return {size * KIB: us * factor * size / 16 for size in (8, 16, 128)}

    found = [
        *planted_ranks.published(times(18), "nccl", "trtllm", dtype="fp16", ranks=ranks),
        *planted_ranks.published(times(1), "nccl", "trtllm", dtype="int8", ranks=ranks),
        *planted_ranks.published(times(5), framework="vllm", launch="graph", ranks=ranks),
        *planted_ranks.published(times(3), framework="trtllm", launch="graph", ranks=ranks),
        *planted_ranks.published(times(21), framework="vllm", ranks=ranks),
        *planted_ranks.published(times(24), framework="sglang", ranks=ranks),
        *planted_ranks.published(times(2), framework="sglang", ranks=2),
    ]
    return planted.write(path, found, source)


def own(path):
    hops = planted_ranks.sweep(op="send_recv", pair="0-1", alpha=10e-6, ranks=2, sizes=SIZES)
    return planted.write(path, [*planted.ceilings(), *planted_ranks.sweep(ranks=2, sizes=SIZES), *hops])


def written(*paths):
    return report.build_section([results.load(path) for path in paths])


def test_the_sentence_is_computed_from_the_file(tmp_path):
    said = written(silicon(tmp_path / "a.json")).sentences()
    assert said == [
        "At 16 KiB on 8 × h200_sxm an all-reduce takes 18.0 us with NCCL eager, 21.0 us with the fastest custom kernel "
        "eager and 3.00 us with the fastest custom kernel in a graph (published)."
    ]


def test_gpus_stand_beside_each_other_at_each_size(tmp_path):
    found = written(silicon(tmp_path / "h200.json"), silicon(tmp_path / "h100.json", 2, H100)).published
    (table,) = points.published_table(found)
    titles = [column.title.replace("\n", " ") for column in table.columns]
    assert titles[:6] == ["message", "GPU", "ranks", "NCCL eager us", "custom eager us", "custom graph us"]
    assert [[row[:7] for row in group] for group in table.groups] == [
        [
            ("16 KiB", "h100_sxm", "8", "36.0", "42.0", "6.00", "7.0"),
            ("16 KiB", "h200_sxm", "8", "18.0", "21.0", "3.00", "7.0"),
        ],
        [
            ("128 KiB", "h100_sxm", "8", "288", "336", "48.0", "7.0"),
            ("128 KiB", "h200_sxm", "8", "144", "168", "24.0", "7.0"),
        ],
    ]
    assert table.rows[0][7] == "eager: vllm 1.0, graph: trtllm 1.0"
    assert table.caption.startswith("NCCL in fp16, custom in bf16")


def test_without_eight_ranks_the_most_there_are(tmp_path):
    (found,) = written(silicon(tmp_path / "a.json", ranks=4)).published
    assert found.ranks == 4


def test_what_is_not_published_is_not_made_up(tmp_path):
    path = planted.write(tmp_path / "a.json", planted_ranks.published({16 * KIB: 18}, "nccl", "trtllm"), planted.H200)
    found = written(path)
    (table,) = points.published_table(found.published)
    assert list(table.rows) == [("16 KiB", "h200_sxm", "8", "18.0")]
    assert "custom" not in found.sentences()[0]


def test_what_was_measured_is_said_with_its_fit(tmp_path):
    """16 KiB: 20 us + 16384 B / 2e9 B/s = 28.2 us, 0.581 GB/s; of two ranks busbw is algbw."""
    said = written(own(tmp_path / "own.json")).sentences()
    assert said == [
        "At 16 KiB over 2 ranks of Planted CPU 9000 all_reduce takes 28.2 us with gloo eager, a busbw of 0.581 GB/s; "
        "fitted over all sizes: 20.0 us and 2.00 GB/s (measured).",
        "At 16 KiB over 2 ranks of Planted CPU 9000 send_recv takes 18.2 us with gloo eager, a busbw of 0.901 GB/s; "
        "fitted over all sizes: 10.0 us and 2.00 GB/s (measured).",
    ]


def test_files_without_ranks_have_no_section(tmp_path):
    found = written(planted.write(tmp_path / "a.json", planted.ceilings()))
    assert not found
    assert found.blocks() == []
    assert communication.template_context(found) is None


def html(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["html", *map(str, arguments)])
    assert not ended.value.code


def test_json_holds_fits_and_published_points(tmp_path, capsys):
    html(own(tmp_path / "own.json"), silicon(tmp_path / "h200.json"), "--format", "json")
    told = json.loads(capsys.readouterr().out)["communication"]
    first = told["fits"][0]
    assert (first["op"], first["implementation"], first["bandwidth_is"]) == ("all_reduce", "gloo", "busbw")
    assert first["alpha_seconds"] == pytest.approx(20e-6, rel=1e-4)
    assert first["bandwidth_bytes_per_second"] == pytest.approx(2e9, rel=1e-4)
    assert len(first["alpha_interval_seconds"]) == 2
    point = {"implementation": "custom", "launch": "graph", "message_bytes": 16384, "framework": "trtllm"}
    (found,) = [one for one in told["published"] if point.items() <= one.items()]
    assert (found["seconds"], found["ranks"], found["gpu"]) == (pytest.approx(3e-6), 8, "h200_sxm")


def test_the_terminal_has_the_same_tables_shortly(tmp_path, capsys):
    html(own(tmp_path / "own.json"), silicon(tmp_path / "h200.json"))
    said = capsys.readouterr().out
    assert "\nCommunication\n" in said
    assert "\npublished all-reduces  " in said
    assert "\nmeasured by Planted CPU 9000\n" in said
    assert [line.split()[:2] for line in said.split("communication: send_recv")[1].split("\n")[4:8]] == [
        ["16", "KiB"],
        ["128", "KiB"],
        ["1", "MiB"],
        ["16", "MiB"],
    ]


@pytest.fixture
def told(tmp_path):
    paths = [own(tmp_path / "own.json"), silicon(tmp_path / "h200.json"), silicon(tmp_path / "h100.json", 2, H100)]
    return html_report.build_report(results.load_all(paths))


def test_the_page_plots_points_lines_and_each_gpu_on_the_same_axes(told):
    page = html_page.render_page(told)
    assert checked_plots(page)
    specs = {
        name: json.loads(text)
        for name, text in re.findall(r'<script type="application/json" data-for="([^"]+)">(.*?)</script>', page, re.S)
    }
    gpus = [specs["published-h100-sxm"], specs["published-h200-sxm"]]
    domains = [[one["encoding"][axis]["scale"]["domain"] for axis in "xy"] for one in gpus]
    assert domains[0] == domains[1] == [[8192, 131072], [1.5, 336]]
    dashes = gpus[0]["encoding"]["strokeDash"]["scale"]
    assert dict(zip(dashes["domain"], dashes["range"], strict=True)) == {
        "NCCL eager": [5, 3],
        "custom eager": [5, 3],
        "custom graph": [1, 0],
    }
    for name in ("measured-all-reduce-planted-cpu-9000", "measured-send-recv-planted-cpu-9000"):
        line, dots = specs[name]["layer"]
        assert (line["mark"]["type"], dots["mark"]["type"]) == ("line", "point")
        fitted, found = (specs[name]["datasets"][layer["data"]["name"]] for layer in (line, dots))
        assert len(found) == len(SIZES)
        assert [fitted[at]["us"] for at in (0, -1)] == pytest.approx([found[at]["us"] for at in (0, -1)], rel=1e-3)


def test_series_on_a_plot_have_names_of_their_own(tmp_path):
    found = [
        *planted_ranks.sweep(),
        *planted_ranks.sweep(gap_seconds=0.001),
        *planted_ranks.sweep(launch="graph"),
        *planted_ranks.sweep(ranks=2),
        *planted_ranks.sweep(dtype="fp32"),
    ]
    in_place = [
        planted.replace(one.case, kernel="gloo_all_reduce_in_place", name=f"{i}") for i, one in enumerate(found)
    ]
    found += [planted.replace(one, case=case) for one, case in zip(found, in_place, strict=True)]
    (measured,) = written(planted.write(tmp_path / "a.json", found)).measured
    assert len({series.label for series, _ in measured.series}) == len(measured.series) == 10


def test_where_the_page_would_be_too_large_it_points_to_show(told, monkeypatch):
    whole = html_page.render_page(told)
    assert "Every size" in whole
    monkeypatch.setattr(html_page, "MAX_BYTES", 1)
    less = html_page.render_page(told)
    assert "Every size" not in less
    assert "At every size: <code>python -m reports show" in less


def test_compare_and_claims_take_such_files(tmp_path, capsys):
    a = planted.write(tmp_path / "a.json", [*planted_ranks.sweep(), *planted_ranks.sweep(gap_seconds=0.001)])
    slower = [*planted_ranks.sweep(alpha=40e-6), *planted_ranks.sweep(gap_seconds=0.001)]
    b = planted.write(tmp_path / "b.json", slower)
    for arguments in (["compare", a, b], ["claims", a], ["kernels", a]):
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        assert not ended.value.code
        said = capsys.readouterr().out
        if arguments[0] == "compare":
            rows = [line.split() for line in said.split("\n")]
            assert ["none", "1", "KiB", "20.5", "40.5", "1.975", "1.975", "–", "1.975", "slower"] in rows
            assert ["1.00", "ms", "1", "KiB", "20.5", "20.5", "1.000", "1.000", "–", "1.000", "same"] in rows
