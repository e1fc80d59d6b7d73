import json

import pytest

from reports import output
from reports.output import Format
from reports.results import load
from reports.show import case_metrics, file_blocks, show
from tests.reports import planted
from tests.reports.planted import ceilings, measured


def figures(tmp_path, measurements, **kwargs):
    return {
        f.measurement.case.name: f
        for f in case_metrics(load(planted.write(tmp_path / "x.json", measurements, **kwargs)))
    }


def page(tmp_path, measurements, width=120, **kwargs):
    file = load(planted.write(tmp_path / "x.json", measurements, **kwargs))
    return output.render_terminal(file_blocks(file, case_metrics(file)), width=width)


def table(text, title):
    """The rows below a title, each as its words."""
    lines = text.split(f"\n{title}  ", 1)[1].split("\n")
    rule = next(number for number, line in enumerate(lines) if line.startswith("──"))
    return [line.split() for line in lines[rule + 1 : lines.index("", rule)]]


def test_a_gigabyte_in_a_second_reads_so(tmp_path):
    text = page(tmp_path, [measured(planted.case(), 1.0)])
    assert "GB/s  GFLOP/s" in text
    assert table(text, "decode") == [["planted", "1.00", "0.00%", "1.00", "2.00", "0.00%"]]


def test_shares_of_the_measured_floor(tmp_path):
    """1e9 bytes at 10e9 B/s take 0.1 s; 2e9 flops at 100e9 flop/s take 0.02 s, 40e9 take 0.4 s."""
    memory, compute, fast = planted.case("m"), planted.case("c", flops=40_000_000_000), planted.case("f")
    found = figures(tmp_path, [measured(memory, 0.2), measured(compute, 0.5), measured(fast, 0.08), *ceilings()])
    assert found["m"].floor_seconds == pytest.approx(0.1)
    assert (found["m"].floor_share, found["m"].bound) == (pytest.approx(0.5), "memory")
    assert (found["c"].floor_share, found["c"].bound) == (pytest.approx(0.8), "compute")
    assert found["f"].floor_share == pytest.approx(1.25)
    text = page(tmp_path, [measured(memory, 0.2), measured(compute, 0.5), measured(fast, 0.08), *ceilings()])
    assert [row[-3:-1] for row in table(text, "decode")] == [["50%", "memory"], ["80%", "compute"], ["125%", "memory"]]


def test_the_best_ceiling_counts_and_a_hot_read_does_not(tmp_path):
    slow_read, slow_product = ceilings(read=5e9, peak=50e9)
    read_, product = ceilings()
    rename = {"name": "other"}
    hot = planted.replace(ceilings(read=90e9)[0], case=planted.replace(read_.case, name="hot", cache="hot"))
    slow_read = planted.replace(slow_read, case=planted.replace(slow_read.case, name="slow read"))
    slow_product = planted.replace(slow_product, case=planted.replace(slow_product.case, **rename))
    everything = [measured(planted.case("m"), 0.2), slow_read, read_, hot, product, slow_product]
    found = figures(tmp_path, everything)["m"].measured
    assert found.read_bytes_per_second == pytest.approx(10e9)
    assert found.flops_per_second == {"bf16": pytest.approx(100e9)}


def test_a_dtype_without_ceiling_has_no_floor_and_says_so(tmp_path):
    fp32 = measured(planted.case("x[32]", dtype="fp32"), 0.2)
    assert figures(tmp_path, [fp32, *ceilings()])["x[32]"].floor_share is None
    assert "no floor for fp32: this file has no matmul ceiling of that dtype" in page(tmp_path, [fp32, *ceilings()])


def test_a_file_without_ceilings_says_how_to_get_them(tmp_path):
    text = page(tmp_path, [measured(planted.case(), 0.2)])
    assert "ceilings  none in this file: run suites/bench_ceilings.py with the others for shares" in text
    assert "floor\n" not in text


