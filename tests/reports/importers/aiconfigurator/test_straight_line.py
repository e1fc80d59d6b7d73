"""Three published verdicts worked out again from the Parquet files, without the importer's code."""

import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports import results
from reports.claims import registry

FOUND = util.find_spec("aiconfigurator_core")
if FOUND is None:
    pytest.skip("aiconfigurator-core is not installed (extra `silicon`)", allow_module_level=True)

ROOT = Path(__file__).parents[4]
TABLES = Path(FOUND.submodule_search_locations[0]) / "systems" / "data"
FRAMEWORKS = ("sglang", "trtllm", "vllm")
L2 = {"h200_sxm": 62_914_560, "b200_sxm": 132_644_864}
# n x k of Llama-3-70B's shards under TP 1, 2, 4 and 8, as far as they are tabulated
QKV = ((10240, 8192), (5120, 8192), (2560, 8192))
O = ((8192, 8192), (8192, 4096), (8192, 2048), (8192, 1024))  # noqa: E741
GATE_UP = ((7168, 8192),)
DOWN = ((8192, 7168), (8192, 3584))


@pytest.fixture(scope="module", params=["h200_sxm", "b200_sxm"])
def system(request):
    return request.param


@pytest.fixture(scope="module")
def gemms(system):
    """The newest table of each framework."""
    newest = {}
    for framework in FRAMEWORKS:
        paths = (TABLES / system / "gemm" / framework).glob("*/gemm_perf.parquet")
        path = max(paths, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)])
        newest[framework] = pd.read_parquet(path)
    return newest


@pytest.fixture(scope="module")
def product(system, tmp_path_factory):
    """What `claims` finds on dense bf16 layers, by scope."""
    path = tmp_path_factory.mktemp("imported") / f"{system}.json"
    command = [sys.executable, "-m", "reports", "import", "aiconfigurator", "--system", system, "-o", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    findings = [one.finding for one in registry.judge_files([results.load(path)]) if one.id == "tokens-125-vs-1000"]
    return {one.scope: one for one in findings if (one.dtype, one.architecture) == ("bf16", "dense")}


def ratio(table, n, k):
    """T(1000) / t(125); None where a point that it rests on is over 1.25 times as slow as one with more tokens."""
    rows = table[(table["gemm_dtype"] == "bfloat16") & (table["n"] == n) & (table["k"] == k)]
    latency = rows.groupby("m")["latency"].median().sort_index()
    tokens, times = latency.index.to_numpy(), latency.to_numpy()
    for at in (125, 1000):
        for neighbour in (tokens[tokens < at].max(), tokens[tokens > at].min()):
            later = times[tokens > neighbour].min()
            if times[tokens == neighbour][0] > 1.25 * later:
                return None
    at_125, at_1000 = np.interp([125, 1000], tokens, times)
    return at_1000 / at_125


def ratios(gemms, n, k):
    found = [ratio(gemms[framework], n, k) for framework in FRAMEWORKS]
    return [one for one in found if one is not None]


def cold(system, n, k):
    return not 6 * 2 * n * k < 4 * L2[system]


@pytest.mark.parametrize(
    ("system", "scope", "n", "k"),
    [("h200_sxm", "gate_up tp8", 7168, 8192), ("b200_sxm", "o tp1", 8192, 8192)],
    indirect=["system"],
    scope="module",
)
def test_a_single_linear(system, gemms, product, scope, n, k):
    assert cold(system, n, k)
    expected = ratios(gemms, n, k)
    found = product[scope]
    assert found.value == pytest.approx(np.median(expected), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((min(expected), max(expected)), rel=1e-9)
    assert found.verdict == ("REFUTED" if min(expected) > 1.25 else "HOLDS" if max(expected) <= 1.25 else "HOLDS_IF")


def test_the_whole_range(system, gemms, product):
    shapes = [shape for shape in (*QKV, *O, *GATE_UP, *DOWN) if cold(system, *shape)]
    assert (8192, 1024) not in shapes
    assert len(shapes) > 2
    expected = [one for n, k in shapes for one in ratios(gemms, n, k)]
    found = product["overall"]
    assert (found.low, found.high) == pytest.approx((min(expected), max(expected)), rel=1e-9)
    assert found.verdict == "REFUTED"
    assert min(expected) > 1.25


def test_hot_linears_decide_nothing(product):
    assert product["o tp8"].verdict == "UNDERPOWERED"
    assert not [name for name in product["overall"].cases if "-tp8-o-" in name]
