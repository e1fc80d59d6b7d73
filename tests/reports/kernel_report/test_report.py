import json
import random
import re
from functools import partial
from itertools import product

import pytest

from reports import formatting, output, result_tables
from reports.__main__ import main
from reports.kernel_report import points, report
from reports.kernel_report.report import file_blocks, selection_record
from reports.output import render_markdown
from specs.layer import LINEAR_IMPLEMENTATIONS
from specs.models import find_model
from specs.parallel import Split
from tests.reports import planted
from tests.reports.kernel_report.planted_kernels import LINEARS, O_TP8, linear, one_point, selection
from tests.reports.planted import measured


@pytest.fixture
def selected(tmp_path):
    return partial(selection, tmp_path)


def only(selection):
    (point,) = selection_record(selection)["points"]
    return point


def text(selection, width=100):
    return output.render_terminal(file_blocks(selection), width=width)


def test_a_point_by_hand(selected):
    """The better library takes 10 us, the better of ours 8: 1.25. The floor: 40,000 bytes at 10e9 a second, 4 us."""
    seconds = {"torch": 11e-6, "cublaslt": 10e-6, "triton": 9e-6, "triton_pdl": 5e-6, "cuda": 8e-6}
    point = only(selected([*one_point(seconds, hbm_bytes=40_000), *planted.ceilings(read=10e9)]))
    assert (point["layer"], point["tp"], point["n"], point["k"], point["tokens"]) == ("o", 8, 8192, 1024, 1)
    assert point["seconds"] == {name.replace("_", "-"): value for name, value in seconds.items()}
    assert (point["library"], point["ours"]) == ("cublaslt", "cuda")
    assert (point["ratio"], point["low"], point["high"]) == (pytest.approx(1.25),) * 3
    assert point["floor_seconds"] == pytest.approx(4e-6)
    assert point["of_floor"] == pytest.approx(0.5)
    assert point["ratio_pdl"] == pytest.approx(2.0)


def test_dependent_launch_is_never_among_ours(selected):
    point = only(selected(one_point({"torch": 10e-6, "triton_pdl": 5e-6})))
    assert (point["ours"], point["ratio"], point["of_floor"]) == (None, None, None)
    assert point["ratio_pdl"] == pytest.approx(2.0)


def test_the_interval_is_clustered_by_pass(selected):
    """Two passes a side, log medians ±d around their mean: each half-spread is d·√2/√2 = d; t(0.975, 2) is 4.3027.

    ratio 2, d = ln 1.01 on both sides: total variance d² + d², so the factor is exp(4.3027·√2·ln 1.01) = 1.0624.
    """
    torch, triton = ((2.02e-5,) * 9, (2e-5 / 1.01,) * 9), ((1.01e-5,) * 9, (1e-5 / 1.01,) * 9)
    point = only(selected(one_point({"torch": torch, "triton": triton})))
    assert point["high"] / point["ratio"] == pytest.approx(1.0624, abs=1e-4)
    assert point["ratio"] / point["low"] == pytest.approx(1.0624, abs=1e-4)


def test_a_single_pass_has_a_ratio_and_no_interval(selected):
    point = only(selected([measured(linear(name), value, passes=1) for name, value in (("torch", 2.0), ("cuda", 1.0))]))
    assert (point["ratio"], point["low"], point["high"]) == (2.0, None, None)


def test_missing_implementations_are_empty(selected):
    both = one_point({"torch": 10e-6, "triton": 8e-6})
    chosen = selected([*both, *one_point({"torch": 10e-6, "cuda": 8e-6}, tokens=4)])
    first, second = selection_record(chosen)["points"]
    assert (first["seconds"]["cuda"], second["seconds"]["triton"]) == (None, None)
    rows = [line.split() for line in text(chosen).split("\n") if line.startswith("8192×1024")]
    assert not rows
    rows = [line.split()[2:6] for line in text(chosen).split("\n") if " 8192×1024 " in line]
    assert rows == [["1", "10.00", "8.00", "–"], ["4", "10.00", "–", "8.00"]]
    assert "not in this file: cublaslt, triton-pdl" in text(chosen)
    assert "no cublaslt at 2 of 2 points compared" in text(chosen)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cache": "hot"}, "1 hot"),
        ({"cache": "rotated-4"}, "1 rotated-4"),
        ({"launch": "eager"}, "1 eager"),
    ],
)
def test_what_is_of_another_kind_is_left_out_and_counted(selected, changes, reason):
    chosen = selected([*one_point({"torch": 1.0, "cuda": 0.5}), measured(linear("triton", **changes), 0.1)])
    assert only(chosen)["ratio"] == 2.0
    assert f"left out: {reason}" in chosen.notes


