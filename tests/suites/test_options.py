"""A mistake on the command line ends the run with one line, before anything is measured."""

from dataclasses import replace

import pytest

from kernels import attention as operands
from kernels import registry
from kernels.linear import TORCH_LINEAR
from specs import layer
from suites import options
from tests.suites.conftest import GOOD


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--tokens=0", "*--tokens: '0' is not a whole number of at least 1"),
        ("--tokens=1,abc", "*--tokens: 'abc' is not a whole number of at least 1"),
        ("--tokens=1,,2", "*--tokens: '1,,2' has an empty member*"),
        ("--tokens=-4", "*--tokens: '-4' is not a whole number of at least 1"),
        ("--model=llama-3-70", "*--model: unknown model 'llama-3-70'; did you mean llama-3-70b?*known: *"),
        ("--layer=q_proj", "*--layer: 'q_proj' is unknown; choose from qkv, o, gate_up, *"),
        ("--context=0", "*--context: '0' is not a whole number of at least 1"),
        ("--context=8k", "*--context: '8k' is not a whole number of at least 1"),
        ("--prompts=4", "*--prompts: '4' is no count and length of prompts; four of 512 tokens are 4x512"),
        ("--prompts=4x1", "*--prompts: '4x1' is no count and length of prompts; *"),
        ("--dtype=fp7", "*--dtype: 'fp7' is unknown; choose from fp32, bf16, fp16"),
        (
            "--impl=magic",
            "*--impl: 'magic' is unknown; choose from torch, cublaslt, triton, triton-pdl, cuda, triton-paged, *",
        ),
        ("--cache=warm", "*--cache: 'warm' is unknown; choose from cold, hot"),
        ("--launch=lazy", "*--launch: 'lazy' is unknown; choose from graph, eager"),
        ("--gap=-1", "*--gap: '-1' is no gap in milliseconds; 0 is back-to-back, 10000 too long"),
        ("--late=10000", "*--late: '10000' is no delay in milliseconds; 0 is never late, 10000 too long"),
        ("--passes=0", "*--passes: '0' is not a whole number*"),
        ("--budget=-1", "*--budget: '-1' is not a positive number of seconds"),
        ("--budget=nan", "*--budget: 'nan' is not a positive number of seconds"),
        ("--ranks=none", "*--ranks: 'none' is not a whole number*"),
        ("--tp=3", "*ERROR: llama-3.2-1b: tp=3 must divide 32 heads and intermediate 8192*choose among 1, 2*"),
        ("--layer=up", "*ERROR: unknown layer of llama-3.2-1b 'up'*known: qkv, o, gate_up, down, lm_head*"),
        ("--layer=attention --model=deepseek-v3", "ERROR: deepseek-v3: its attention is not grouped-query *"),
        ("--pp=17", "*ERROR: llama-3.2-1b: pp=17 exceeds its 16 layers*"),
    ],
)
def test_a_wrong_value_is_refused(bench, option, message):
    bench.write(GOOD)
    result = bench.run(*option.split())
    assert result.ret == 4
    result.stderr.fnmatch_lines([message])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    assert not bench.json.exists()


def test_every_implementation_of_a_linear_can_be_asked_for():
    assert {kernel.implementation for kernel in registry.LINEARS} == set(options.LINEAR_IMPLEMENTATIONS)


def test_every_implementation_of_attention_can_be_asked_for_in_the_order_of_its_kernels():
    assert tuple(kernel.implementation for kernel in registry.DECODE_ATTENTION) == layer.ATTENTION_IMPLEMENTATIONS
    assert {kernel.implementation for kernel in registry.PREFILL_ATTENTION} <= set(layer.ATTENTION_IMPLEMENTATIONS)
    paged = {kernel.implementation for kernel in registry.DECODE_ATTENTION if kernel.inputs is operands.paged_inputs}
    assert paged == set(layer.PAGED_IMPLEMENTATIONS)


SWEEP = """
from kernels.registry import select_linear

def pytest_generate_tests(metafunc):
    from suites.options import read_options
    options = read_options(metafunc.config)
    metafunc.parametrize("shard", [Shard("m", 2, 1, "qkv", 64, 32)])
    metafunc.parametrize("tokens", options.tokens)
    metafunc.parametrize("how", [COLD._replace(implementation=one) for one in options.impl], ids="-".join)

def bench_linear(measure, shard, tokens, how):
    measure(select_linear(how.implementation, tokens), "decode", how, shard, tokens=tokens, n=64, k=32)
"""


@pytest.fixture
def up_to_four(monkeypatch):
    """Torch for all tokens, and what calls itself cuda for 1 to 4."""
    few = replace(TORCH_LINEAR, name="cuda_gemv", implementation="cuda", tokens=range(1, 5))
    monkeypatch.setattr(registry, "LINEARS", (TORCH_LINEAR, few))


def test_an_implementation_that_has_nothing_for_the_tokens_is_deselected_and_not_listed(bench, up_to_four):
    bench.write(SWEEP)
    result = bench.run("--passes=1", "--impl=torch,cuda", "--tokens=4,5")
    result.assert_outcomes(passed=3, deselected=1)
    assert set(bench.cases()) == {
        f"bench_linear[shard0-{case}]"
        for case in ("4-fp32-cold-eager-torch", "4-fp32-cold-eager-cuda", "5-fp32-cold-eager-torch")
    }
    assert bench.result()["shardbench"]["not_run"] == []


def test_asking_only_for_what_is_not_made_ends_with_one_line(bench, up_to_four):
    bench.write(SWEEP)
    result = bench.run("--impl=cuda", "--tokens=16,32")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: nothing to measure: no cuda linear takes 16 tokens: cuda_gemv takes 1 to 4"])
    assert not bench.json.exists()
    assert not bench.journal.exists()


def test_a_missing_folder_for_the_json_is_made(bench):
    bench.write(GOOD)
    bench.json = bench.pytester.path / "a" / "b" / "out.json"
    bench.run("--passes", "1").assert_outcomes(passed=2)
    assert len(bench.cases()) == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file/out.json", "*--benchmark-json *file/out.json: cannot be written (*); choose a folder that can*"),
        ("/proc/out.json", "*--benchmark-json /proc/out.json: cannot be written (*"),
        (".", "*--benchmark-json *: is a folder; name a file in it*"),
    ],
)
def test_a_json_that_cannot_be_written_is_refused_before_the_run(bench, path, message):
    bench.write(GOOD)
    (bench.pytester.path / "file").write_text("not a folder")
    bench.json = bench.pytester.path / path
    result = bench.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines([message])
    assert not list(bench.pytester.path.rglob("*.jsonl"))
