"""The page on another planner: its script writes what `score --rival` reads, and its table adds up."""

import csv
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from reports.score.report import read_rival
from specs.models import find_model

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "another-planner.md").read_text()


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script, with a planner of known answers, and a sample of four runs."""
    columns = (
        "id,mode,backend,model_path,system,isl,osl,batch_size,tp_size,gemm_quant_mode,silicon_tpot_ms,silicon_ttft_ms"
    )
    rows = (
        "a,agg,vllm,meta-llama/Llama-3.1-70B,h100_sxm,1024,512,32.0,4,fp8,14,210",
        "b,disagg,vllm,meta-llama/Llama-3.1-70B,h100_sxm,1024,512,32,4,fp8,14,210",
        "c,agg,vllm,deepseek-ai/DeepSeek-R1,h100_sxm,1024,512,32,4,fp8,14,210",
        "d,agg,trtllm,Qwen/Qwen3-32B,h200_sxm,2048,128,8,1,,7,90",
        "e,agg,trtllm,Qwen/Qwen3-32B,h200_sxm,2048,128,4096,1,,7,90",
    )
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "silicon_sample.csv").write_text("\n".join((columns, *rows)) + "\n")
    asked = []

    def cli_estimate(model, system, **options):
        asked.append((model, system, options))
        if options["batch_size"] > 1000:
            raise RuntimeError("OOM: the model does not fit")
        return SimpleNamespace(tpot=1.0 * options["batch_size"], ttft=0.5 * options["isl"])

    core, api = ModuleType("aiconfigurator_core"), ModuleType("aiconfigurator.cli.api")
    core.__path__ = [str(tmp_path)]
    api.cli_estimate, api.EstimateResult = cli_estimate, SimpleNamespace
    stubs = {"aiconfigurator_core": core, "aiconfigurator.cli.api": api}
    for name in ("aiconfigurator", "aiconfigurator.cli"):
        stubs[name] = ModuleType(name)
    for name, stub in stubs.items():
        monkeypatch.setitem(sys.modules, name, stub)
    spec = importlib.util.spec_from_file_location("predict", DOCS / "predict_with_aiconfigurator.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.logging, "disable", lambda _: None)
    return SimpleNamespace(main=module.main, models=module.MODELS, asked=asked)


def test_the_script_writes_what_score_reads(script, tmp_path, capsys):
    script.main(str(tmp_path / "aic.csv"))
    assert read_rival(tmp_path / "aic.csv") == {"a": (32.0, 512.0), "d": (8.0, 1024.0)}
    assert capsys.readouterr().err == "1 refused: RuntimeError: OOM: the model does not fit\n"
    model, system, options = script.asked[0]
    assert (model, system) == ("meta-llama/Meta-Llama-3.1-70B", "h100_sxm")
    assert options == {
        "backend_name": "vllm", "isl": 1024, "osl": 512, "batch_size": 32, "tp_size": 4, "gemm_quant_mode": "fp8",
    }  # fmt: skip
    assert script.asked[1][2]["gemm_quant_mode"] is None


def test_the_script_takes_as_many_rows_as_it_is_told(script, tmp_path):
    script.main(str(tmp_path / "aic.csv"), "1")
    with (tmp_path / "aic.csv").open(newline="") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == ["a"]


def test_names_of_the_script_stand_for_the_same_model_in_both_planners(script):
    for sample, theirs in script.models.items():
        assert find_model(sample) == find_model(theirs)


def test_the_runs_of_all_groups_add_up():
    runs = [int(row) for row in re.findall(r"^\| \w+ \| \w+ \| [\w.-]+ \| [\w-]+ \| (\d+) \|", PAGE, re.MULTILINE)]
    (everything,) = re.findall(r"^\| all \|  \|  \|  \| (\d+) \|", PAGE, re.MULTILINE)
    assert len(runs) == 15
    assert sum(runs) == int(everything)