def test_other_implementations_are_left_out_and_counted(selected):
    chosen = selected([*one_point({"torch": 1.0, "cuda": 0.5}), *one_point({"vllm": 0.1})])
    assert only(chosen)["ratio"] == 2.0
    assert "left out: 1 by vllm" in chosen.notes


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "fp32"}, {"question": "layer"}, {"op": "copy"}, {"tokens": 512, "question": "sweep"}, {"layer": None}],
)
def test_what_is_no_linear_of_decode_or_prefill_is_no_matter(selected, changes):
    chosen = selected([*one_point({"torch": 1.0, "cuda": 0.5}), measured(linear("triton", **changes), 0.1)])
    assert only(chosen)["ratio"] == 2.0
    assert not any(note.startswith("left out") for note in chosen.notes)


def test_a_cpu_is_eager(selected):
    chosen = selected(one_point({"torch": 1.0}, launch="eager"), machine=planted.CPU)
    assert (chosen.launch, len(chosen.points)) == ("eager", 1)


def test_decode_goes_before_a_sweep_which_stands_in_for_it(selected):
    sweep = one_point({"torch": 3.0, "cuda": 1.0}, question="sweep")
    assert only(selected([*sweep, *one_point({"torch": 2.0, "cuda": 1.0})]))["ratio"] == 2.0
    assert only(selected(sweep))["ratio"] == 3.0


def test_rivals_of_one_stage_stay_together(selected):
    """The library of pp 1 is never held against our kernel of pp 8."""
    alone, both = O_TP8, O_TP8._replace(pp=8)
    found = [measured(linear("torch", shard=alone), 9.0), *one_point({"torch": 2.0, "cuda": 1.0}, shard=both)]
    assert only(selected(found))["ratio"] == 2.0


def test_the_model_is_llama_3_70b_the_first_or_the_one_asked_for(selected):
    small, other = (Split(find_model(slug), 1).linear("o") for slug in ("llama-3-8b", "llama-3.2-1b"))
    found = [*one_point({"torch": 1.0}, shard=small), *one_point({"torch": 1.0}, shard=other)]
    assert selected(found).model == "llama-3-8b"
    assert selected(found, "llama-3.2-1b").model == "llama-3.2-1b"
    assert selected([*found, *one_point({"torch": 1.0})]).model == "llama-3-70b"
    (note,) = selected(found, "llama-3-70b").notes
    assert note.endswith("; this file has llama-3-8b, llama-3.2-1b: ask for it with --model")


def test_a_file_without_decode_linears_says_so_in_a_line(selected):
    chosen = selected(planted.ceilings())
    (note,) = chosen.notes
    assert note.startswith("none of 2 cases is a linear of llama-3-70b in bf16, cold, graph, by torch, cublaslt,")
    assert note.endswith("; `pytest suites/ -k decode --dtype bf16 --benchmark-json=out.json` measures them")
    assert "targets" not in text(chosen)
    assert selection_record(chosen)["points"] == []
    assert [one["met"] for one in selection_record(chosen)["targets"]] == [None] * 14


def test_published_times_are_left_out_in_a_line(selected):
    machine = planted.H200 | {"source": "somebody"}
    (note,) = selected([measured(linear("vllm", cache="rotated-6"), 1.0)], machine=machine).notes
    assert " (1 by vllm); published times of frameworks: `python -m reports html` shows them" in note


def test_another_gpu_says_for_what_the_targets_were_set(selected):
    seconds = {"torch": 1.0, "cuda": 1.0}
    other = planted.H200 | {"gpu": "NVIDIA B200", "gpu_memory_bytes": 180_000_000_000}
    assert "set for h200_sxm and llama-3-70b; this is b200_sxm" in text(selected(one_point(seconds), machine=other))
    assert "set for" not in text(selected(one_point(seconds)))


