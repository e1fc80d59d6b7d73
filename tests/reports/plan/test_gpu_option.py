"""`python -m reports plan --gpu`: plans of published GPUs without a file, alone, compared, and beside files."""

import json
import re
import shlex
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from reports import __main__ as program
from reports import output
from reports.importers.aiconfigurator import package
from reports.plan import report
from reports.plan.query import PlanQuery
from reports.plan.tables import reproduce_command
from specs import models
from specs.models import find_model
from specs.parallel import Split
from tests.reports.importers.aiconfigurator import planted_tables
from tests.reports.plan import planted_parts
from tests.reports.run_reports import run_reports

H100 = "NVIDIA H100 80GB HBM3"
ASKED = ["--model", "tiny", "--gpus", 2, "--context", 512, "--batch", "2,64"]


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def plannable(system: Path, model, factor=1.0, **device):
    """Tables with all parts of `model` over two GPUs; linears take `factor` times as long as the planted ones."""
    splits = [Split(model, tp) for tp in (1, 2)]
    shapes = {(shard.n, shard.k) for split in splits for shard in split.linears.values()}
    slower = lambda m, n, k: factor * planted_tables.affine(m, n, k)  # noqa: E731
    planted_tables.gemm(system, [row for n, k in shapes for row in planted_tables.shape(n, k, slower)], **device)
    heads = [
        {"num_heads": model.heads // tp, "num_key_value_heads": model.kv_heads // tp, "head_dim": model.head_dim}
        for tp in (1, 2)
    ]
    loads = [(batch, context) for batch in (1, 1024) for context in (256, 1024)]
    decode = [
        {"batch_size": batch, "isl": 1, "step": context - 1, "latency": 1e-5 * batch * context, **one}
        for batch, context in loads
        for one in heads
    ]
    planted_tables.attention(system, "generation", decode, **device)
    reduced = [{"message_size": size, "latency": 1e-2 + 1e-8 * size} for size in (128, 2**26)]
    planted_tables.all_reduce(system, reduced, kernel_source="vLLM_custom_graph", num_gpus=2, **device)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "package" / "systems" / "data"
    plannable(folder / "h200_sxm", find_model("tiny"))
    plannable(folder / "h100_sxm", find_model("tiny"), 2.0, device=H100)
    return folder


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def planted_package(data, kept, monkeypatch):
    planted_tables.install(monkeypatch, data, kept)


@pytest.fixture
def planned(capsys):
    """Runs the command; gives what it wrote to stdout and to stderr."""

    def planned(*options):
        assert run_reports("plan", *ASKED, *options) == 0
        return capsys.readouterr()

    return planned


@pytest.fixture
def imported(tmp_path, capsys):
    """Imports a system into a file."""

    def imported(system):
        to = tmp_path / f"{system}.json"
        asked = ["--system", system, "--model", "tiny", "--tp", "1,2", "-o", to]
        assert run_reports("import", "aiconfigurator", *asked) == 0
        capsys.readouterr()
        return to

    return imported


@pytest.fixture
def refused(capsys):
    def refused(*options):
        assert run_reports("plan", *options) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        return said.err

    return refused


def test_one_gpu_gives_the_plan_of_its_imported_file(planned, imported):
    to = imported("h200_sxm")
    of_file, of_gpu = (json.loads(planned(*source, "--format", "json").out) for source in ([to], ["--gpu", "h200_sxm"]))
    assert of_gpu.pop("files") == ["aiconfigurator-core 9.9.9 h200_sxm"]
    assert of_file.pop("files") == [str(to)]
    assert of_gpu == of_file


def test_an_import_is_announced_on_stderr_and_the_second_plan_comes_from_the_cache(planned):
    first, second = planned("--gpu", "h200"), planned("--gpu", "NVIDIA H200")
    assert re.fullmatch(r"h200_sxm: imported tiny in bf16 in \d+\.\d s\n", first.err)
    assert second == (first.out, "")


def test_on_a_terminal_an_import_is_announced_before_it_runs(planned, monkeypatch):
    monkeypatch.setattr(output, "sys", SimpleNamespace(stderr=(terminal := Terminal()), stdout=sys.stdout))
    planned("--gpu", "h200")
    started, ended = terminal.getvalue().splitlines()
    assert started == "h200_sxm: importing tiny in bf16 from aiconfigurator-core 9.9.9, some seconds"
    assert ended.startswith("h200_sxm: imported ")


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: text.replace("linear", "LINEAR")])
def test_a_damaged_cache_is_imported_anew(planned, kept, damage):
    first = planned("--gpu", "h200_sxm")
    (place,) = kept.iterdir()
    place.write_text(damage(place.read_text()))
    second = planned("--gpu", "h200_sxm")
    assert second.out == first.out
    assert "h200_sxm: imported tiny in " in second.err
    assert planned("--gpu", "h200_sxm").err == ""