def test_what_goes_over_the_wire_has_no_floor_of_memory(tmp_path):
    sent = planted.case("r", op="all_reduce", flops=0, wire_bytes_sent_per_rank=3_000_000_000, ranks=2)
    text = page(tmp_path, [measured(sent, 1.0), *ceilings()])
    assert figures(tmp_path, [measured(sent, 1.0), *ceilings()])["r"].floor_share is None
    assert table(text, "decode") == [["r", "1.00", "0.00%", "1.00", "3.00", "0.00%"]]


def test_the_datasheet_of_a_known_gpu(tmp_path):
    """1e9 bytes at 4.8e12 B/s take 208.3 us."""
    case = measured(planted.case("m"), 416.6666e-6)
    assert figures(tmp_path, [case], machine=planted.H200)["m"].datasheet_share == pytest.approx(0.5, rel=1e-4)
    text = page(tmp_path, [case], machine=planted.H200)
    assert "machine    NVIDIA H200, 132 SMs, 60 MiB L2, 139.7 GiB memory" in text
    assert "datasheet  h200_sxm: read 4,800 GB/s, bf16 990 TFLOP/s\n" in text
    assert table(text, "decode")[0][-2] == "50%"


@pytest.mark.parametrize("changes", [{"gpu": "NVIDIA H900"}, {"gpu_memory_bytes": 10**10}])
def test_an_unknown_gpu_is_said_to_be_unknown(tmp_path, changes):
    machine = planted.H200 | changes
    text = page(tmp_path, [measured(planted.case("m"), 1.0)], machine=machine)
    assert f"datasheet  unknown: no row of specs/gpus.py is a {machine['gpu']} of this memory" in text
    assert figures(tmp_path, [measured(planted.case("m"), 1.0)], machine=machine)["m"].datasheet_share is None


def test_a_cpu_has_no_datasheet_line(tmp_path):
    assert "\ndatasheet" not in page(tmp_path, [measured(planted.case(), 1.0)])


def test_the_header(tmp_path):
    missing = [("a", "no GPU"), ("b", "no GPU"), ("c", "no triton")]
    failed = [("x[d]", "wrong result: relative error 1")]
    text = page(tmp_path, [measured(planted.case(), 1.0), *ceilings()], not_run=missing, failed=failed)
    assert text.startswith(f"{tmp_path}/x.json\nmachine   Planted CPU 9000, 8 cores, 32 MiB LLC, 8 threads\n")
    assert "\nsoftware  torch 2.13.0+cpu\n" in text
    assert "\ndate      2026-01-31 12:34 UTC\n" in text
    assert "\ncommit    0123456789ab with uncommitted changes\n" in text
    asked = "pytest suites/bench_ceilings.py suites/bench_linears.py --passes 6 (by its options)"
    assert f"\ncommand   {asked}\n" in text
    assert "\nmeasured  3 cases in 6 passes, 3 not run, 1 failed\n" in text
    assert "\nceilings  read 10.0 GB/s, bf16 100 GFLOP/s\n" in text
    assert text.endswith("not run\n2  no GPU\n1  no triton\n\nfailed\n  x[d]: wrong result: relative error 1\n")


def test_questions_stand_in_their_order(tmp_path):
    names = ["all_reduce", "ceilings", "sweep", "decode", "prefill"]
    text = page(tmp_path, [measured(planted.case(name, question=name), 1.0) for name in names])
    found = [line.split()[0] for line in text.split("\n") if line.endswith("eager")]
    assert found == ["decode", "prefill", "sweep", "ceilings", "all_reduce"]


def test_columns_are_what_differs_and_the_caption_what_does_not(tmp_path):
    cases = [planted.case(f"x[{t}{c}]", tokens=t, cache=c) for t in (1, 16) for c in ("cold", "rotated-6")]
    text = page(tmp_path, [measured(case, 1.0) for case in cases])
    assert "\ndecode  llama-3-70b · o · linear · tp 8 · pp 1 · bf16 · torch · eager\n" in text
    assert [row[:2] for row in table(text, "decode")] == [
        ["1", "cold"],
        ["1", "rotated-6"],
        ["16", "cold"],
        ["16", "rotated-6"],
    ]


def test_cases_that_no_field_tells_apart_show_their_parameters(tmp_path):
    twins = [planted.case(f"s.py::bench[{name}]") for name in ("one", "two")]
    assert [row[0] for row in table(page(tmp_path, [measured(t, 1.0) for t in twins]), "decode")] == ["one", "two"]