def test_labels_stay_as_marks(selected):
    spread = tuple((0.5e-6, 1e-6, 1e-6, 1.5e-6) for _ in range(6))
    found = [measured(linear("torch"), 2e-6, throttled=True), measured(linear("cuda"), spread)]
    chosen = selected(found)
    assert "!2.00  ~1.00  2.000" in text(chosen)
    assert "\n~ noisy; ! throttled\n" in text(chosen)
    assert only(chosen)["warnings"] == {"torch": ["throttled"], "cuda": ["noisy"]}
    assert "~1.00 / !2.00 (2.000)" in render_markdown(report.ratio_grids([chosen]))


def test_configurations_are_numbered_and_told_once(selected):
    def ours(name, tokens, text):
        return planted.replace(measured(linear(name, tokens), 1e-6), configuration=text)

    wide = "rows 128 split 4 (rule)"
    found = [ours("triton", 1, wide), ours("triton", 8, wide), ours("cuda", 16, "rows 8"), *one_point({"torch": 2e-6})]
    chosen = selected(found)
    assert [one["configuration"] for one in selection_record(chosen)["points"]] == [wide, wide, "rows 8"]
    rows = [line.split() for line in text(chosen).split("\n") if " 8192×1024 " in line]
    assert [row[-1] for row in rows] == ["1", "1", "2"]
    after = text(chosen).split("\nconfigurations  ")[1].split("\n")
    assert [line.split(maxsplit=3) for line in after[3:5]] == [
        ["1", "2", "triton_kernel", wide],
        ["2", "1", "cuda_kernel", "rows 8"],
    ]


def test_the_configuration_is_that_of_the_kernel_that_won(selected):
    found = [
        planted.replace(measured(linear(name), seconds), configuration=name)
        for name, seconds in (("triton", 2e-6), ("cuda", 1e-6), ("triton-pdl", 0.5e-6))
    ]
    assert only(selected(found))["configuration"] == "cuda"


def full(selected):
    """Every cell filled, and a configuration of its own for each shape."""
    named = []
    for shard, tokens, name in product(LINEARS, points.DECODE_TOKENS, LINEAR_IMPLEMENTATIONS):
        moved = 2 * shard.n * shard.k
        case = linear(name, tokens, shard, hbm_bytes=moved, flops=tokens * moved)
        configuration = f"matrix rows 128 tokens 16 depth 64 split {shard.tp} warps 4 stages {shard.n} (rule)"
        rng = random.Random(case.name)
        named.append(planted.replace(planted.noisy(case, 3e-6 + moved / 4e12, rng), configuration=configuration))
    return selected([*named, *planted.ceilings(4.3e12, 750e12)])


NEW = "algo 4 of 32 proposed (32 asked), 3.0 MB workspace (fastest cold of 3 timed in full, 30 are right)"
FEW = "algo 1 of 5 proposed (32 asked), 0.0 MB workspace (fastest cold of 3 timed in full, 5 are right)"
OLD = "algo 1 of 8, 3.0 MB workspace (fastest cold of 8 that are right)"


@pytest.mark.parametrize(
    ("configuration", "asked", "marked"), [(NEW, 32, False), (FEW, 32, False), (OLD, 8, True), (None, None, False)]
)
def test_a_ratio_says_on_how_many_candidates_it_stands_and_is_marked_on_fewer(selected, configuration, asked, marked):
    library = planted.replace(measured(linear("cublaslt"), 10e-6), configuration=configuration)
    chosen = selected([library, measured(linear("triton"), 8e-6)])
    assert only(chosen)["cublaslt_candidates"] == asked
    assert (f"when asked for {asked} candidates a size" in text(chosen)) == (asked is not None)
    for shown in (text(chosen), render_markdown(report.ratio_grids([chosen]))):
        assert ("1.250†" in shown) == ("† against the fastest of fewer than 32 cublaslt" in shown) == marked


def test_without_cublaslt_nothing_is_said_of_candidates(selected):
    chosen = selected([measured(linear("torch"), 10e-6), measured(linear("triton"), 8e-6)])
    assert only(chosen)["cublaslt_candidates"] is None
    assert "candidates" not in text(chosen)


