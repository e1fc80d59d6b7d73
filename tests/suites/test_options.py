"""A mistake on the command line ends the run with one line, before anything is measured."""

import pytest

from tests.suites.conftest import GOOD


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--tokens=0", "*--tokens: '0' is not a whole number of at least 1"),
        ("--tokens=1,abc", "*--tokens: 'abc' is not a whole number of at least 1"),
        ("--tokens=1,,2", "*--tokens: '1,,2' has an empty member*"),
        ("--tokens=-4", "*--tokens: '-4' is not a whole number of at least 1"),
        ("--model=llama-3-71b", "*--model: unknown model 'llama-3-71b'; did you mean llama-3-70b?*known: *"),
        ("--layer=q_proj", "*--layer: 'q_proj' is unknown; choose from qkv, *"),
        ("--dtype=fp7", "*--dtype: 'fp7' is unknown; choose from fp32, bf16, fp16"),
        ("--impl=magic", "*--impl: 'magic' is unknown; choose from torch, triton"),
        ("--cache=warm", "*--cache: 'warm' is unknown; choose from cold, hot"),
        ("--launch=lazy", "*--launch: 'lazy' is unknown; choose from graph, eager"),
        ("--passes=0", "*--passes: '0' is not a whole number*"),
        ("--budget=-1", "*--budget: '-1' is not a positive number of seconds"),
        ("--budget=nan", "*--budget: 'nan' is not a positive number of seconds"),
        ("--ranks=none", "*--ranks: 'none' is not a whole number*"),
        ("--tp=3", "*ERROR: llama-3.2-1b: tp=3 must divide 32 heads and intermediate 8192*choose among 1, 2*"),
        ("--layer=up", "*ERROR: unknown layer of llama-3.2-1b 'up'*known: qkv, o, gate_up, down, lm_head*"),
        ("--pp=17", "*ERROR: llama-3.2-1b: pp=17 exceeds its 16 layers*"),
    ],
)
def test_a_wrong_value_is_refused(bench, option, message):
    bench.write(GOOD)
    result = bench.run(option)
    assert result.ret == 4
    result.stderr.fnmatch_lines([message])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    assert not bench.json.exists()


def test_several_processes_are_refused(bench, monkeypatch):
    bench.write(GOOD)
    monkeypatch.setenv("WORLD_SIZE", "8")
    result = bench.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*WORLD_SIZE is 8: no suite communicates yet*"])


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