def test_so_do_cases_of_which_some_differ(tmp_path):
    found = [planted.case("s.py::b[one]"), planted.case("s.py::b[two]"), planted.case("s.py::b[three]", tokens=2)]
    rows = table(page(tmp_path, [measured(case, 1.0) for case in found]), "decode")
    assert [row[:2] for row in rows] == [["1", "one"], ["1", "two"], ["2", "three"]]


def test_two_kernels_of_one_implementation_are_named(tmp_path):
    kernels = [planted.case(f"x[{k}]", kernel=k, implementation="triton") for k in ("triton_gemv", "triton_gemm")]
    rows = table(page(tmp_path, [measured(case, 1.0) for case in kernels]), "decode")
    assert [row[0] for row in rows] == ["triton_gemv", "triton_gemm"]


def test_the_sweep_is_grouped_and_grows_from_one_token(tmp_path):
    def sweep(layer, tokens, seconds):
        case = planted.case(f"x[{layer}{tokens}]", question="sweep", layer=layer, tokens=tokens, flops=tokens)
        return measured(case, seconds)

    found = [sweep("o", 16, 0.3), sweep("qkv", 1, 1.0), sweep("o", 1, 0.2), sweep("qkv", 16, 4.0)]
    text = page(tmp_path, found)
    assert "t/t(1)" in text
    rows = text.split("\nsweep  ", 1)[1].split("\n")[4:9]
    assert [line.split()[:2] for line in rows] == [["o", "1"], ["o", "16"], [], ["qkv", "1"], ["qkv", "16"]]
    assert [line.split()[4] for line in rows if line] == ["1.00", "1.50", "1.00", "4.00"]


def test_growth_is_from_the_fewest_tokens_where_one_is_missing(tmp_path):
    cases = [planted.case(f"x[{t}]", question="sweep", tokens=t) for t in (4, 8)]
    text = page(tmp_path, [measured(cases[0], 1.0), measured(cases[1], 2.0)])
    assert "t/t(4)" in text


def test_notes(tmp_path):
    spread = tuple((0.5, 1.0, 1.0, 1.5) for _ in range(6))
    found = [
        measured(planted.case("x[1]", tokens=1), spread),
        measured(planted.case("x[2]", tokens=2), 1.0, throttled=True, stopped_by="budget"),
        measured(planted.case("x[3]", tokens=3), 1.0, passes=1, provenance="published"),
        measured(planted.case("x[4]", tokens=4), 1.0, throttled=False),
    ]
    rows = [line.split("  ")[-1] for line in page(tmp_path, found).split("\n") if line.startswith("  ")]
    assert rows[-4:-1] == ["noisy", "throttled, stopped by budget", "published"]
    assert rows[-1] == "0.00%"


def test_what_holds_for_all_rows_stands_in_the_caption(tmp_path):
    spread = tuple((0.5, 1.0, 1.0, 1.5) for _ in range(6))
    found = [
        measured(planted.case("x[1]", tokens=1), spread, stopped_by="budget"),
        measured(planted.case("x[2]", tokens=2), 1.0, stopped_by="budget"),
    ]
    text = page(tmp_path, found)
    assert " · eager · stopped by budget\n" in text
    assert [row[-1] for row in table(text, "decode")] == ["noisy", "0.00%"]


def test_one_sample_has_no_noise(tmp_path):
    found = figures(tmp_path, [measured(planted.case("m"), ((1.0,),))])["m"]
    assert (found.noise, found.record()["noise"]) == (None, None)


def test_launch_stands_apart_so_that_its_unit_fits(tmp_path):
    idle = {"op": "launch", "flops": 1, "hbm_bytes": 12, "layer": None, "question": "ceilings"}
    launches = [measured(planted.case(how, launch=how, **idle), 3e-6) for how in ("eager", "graph")]
    text = page(tmp_path, [*ceilings(), *launches])
    last = text[text.rindex("\nceilings  ") :]
    assert table(last, "ceilings") == [["eager", "3.00", "0.00%", "0.00%"], ["graph", "3.00", "0.00%", "0.00%"]]