def test_several_gpus_are_each_planned_once_in_the_order_asked(planned):
    data = json.loads(planned("--gpu", "H100,h200_sxm,h100_sxm", "--format", "json").out)
    assert [one["gpu"] for one in data["plans"]] == ["h100_sxm", "h200_sxm"]
    assert data["not_planned"] == []
    for one in data["plans"]:
        alone = json.loads(planned("--gpu", one.pop("gpu"), "--format", "json").out)
        assert one == alone


def test_several_gpus_are_compared_before_each_one_is_told(planned):
    text = planned("--gpu", "h200_sxm,h100_sxm", "--format", "markdown").out
    titles = [line for line in text.splitlines() if line.startswith("# ")]
    assert titles == ["# TP or PP, planned: 2 GPUs", "# TP or PP over 2 x h200_sxm", "# TP or PP over 2 x h100_sxm"]
    summary = text[: text.index(titles[1])]
    assert "- On 2 x h200_sxm: " in summary
    assert "- On 2 x h100_sxm: " in summary
    assert summary.count("### ") == 2


def test_the_command_that_is_printed_makes_the_same_plan(planned, capsys):
    text = planned("--gpu", "h200_sxm,h100_sxm", "--format", "markdown").out
    for gpu in ("h200_sxm", "h100_sxm"):
        alone = planned("--gpu", gpu, "--format", "markdown").out
        said = f"python -m reports plan --gpu {gpu} --model tiny --gpus 2 --context 512 --batch 2,64"
        assert f"{said} --format json" in text
        assert run_reports(*shlex.split(said)[3:], "--format", "markdown") == 0
        assert capsys.readouterr().out == alone


def test_gpus_go_there_and_back_through_the_command(monkeypatch):
    asked = []
    monkeypatch.setattr(report, "write_plan", lambda paths, question, *more: asked.append((paths, question, more[2])))
    query = PlanQuery(model="tiny", gpus=2)
    words = shlex.split(reproduce_command([Path("a.json")], query, ["h200_sxm", "h100_sxm"]))
    program.app(args=words[3:], standalone_mode=False)
    assert asked == [([Path("a.json")], query, ("h200_sxm", "h100_sxm"))]


def test_a_gpu_that_files_are_of_is_planned_from_the_files_alone(planned, imported):
    to = imported("h200_sxm")
    content = json.loads(to.read_text())
    for one in content["benchmarks"]:  # a file whose figures differ from those of the package
        one["stats"]["data"] = [3 * seconds for seconds in one["stats"]["data"]]
    to.write_text(json.dumps(content))
    from_file = json.loads(planned(to, "--format", "json").out)
    both = json.loads(planned(to, "--gpu", "h200_sxm,h100_sxm", "--format", "json").out)
    own, imported = both["plans"]
    assert (own["gpu"], own["files"], own["points"]) == ("h200_sxm", [str(to)], from_file["points"])
    said = "measurements of h200_sxm are those of the files alone, and nothing is imported"
    assert own["notes"] == [*from_file["notes"], said]
    assert (imported["gpu"], imported["files"]) == ("h100_sxm", ["aiconfigurator-core 9.9.9 h100_sxm"])
    assert said not in imported["notes"]


def test_a_gpu_of_a_file_needs_no_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(package, "find_package", lambda: pytest.fail("the files have all that is asked"))
    path = planted_parts.write(tmp_path / "own.json")
    asked = ["--context", 256, "--batch", 64, "--format", "json"]
    assert run_reports("plan", path, "--gpu", "H200", *asked) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(path)]


