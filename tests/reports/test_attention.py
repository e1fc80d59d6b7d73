"""Attention in `show`: a table that names kernels, batches and contexts, and the target under it."""

from functools import partial

import pytest

from reports import output, roofline, show
from reports.results import load
from tests.reports import planted
from tests.reports.planted import measured

KERNELS = {
    "torch": "torch_decode_attention",
    "triton": "triton_decode_attention",
    "triton-paged": "triton_paged_attention",
    "flash-attn": "flash_attn_decode",
    "flashinfer": "flashinfer_decode",
}
ALL = {"torch": 900e-6, "triton": 255e-6, "triton-paged": 240e-6, "flash-attn": 250e-6, "flashinfer": 252e-6}


def decode(implementation, seconds, batch=32, context=8192, **changes):
    """1.07 GB of K and V and 8.6 GFLOP at batch 32 and context 8192."""
    facts = {
        "question": "attention", "op": "attention", "layer": "attention", "tp": 1, "pp": 8, "n": None, "k": None,
        "implementation": implementation, "kernel": KERNELS[implementation], "launch": "graph",
        "tokens": batch, "batch": batch, "context": context,
        "flops": 4 * batch * context * 64 * 128, "hbm_bytes": 2 * batch * context * 8 * 128 * 2,
    }  # fmt: skip
    name = f"suites/bench_attention.py::bench_decode_attention[{batch}-{context}-{implementation}-{changes}]"
    return measured(planted.case(name, **(facts | changes)), seconds)


def prefill(seconds, tokens=2048):
    return decode("torch", seconds, 1, tokens, kernel="torch_prefill_attention", tokens=tokens)


def section(tmp_path, measurements, machine=planted.H200, width=140):
    file = load(planted.write(tmp_path / "x.json", measurements, machine=machine))
    return output.render_terminal(show.file_blocks(file, show.case_metrics(file)), width=width)


def judged(tmp_path, times, **changes):
    found = [decode(name, seconds, **changes) for name, seconds in times.items()]
    return roofline.judge_attention(
        show.case_metrics(load(planted.write(tmp_path / "x.json", found, machine=planted.H200)))
    )


def test_the_table_tells_decode_from_prefill_by_kernel_and_says_nothing_twice(tmp_path):
    cases = [decode("torch", 500e-6, batch=1), decode("triton", 250e-6), prefill(1e-3)]
    lines = section(tmp_path, [*cases, *planted.ceilings(read=4.34e12, peak=750e12)]).split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("attention"))
    assert lines[start].split("  ")[1] == "llama-3-70b · attention · tp 1 · pp 8 · bf16 · cold · graph"
    assert lines[start + 2].split()[:4] == ["tokens", "batch", "context", "kernel"]
    rows = [line.split()[:5] for line in lines[start + 4 : start + 7]]
    assert rows == [
        ["1", "1", "8192", "torch_decode_attention", "500"],
        ["32", "32", "8192", "triton_decode_attention", "250"],
        ["2048", "1", "2048", "torch_prefill_attention", "1,000"],
    ]
    # 1.074 GB at 4.34 TB/s take 247.4 us, of 250
    assert "99%  memory" in lines[start + 5]


def test_implementations_are_named_where_each_has_one_kernel(tmp_path):
    text = section(tmp_path, [decode(name, seconds) for name, seconds in ALL.items()])
    assert [line.split()[0] for line in text.split("\n") if " us" not in line and "graph" not in line and "%" in line][
        -5:
    ] == list(ALL)


def test_attention_stands_before_the_sweep_and_after_prefill(tmp_path):
    names = ["sweep", "prefill"]
    found = [measured(planted.case(name, question=name), 1.0) for name in names]
    titles = [line.split()[0] for line in section(tmp_path, [*found, prefill(1e-3)]).split("\n") if "·" in line]
    assert titles == ["prefill", "attention", "sweep"]


def test_the_target_is_met_within_three_percent_of_the_fastest_library(tmp_path):
    """255 / 250 = 1.02; the paged cache is another matter."""
    target = judged(tmp_path, ALL)
    assert (target.met, target.ratio, target.remark) == (True, pytest.approx(1.02), "flash-attn takes 250.0 us")


def test_the_target_is_missed_beyond_whatever_is_absent(tmp_path):
    target = judged(tmp_path, {"triton": 260e-6, "flash-attn": 250e-6})
    assert (target.met, target.ratio) == (False, pytest.approx(1.04))
    assert target.remark == "flash-attn takes 250.0 us; no torch, flashinfer"


@pytest.mark.parametrize("lacking", ["triton", "torch", "flash-attn", "flashinfer"])
def test_it_is_not_met_while_a_library_is_missing(tmp_path, lacking):
    target = judged(tmp_path, {name: seconds for name, seconds in ALL.items() if name != lacking})
    assert target.met is None
    assert target.remark.endswith(f"no {lacking}")


@pytest.mark.parametrize(
    "other",
    [{"batch": 1}, {"context": 1024}, {"tp": 8}, {"model": "llama-3-8b"}, {"cache": "hot"}, {"launch": "eager"}],
    ids=str,
)
def test_other_points_decide_nothing(tmp_path, other):
    assert judged(tmp_path, ALL, **other) is None


def test_it_stands_under_the_table_of_a_gpu_alone(tmp_path):
    text = partial(section, tmp_path)
    found = text([decode(name, seconds) for name, seconds in ALL.items()], width=300)
    assert "target: triton at tp 1, batch 32, context 8192 ≤ 1.03x" in found
    assert "met at 1.020x (flash-attn takes 250.0 us; FlashAttention-3 on H200 is published at 247 us)" in found
    assert "target" not in text([decode("torch", 1e-3, batch=1)], machine=planted.CPU)