def many(machine=planted.H200):
    """A table with nearly every column and four-digit numbers."""
    cases = [
        planted.case(f"x[{layer}{tp}{tokens}{dtype}]", layer=layer, tp=tp, tokens=tokens, dtype=dtype)
        for layer in ("gate_up", "down")
        for tp in (1, 8)
        for tokens in (1, 4096)
        for dtype in ("bf16", "fp32")
    ]
    troubled = {"throttled": True, "stopped_by": "budget"}
    found = [measured(case, 234.5e-6, **(troubled if case.tp == 1 else {})) for case in cases]
    return [*found, *ceilings(4.34e12, 750e12), *ceilings(4.34e12, 50e12, "fp32")[1:]]


@pytest.mark.parametrize("width", [100, 120])
def test_a_full_table_fits(tmp_path, width):
    lines = page(tmp_path, many(), width, machine=planted.H200).split("\n")
    assert max(map(len, lines)) <= width


def test_a_narrow_terminal_cuts_no_number(tmp_path):
    narrow, wide = (table(page(tmp_path, many(), width, machine=planted.H200), "decode") for width in (40, 200))
    assert len(wide[0]) == 16
    assert [row[:11] for row in narrow if len(row) >= 11] == [row[:11] for row in wide]


def test_names_are_shown_as_they_are(tmp_path):
    failed = [("x[red]", "[bold]wrong[/bold]")]
    assert "x[red]: [bold]wrong[/bold]" in page(tmp_path, [measured(planted.case(), 1.0)], failed=failed)


def test_json_has_si_units_in_its_names(tmp_path, capsys):
    path = planted.write(tmp_path / "x.json", [measured(planted.case("m"), 0.2), *ceilings()])
    show([path], Format.JSON, None)
    record = json.loads(capsys.readouterr().out)[0]
    assert record["file"] == str(path)
    assert (record["name"], record["layer"], record["tokens"], record["dtype"]) == ("m", "o", 1, "bf16")
    assert record["median_seconds"] == record["low_seconds"] == record["high_seconds"] == 0.2
    assert record["bytes_per_second"] == pytest.approx(5e9)
    assert record["flops_per_second"] == pytest.approx(10e9)
    assert (record["floor_share"], record["bound"]) == (pytest.approx(0.5), "memory")
    assert (record["noise"], record["relative_error"], record["passes"], record["samples"]) == (0, 1e-3, 6, 24)


def test_json_of_a_single_pass_has_no_interval(tmp_path, capsys):
    path = planted.write(tmp_path / "x.json", [measured(planted.case("m"), 0.2, passes=1)])
    show([path], Format.JSON, None)
    record = json.loads(capsys.readouterr().out)[0]
    assert (record["low_seconds"], record["high_seconds"], record["warnings"]) == (None, None, ["single pass"])


def test_markdown_is_githubs(tmp_path, capsys):
    cases = [planted.case(f"x[{t}]", tokens=t) for t in (1, 16)]
    failed = [("a|b", "c")]
    path = planted.write(tmp_path / "x.json", [measured(case, 1.0) for case in cases], failed=failed)
    show([path], Format.MARKDOWN, None)
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == f"## {path}"
    start = lines.index("### decode")
    assert lines[start + 4 : start + 8] == [
        "| tokens | median s | ± 95% | GB/s | GFLOP/s | noise |",
        "| -----: | -------: | ----: | ---: | ------: | ----: |",
        "|      1 |     1.00 | 0.00% | 1.00 |    2.00 | 0.00% |",
        "|     16 |     1.00 | 0.00% | 1.00 |    2.00 | 0.00% |",
    ]
    assert "- a\\|b: c" in lines


def test_several_files_are_several_sections(tmp_path, capsys):
    paths = [planted.write(tmp_path / name, [measured(planted.case(), 1.0)]) for name in ("a.json", "b.json")]
    show(paths, Format.TABLE, None)
    lines = capsys.readouterr().out.split("\n")
    assert [line for line in lines if line.endswith(".json")] == [str(path) for path in paths]
