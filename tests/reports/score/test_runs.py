"""Runs from a CSV: each row is read or has its reason, and a file without what it needs is refused in one line."""

import pytest

from reports.score.runs import REQUIRED_COLUMNS, read_runs
from specs.errors import UserError

GOOD = {
    "id": "a", "backend": "vLLM", "model_path": "llama-3-70b", "system": "h200_sxm", "isl": "1024", "osl": "512",
    "batch_size": "32.0", "tp_size": "4", "silicon_ttft_ms": "210.5", "silicon_tpot_ms": "14.25", "mode": "agg",
    "gemm_quant_mode": "fp8", "pp_size": "1", "attention_dp_size": "1",
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def read(*changes, without=(), refit=False):
        names = [name for name in GOOD if name not in without]
        lines = [names, *([(GOOD | change)[name] for name in names] for change in changes)]
        path = tmp_path / "runs.csv"
        path.write_text("\n".join(",".join(line) for line in lines) + "\n")
        return read_runs(path, refit=refit)

    return read


def test_a_good_row_is_a_run(read):
    (run,) = read({})
    assert (run.engine, run.gpu, run.dtype, run.tp, run.load) == ("vllm", "h200_sxm", "fp8", 4, (1024, 512, 32))
    assert (run.tpot_ms, run.ttft_ms, run.refused, run.used_for) == (14.25, 210.5, "", "held-out")


@pytest.mark.parametrize(("isl", "osl", "used_for"), [
    ("1024", "1024", "calibration"), ("1024", "2048", "held-out"), ("2048", "512", "held-out"),
])  # fmt: skip
def test_only_short_loads_calibrate(read, isl, osl, used_for):
    (run,) = read({"isl": isl, "osl": osl}, refit=True)
    assert run.used_for == used_for


def test_runs_of_ones_own_that_no_constant_has_seen_are_held_out(read):
    assert [one.used_for for one in read({"isl": "1024", "osl": "512"})] == ["held-out"]


def test_a_single_token_has_no_tpot(read):
    (run,) = read({"osl": "1"})
    assert run.refused == "osl 1: the first token is the only one, so there is no TPOT"


@pytest.mark.parametrize("name", ["h200", "H200 SXM5", "NVIDIA H200"])
def test_a_gpu_is_found_by_the_name_that_a_user_types(read, name):
    (run,) = read({"system": name})
    assert (run.gpu, run.refused) == ("h200_sxm", "")


@pytest.mark.parametrize("name", ["", "h20", "H100 NVL", "b60"])
def test_a_gpu_without_a_row_is_refused_under_its_own_name(read, name):
    (run,) = read({"system": name})
    assert (run.gpu, run.refused) == (name, f"system {name!r}: no datasheet row in specs/gpus.py")


def test_a_blank_format_is_bf16(read):
    (run,) = read({"gemm_quant_mode": ""})
    assert run.dtype == "bf16"
    assert not run.refused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": "disagg"}, "mode disagg: prefill and decode on separate GPUs"),
        ({"model_path": "qwen3-235b-a22b"}, "mixture of experts"),
        ({"model_path": "nobody/knows-9b"}, "nobody/knows-9b"),
        ({"system": "h999"}, "system 'h999': no datasheet row"),
        ({"gemm_quant_mode": "int3"}, "format 'int3': not one of bfloat16, float16, fp8, fp8_block, nvfp4, bf16"),
        ({"batch_size": ""}, "batch_size unknown: not a whole number from 1 to 65536"),
        ({"isl": "0"}, "isl 0: not a whole number"),
        ({"osl": "-5"}, "osl -5: not a whole number"),
        ({"tp_size": "2.5"}, "tp_size 2.5: not a whole number"),
        ({"pp_size": "2"}, "pp_size 2: constants are fitted on runs without a pipeline"),
        ({"attention_dp_size": "0"}, "attention_dp_size 0: attention under data parallelism"),
        ({"silicon_tpot_ms": "nan"}, "silicon_tpot_ms nan: no finite time above 0"),
        ({"silicon_tpot_ms": "0"}, "silicon_tpot_ms 0: no finite time above 0"),
        ({"silicon_ttft_ms": "-3"}, "silicon_ttft_ms -3: no finite time above 0"),
        ({"silicon_ttft_ms": ""}, "silicon_ttft_ms absent: no finite time above 0"),
    ],
)
def test_a_row_that_cannot_be_predicted_is_kept_with_its_reason(read, change, reason):
    good, bad = read({}, {"id": "b", **change})
    assert not good.refused
    assert reason in bad.refused
    assert "\n" not in bad.refused


@pytest.mark.parametrize("name", REQUIRED_COLUMNS)
def test_a_file_without_a_column_names_it(read, name):
    with pytest.raises(UserError, match=f"lacks the columns {name}; it needs id, backend"):
        read({}, without=(name,))


def test_a_file_without_runs_or_with_one_id_twice_is_refused(read):
    with pytest.raises(UserError, match="holds no run"):
        read()
    with pytest.raises(UserError, match="id a stands in it twice"):
        read({}, {})
    with pytest.raises(UserError, match=r"runs\.csv:2: has no id"):
        read({"id": ""})


def test_a_missing_or_binary_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_runs(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00id")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_runs(tmp_path / "binary.csv")
