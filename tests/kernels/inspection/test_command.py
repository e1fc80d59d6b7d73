"""`python -m kernels`: what is printed, and what a wrong word is answered with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import __main__ as command
from kernels.inspection import variants
from specs.gpus import ARCHS
from specs.parallel import Shard

ROOT = Path(__file__).parents[3]
O_TP8 = Shard("llama-3-70b", 8, 1, "o", 8192, 1024)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process on one shape and two tiles of tokens; exit code, output, errors."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
    monkeypatch.setattr(variants, "SKINNY_TOKEN_CLASSES", (1, 16))
    monkeypatch.setattr(variants, "GEMM_TOKEN_CLASSES", (128, 8192))

    def told(*arguments):
        monkeypatch.setattr(sys, "argv", ["kernels", *arguments])
        with pytest.raises(SystemExit) as ended:
            command.run_cli()
        return ended.value.code, *capsys.readouterr()

    return told


@pytest.fixture
def on_one_shape(monkeypatch):
    monkeypatch.setattr(command, "layer_shards", lambda model, tp: [O_TP8])


def inspected(run, arch):
    code, out, _ = run("inspect", "--arch", arch, "--format", "json")
    assert code == 0
    rows = json.loads(out)
    assert isinstance(rows, list)
    assert {one["arch"] for one in rows} == {arch}
    return rows


def test_rows_for_sm_90(run, on_one_shape):
    rows = [one for one in inspected(run, "sm_90") if one["reason"] is None]
    assert {"triton_skinny", "triton_skinny_pdl", "triton_gemm", "triton_read"} <= {one["kernel"] for one in rows}
    for one in rows:
        assert one["spill_bytes"] == 0
        assert 0 < one["shared_bytes"] + 1 <= ARCHS["sm_90"].shared_bytes_per_block
        assert one["load_bits"] == 128 or "UTMALDG" in one["instructions"]
        assert one["ctas_per_sm"] > 0
        assert (one["bytes_needed_per_sm"], one["gpu"]) == (36364, "h200_sxm")
        matrix = one["config"].startswith("matrix")
        assert ("HGMMA" in one["instructions"]) == matrix, one["config"]
    (fetched,) = [one for one in rows if one["basis"] == "not chosen"]
    assert fetched["instructions"]["UTMALDG"] > 0
    skinny = [one for one in rows if one["kernel"].startswith("triton_skinny") and one is not fetched]
    assert len(skinny) == 4  # a configuration for each tile of tokens, with dependent launch and without
    assert any(one["config"].startswith("matrix") for one in skinny)
    for one in skinny:
        assert one["basis"] in ("static model", "measured", "rule")
        assert one["bytes_in_flight_per_sm"] >= one["bytes_needed_per_sm"]
        assert [(shape["n"], shape["k"]) for shape in one["predicted"]] == [(8192, 1024)]
        assert all(0 < shape["floor_seconds"] < shape["seconds"] < 1e-4 for shape in one["predicted"])


def test_rows_for_sm_80_say_what_it_lacks(run, on_one_shape):
    rows = inspected(run, "sm_80")
    dependent = [one for one in rows if one["kernel"] == "triton_skinny_pdl"]
    assert len(dependent) == 1
    for one in dependent:
        assert "sm_80" in one["reason"]
        assert one["registers"] is one["shared_bytes"] is one["ctas_per_sm"] is one["load_bits"] is None
    fetched = [one for one in rows if one["config"].endswith("tma")]
    assert "bulk tensor copy engine" in fetched[0]["reason"]
    plain = [one for one in rows if one["kernel"] == "triton_skinny" and one not in fetched]
    assert all(one["reason"] is None and one["registers"] > 0 for one in plain)
    assert any("HMMA" in one["instructions"] for one in plain)


def test_the_table_is_the_default_and_fits_no_terminal_but_a_pipe(run, on_one_shape):
    code, out, _ = run("inspect", "--arch", "sm_80")
    assert code == 0
    assert out.startswith("sm_80, by the datasheet of a100_sxm: 2.04 TB/s, 108 SMs")
    assert "skinny pdl" in out
    assert "n/a" in out
    assert max(len(line) for line in out.splitlines()) <= 160


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("inspect", "--arch", "sm_75"), "unknown architecture 'sm_75'"),
        (("inspect", "--arch", "sm_90", "--format", "xml"), "--format 'xml' is unknown; choose one of table, json"),
        (("inspect", "--arch", "sm_90", "--dtype", "fp8"), "--dtype 'fp8' is unknown; choose one of bf16, fp16, fp32"),
        (("inspect", "--arch", "sm_90", "--model", "llama-9"), "unknown model 'llama-9'"),
        (("tune", "--dtype", "int4"), "--dtype 'int4' is unknown"),
        (("tune", "--tp", "two"), "--tp 'two' is no list of whole numbers; write 1,2,4,8"),
        (("tune", "--tp", "3"), "tp=3"),
        (("tune", "--arch", "sm_90"), "--arch sm_90 without --static"),
        (("tune", "--static"), "--static needs --arch"),
        (("tune", "--only", "gemm"), "--only 'gemm' is unknown; choose one of linears, attention"),
        (("tune", "--static", "--arch", "sm_90", "--only", "attention"), "attention is cut by its rule, with no table"),
        (("tune", "--static", "--arch", "sm_75"), "unknown architecture 'sm_75'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_word_is_answered_in_a_line(run, arguments, said):
    code, out, errors = run(*arguments)
    assert code == 2
    assert out == ""
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert said in errors


def test_tune_hands_its_options_on(run, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(command, "search_on_gpu", lambda *given: calls.append(given) or [tmp_path / "sm_90.json"])
    monkeypatch.setattr(command, "tune_static", lambda *given: calls.append(given) or tmp_path / "sm_80.json")
    code, out, _ = run("tune", "--budget", "7", "--into", str(tmp_path), "--tp", "4,8")
    assert (code, out) == (0, f"wrote {tmp_path}/sm_90.json\n")
    dtype, shards, budget, into, _, parts = calls[0]
    assert parts == ("linears", "attention")
    assert (dtype, budget, into, {shard.tp for shard in shards}, len(shards)) == ("bf16", 7.0, tmp_path, {4, 8}, 8)
    run("tune", "--only", "attention")
    assert calls.pop(1)[5] == ("attention",)
    run("tune", "--static", "--arch", "sm_80", "--dtype", "fp16")
    assert (calls[1][0], calls[1][1], len(calls[1][2])) == (ARCHS["sm_80"], "fp16", 16)


def test_tune_on_a_machine_without_a_gpu_ends_in_a_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "kernels", "tune", "--into", str(tmp_path / "new")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no CUDA GPU")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_kernel_is_asked_for_by_part_of_its_name(run, on_one_shape):
    code, out, _ = run("inspect", "--arch", "sm_90", "--kernel", "norm", "--format", "json")
    assert code == 0
    assert [one["kernel"] for one in json.loads(out)] == ["triton_rmsnorm"]
    code, _, told = run("inspect", "--arch", "sm_90", "--kernel", "softmax")
    assert code == 2
    assert told.startswith("error: --kernel softmax: none has that in its name; known: triton_skinny, ")