def test_times_with_dependent_launch_say_that_a_layer_gains_less(selected):
    found = one_point({"torch": 10e-6, "triton": 8e-6, "triton_pdl": 5e-6})
    chosen = selected(found)
    assert " ".join(text(chosen).split()).count("a layer has other kernels between its linears and gains less") == 2
    plain, with_pdl = render_markdown(report.ratio_grids([chosen])).split("### ")[1:]
    assert formatting.DEPENDENT_LAUNCH_NOTE in with_pdl
    assert formatting.DEPENDENT_LAUNCH_NOTE not in plain
    assert "gains less" not in text(selected(found[:2]))
    for table in (
        result_tables.build_tables(chosen.points[0].by_implementation.values()),
        result_tables.build_tables([chosen.points[0].by_implementation["torch"]]),
    ):
        (notes,) = (one.notes for one in table)
        assert (formatting.DEPENDENT_LAUNCH_NOTE in notes) == (len(table[0].rows) == 3)


@pytest.mark.parametrize("width", [100, 160])
def test_a_full_table_fits(selected, width):
    lines = text(full(selected), width).split("\n")
    assert max(map(len, lines[1:])) <= width


def test_the_grid_has_a_cell_for_each_point(selected):
    seconds = {"torch": 12e-6, "cublaslt": 10e-6, "triton": 8e-6, "triton_pdl": 5e-6}
    chosen = selected([*one_point(seconds, tokens=16), *one_point({"torch": 3e-6}, tokens=64)])
    plain, dependent = render_markdown(report.ratio_grids([chosen])).split("### ")[1:]
    assert plain.startswith("NVIDIA H200\n")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in plain.split("\n")
        if re.match(r"\| [a-z_]+ +\| +\d", line)
    ]
    assert len(rows) == 16
    assert rows[7] == ["o", "8", "8192×1024", "16.78 MB", "", "", "8.00 / 10.00 (1.250)", "", "– / 3.00"]
    assert all(cell == "" for row in rows if row[:2] != ["o", "8"] for cell in row[4:])
    assert dependent.startswith("NVIDIA H200 · with dependent launch\n")
    assert "5.00 / 10.00 (2.000)" in dependent
    assert "(2.000)" not in plain


def test_the_grid_without_a_gpu_is_empty_and_says_so(selected):
    (empty,) = report.ratio_grids([selected(one_point({"torch": 1.0}, launch="eager"), machine=planted.CPU)])
    assert len(empty.rows) == 16
    assert {cell for row in empty.rows for cell in row[4:]} == {""}
    assert empty.notes == (report.NO_GPU_NOTE,)


def test_the_grid_of_another_model_has_its_shapes(selected):
    shard = Split(find_model("llama-3-8b"), 2).linear("down")
    (one,) = report.ratio_grids([selected(one_point({"torch": 2e-6, "cuda": 1e-6}, shard=shard))])
    assert [row[:5] for row in one.rows] == [("down", "2", "4096×7168", "58.72 MB", "1.00 / 2.00 (2.000)")]


def test_the_command_writes_a_list_with_an_object_for_each_file(tmp_path, capsys):
    good = planted.write(tmp_path / "a.json", one_point({"torch": 2.0, "cuda": 1.0}), machine=planted.H200)
    empty = planted.write(tmp_path / "b.json", planted.ceilings())
    with pytest.raises(SystemExit) as done:
        main(["kernels", str(good), str(empty), "--format", "json"])
    assert not done.value.code
    a, b = json.loads(capsys.readouterr().out)
    assert (a["gpu"], a["model"], len(a["points"]), len(a["targets"])) == ("NVIDIA H200", "llama-3-70b", 1, 14)
    assert (b["gpu"], b["model"], b["points"]) == (None, None, [])


def test_the_command_in_its_other_forms(tmp_path, capsys):
    path = planted.write(tmp_path / "a.json", one_point({"torch": 2.0, "cuda": 1.0}), machine=planted.H200)
    for options in ([], ["--grid"], ["--model", "llama-3-8b"], ["--format", "markdown"]):
        with pytest.raises(SystemExit) as done:
            main(["kernels", str(path), *options])
        assert not done.value.code
    out = capsys.readouterr().out
    assert "ask for it with --model" in out
    assert "### targets" in out


def test_an_unknown_model_is_told_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["kernels", "any.json", "--model", "llama-3-70"])
    assert ended.value.code == 2
    assert "unknown model 'llama-3-70'; did you mean" in capsys.readouterr().err
