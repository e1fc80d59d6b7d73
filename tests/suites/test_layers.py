"""The suite on whole layers: what it asks for, that a timeline shows the parts, and that its file makes a ledger."""

import json
import re
from collections import Counter
from contextlib import contextmanager

import pytest

from reports.ledger import ledger
from reports.results import load
from suites import nvtx
from tests.suites.conftest import ROOT

SMALL = ("--tp", "32", "--tokens", "2", "--context", "16", "--impl", "torch", "--passes", "2")
"""A 32nd of Llama-3.2-1B: one head, 256 of 8192 columns."""
CASE = re.compile(r"^suites/bench_layer\.py::(bench_\w+)\[(.*)\]: ", re.MULTILINE)


@pytest.fixture
def run(pytester):
    """pytest on the repository's own suite of layers, and on the ceilings; what it printed."""

    def run(*options):
        suites = [ROOT / "suites" / f"bench_{name}.py" for name in ("layer", "ceilings")]
        fixed = ("-p", "no:cacheprovider", "--rootdir", ROOT, "-c", ROOT / "pyproject.toml", *suites)
        result = pytester.runpytest_inprocess(*fixed, *options)
        told = result.stdout.str()
        assert result.ret == 0, told + result.stderr.str()
        return told

    return run


def listed(output):
    return CASE.findall(output)


def test_on_a_cpu_a_layer_stands_beside_its_compiled_form_and_its_parts(run):
    cases = listed(run("--list"))
    assert Counter(function for function, _ in cases) == {
        "bench_layer": 3 * 2, "bench_part": 3 * 8, "bench_prompt": 2, "bench_prompt_part": 8,
    }  # fmt: skip
    ids = [name for _, name in cases]
    assert ids[:2] == [
        f"llama-3.2-1b-tp2-pp1-1tok-ctx512-layer-bf16-cold-eager-{one}" for one in ("torch", "torch-compile")
    ]
    assert "llama-3.2-1b-tp2-pp1-1000tok-ctx512-norm-bf16-cold-eager-torch" in ids
    assert "llama-3.2-1b-tp2-pp1-prompt300-attention-bf16-cold-eager-torch" in ids


def test_tokens_are_a_batch_and_if_many_a_prompt_too(run):
    ids = [name for _, name in listed(run("--list", "--tokens", "4,512", "--context", "64,128", "--impl", "torch"))]
    whole = [name.split("pp1-")[1].split("-layer")[0] for name in ids if "-layer-" in name]
    assert whole == ["4tok-ctx64", "4tok-ctx128", "512tok-ctx64", "512tok-ctx128", "prompt512"]


def test_parts_that_are_named_are_measured_and_no_layer(run):
    ids = [name for _, name in listed(run("--list", "--layer", "qkv", "--tokens", "1"))]
    assert ids == ["llama-3.2-1b-tp2-pp1-1tok-ctx512-qkv-bf16-cold-eager-torch"]


def test_ours_adds_the_fused_part_to_the_plain_ones(run):
    cases = listed(run("--list", "--impl", "triton", "--tokens", "1"))
    parts = [name.split("ctx512-")[1].split("-bf16")[0] for function, name in cases if function == "bench_part"]
    assert parts == ["norm", "qkv", "rotary", "attention", "o", "gate_up", "swiglu", "down", "gate_up_swiglu"]


def test_a_model_whose_layers_are_of_another_kind_is_listed_with_what_they_have(run):
    told = run("--list", "--model", "gpt-3-175b", "--tp", "8", "--tokens", "1", "--impl", "torch")
    assert listed(told) == [("bench_layer", "gpt-3-175b-tp8-pp1-1tok-ctx512-layer-bf16-cold-eager-torch")]
    assert "not here: gpt-3-175b: a whole layer of it is not made, it has biases, no gate in its MLP" in told


@pytest.fixture
def marked(monkeypatch):
    """Names of the ranges that are opened."""
    found = []

    @contextmanager
    def mark(message, category, payload):
        found.append(message)
        yield

    monkeypatch.setattr(nvtx, "annotate", mark)
    return found


def test_a_run_closes_the_ledger_of_its_layers_and_a_timeline_shows_their_parts(run, marked, tmp_path):
    run(*SMALL, f"--benchmark-json={tmp_path / 'out.json'}")
    (layer,) = ledger.collect_layers(load(tmp_path / "out.json"))
    assert (layer.case.batch, layer.case.tokens, layer.case.context) == (2, 2, 16)
    assert layer.gaps == layer.remarks == []
    told = ledger.build_ledger(layer)
    assert sum(item.share.mean for item in told.items) == pytest.approx(1, abs=1e-9)
    assert {item.name for item in told.items} >= {"linears", "attention", "norms", "launch gaps", "cache effect"}
    assert layer.calls("norm") == 2
    assert {name: one.case.cache for name, one in layer.parts.items() if one.case.cache == "hot"} == dict.fromkeys(
        ("norm", "rotary", "swiglu"), "hot"
    ), "what streams no weights is not called cold"
    first = marked.index("norm")
    steps = ["norm", "qkv", "rotary", "attention", "o", "norm", "gate_up", "swiglu", "down"]
    assert marked[first - 2 : first + 10] == ["warm-up", "call", *steps, "timed"]
    assert marked.count("rotary") == 1, "in the first visit, outside the samples"


def test_a_model_is_taken_from_a_file(run, tmp_path):
    shapes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "num_hidden_layers": 4}
    more = {"model_type": "llama", "num_key_value_heads": 4, "vocab_size": 1024, "_name_or_path": "lab/Suite-Mini"}
    (tmp_path / "config.json").write_text(json.dumps(shapes | more))
    cases = listed(run("--list", "--model", str(tmp_path), "--tp", "2", "--layer", "norm", "--impl", "torch"))
    assert {case.partition("-1tok")[0].split("-tp")[0] for _, case in cases} == {"suite-mini"}