def test_a_file_of_another_gpu_is_compared(planned, imported):
    to = imported("h100_sxm")
    data = json.loads(planned(to, "--gpu", "h200_sxm", "--format", "json").out)
    assert [one["gpu"] for one in data["plans"]] == ["h100_sxm", "h200_sxm"]
    assert not any("files alone" in note for one in data["plans"] for note in one["notes"])


def test_a_gpu_that_cannot_be_planned_has_its_reason_beside_the_others(planned, refused, data):
    for path in (data / "h100_sxm" / "attention").rglob("*.parquet"):
        path.unlink()
    found = json.loads(planned("--gpu", "h100_sxm,h200_sxm", "--format", "json").out)
    assert [one["gpu"] for one in found["plans"]] == ["h200_sxm"]
    (lacking,) = found["not_planned"]
    assert lacking["gpu"] == "h100_sxm"
    assert "attention" in lacking["why"]
    assert (
        f"- not planned: h100\\_sxm: {lacking['why']}".replace("\\_", "_")
        in planned("--gpu", "h100_sxm,h200_sxm", "--format", "markdown").out
    )
    assert refused(*ASKED, "--gpu", "h100_sxm") == f"error: {lacking['why']}\n"


def test_models_of_files_with_one_name_and_other_shapes_share_no_cache(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr(models, "_FROM_CONFIG", {})
    found = []
    for layers in (4, 6):
        place = tmp_path / str(layers) / "mine"
        place.mkdir(parents=True)
        text = {
            "model_type": "llama", "hidden_size": 256, "intermediate_size": 128 * layers, "num_attention_heads": 16,
            "num_hidden_layers": 8, "num_key_value_heads": 2, "vocab_size": 4096,
        }  # fmt: skip
        (place / "config.json").write_text(json.dumps(text))
        model = find_model(str(place))
        plannable(data / "h200_sxm", model)  # its own tables, over those of the first
        asked = ["--gpus", 2, "--context", 512, "--batch", 64, "--format", "json"]
        assert run_reports("plan", "--gpu", "h200_sxm", "--model", place, *asked) == 0
        said = capsys.readouterr()
        assert f"imported {model.slug} in bf16" in said.err
        found.append(json.loads(said.out)["points"][0]["step_seconds"])
        models._FROM_CONFIG.clear()
    assert found[0] < found[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "no file and no GPU; give result files of one GPU, own or imported, or --gpu h200_sxm for published"),
        (["--gpu", "h20"], "unknown system 'h20'; known: h100_sxm, h200_sxm"),
        (["--gpu", "H100 NVL"], "unknown system 'H100 NVL'; known: "),
        (["--gpu", "h200,h20"], "unknown system 'h20'"),
        (["--gpu", "MI300X"], "'MI300X': aiconfigurator-core 9.9.9 has no tables of mi300x; it has h100_sxm, h200_sxm"),
        (["--gpu", "h200,"], "--gpu 'h200,': an empty place; write --gpu h200_sxm,h100_sxm"),
        (["--gpu", ""], "--gpu '': an empty place"),
        (["--gpu", "h200", "--dtype", "int4"], "unknown number format 'int4'; "),
        (["--gpu", "h200", "--dtype", "fp8"], "h200_sxm: aiconfigurator-core 9.9.9 has no linears in fp8; choose --d"),
        (["--gpu", "h200", "--model", "llama-9"], "unknown model 'llama-9'"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_one_line(refused, options, said):
    assert said in refused(*options)


def test_a_model_whose_shapes_lie_outside_the_tables_is_one_line(refused):
    said = refused("--gpu", "h200", "--model", "llama-3-8b")
    assert said.startswith("error: h200_sxm: none of its tables holds llama-3-8b in bf16, or shapes to interpolate")


def test_without_the_package_one_line_says_how_to_install_it(refused, monkeypatch, kept):
    monkeypatch.undo()
    monkeypatch.setattr(package.util, "find_spec", lambda _: None)
    said = refused("--gpu", "h200_sxm")
    assert "aiconfigurator-core is not installed; pip install --constraint constraints.txt --editable" in said
    assert not kept.exists()
