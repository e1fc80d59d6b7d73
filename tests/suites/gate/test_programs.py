"""The programs that need a GPU, run here on the CPU with what they touch of CUDA played by fakes."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kernels.compile import TritonVariant, compile_variant
from kernels.configs.config import SKINNY_MAX_TOKENS
from kernels.configs.dispatch import tuned_linear_table
from kernels.kernel import RandomTensors
from kernels.linear import TORCH_LINEAR
from kernels.timing.device import Device, current_device
from suites.gate import clock, exercise, suite, watched_calls
from suites.gate.dram import MARK_KERNEL, GateCase
from suites.gate.sanitizer import parse_run
from suites.gate.watched_calls import find_kernel, make_calls, make_pool, time_isolated

CASE = GateCase("small", 1, "torch")


class FakeCuda:
    """Events on a stream that is `busy` seconds behind the host; each call takes `call` seconds."""

    def __init__(self, monkeypatch, ahead):
        self.ahead, self.log = list(ahead), []
        record = self.log.append
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: self)
        monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: record(f"busy {cycles}"))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: record("wait"))
        monkeypatch.setattr(torch.cuda.profiler, "start", lambda: record("start"))
        monkeypatch.setattr(torch.cuda.profiler, "stop", lambda: record("stop"))
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(torch.cuda, "ExternalStream", lambda address: f"stream {address}")
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: record("replay")))
        monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())

    def record(self):
        self.log.append("event")

    def query(self):
        return not self.ahead.pop(0)

    def elapsed_time(self, end):
        return 0.25  # milliseconds

    def call(self):
        self.log.append("call")


def test_an_isolated_call_lies_between_two_events_on_a_busy_stream(monkeypatch):
    cuda = FakeCuda(monkeypatch, ahead=[True, True])
    found = time_isolated([cuda.call], current_device(), 2)
    assert found.seconds == (0.25e-3, 0.25e-3)
    assert found.late == 0
    warm_up, first, second = ["call"] * 3 + ["wait"], *[["busy 400000", "event", "call", "event", "wait"]] * 2
    assert cuda.log == warm_up + first + second


def test_a_call_that_the_host_queued_too_late_is_left_out_and_the_stream_kept_busy_for_longer(monkeypatch):
    cuda = FakeCuda(monkeypatch, ahead=[False, True])
    found = time_isolated([cuda.call], current_device(), 1)
    assert (len(found.seconds), found.late) == (1, 1)
    assert [line for line in cuda.log if line.startswith("busy")] == ["busy 400000", "busy 800000"]


def test_a_host_that_never_catches_up_is_an_error(monkeypatch):
    cuda = FakeCuda(monkeypatch, ahead=[False] * 10)
    with pytest.raises(RuntimeError, match="queues calls too slowly: 7 of 7 were late"):
        time_isolated([cuda.call], current_device(), 1)


def test_ncu_sees_a_mark_and_a_call_and_no_warm_up(monkeypatch):
    cuda, marks = FakeCuda(monkeypatch, ahead=[]), []
    monkeypatch.setattr(
        watched_calls.Profiler, "_mark", lambda self, number: (marks.append(number), cuda.log.append("mark"))
    )
    kernel = replace(TORCH_LINEAR, run=lambda x, weight, out: cuda.call())
    profiler, pool = watched_calls.Profiler(current_device()), make_pool(current_device(), [CASE])
    cuda.log.clear()
    watched_calls.profile_case(profiler, 7, CASE, kernel, pool)
    assert cuda.log == ["call"] * 2 + ["wait", "start", "mark", "call", "wait", "stop"] * 3
    assert marks[1:] == [7, 7, 7]


def test_successive_calls_read_other_addresses():
    pool = make_pool(current_device(), [CASE])
    weights = [call.keywords["weight"].data_ptr() for call in make_calls(CASE, TORCH_LINEAR, pool, 3)]
    assert len(set(weights)) == 3 or current_device().cold_copies(CASE.weight_bytes) < 3


def test_a_case_without_a_kernel_here_has_a_reason():
    assert find_kernel(CASE, current_device()) is TORCH_LINEAR
    assert isinstance(find_kernel(replace(CASE, implementation="no-such"), current_device()), str)
    assert isinstance(find_kernel(replace(CASE, implementation="triton"), current_device()), str)


class Bench:
    """cuda.bench, as far as it is used."""

    def __init__(self):
        self.named = {}

    def register(self, function):
        return SimpleNamespace(set_name=lambda name: self.named.__setitem__(name, function))


class State:
    def __init__(self, log):
        self.log = log

    def set_throttle_threshold(self, share):
        self.log.append(f"threshold {share}")

    def get_stream(self):
        return SimpleNamespace(addressof=lambda: 42)

    def exec(self, launch, /, *, batched):
        self.log.append(f"exec batched={batched}")
        launch(None)
        launch(None)


def test_nvbench_launches_single_calls_cold_and_graphs_of_a_turn_in_batch(monkeypatch):
    cuda, bench = FakeCuda(monkeypatch, ahead=[]), Bench()
    monkeypatch.setattr(
        watched_calls, "find_kernel", lambda case, device: replace(TORCH_LINEAR, run=lambda x, weight, out: cuda.call())
    )
    monkeypatch.setattr(Device, "cold_copies", lambda self, weight_bytes: 5)
    assert watched_calls.register_benchmarks(bench, [CASE]) == 2
    assert list(bench.named) == ["small-m1-torch.cold.1", "small-m1-torch.batch.5"]
    bench.named["small-m1-torch.cold.1"](State(cuda.log))
    warm_up = ["threshold 0.25", "call", "call", "call", "wait"]
    assert cuda.log == [*warm_up, "exec batched=False", "call", "call"]
    cuda.log.clear()
    bench.named["small-m1-torch.batch.5"](State(cuda.log))
    captured = ["call"] * 5
    assert cuda.log == [*warm_up, *captured, "replay", "wait", "exec batched=True", "replay", "replay"]


def test_the_clock_leaves_ours_before_nvbench_is_begun(monkeypatch, tmp_path):
    seen = []

    def look():
        seen.append(json.loads((tmp_path / "verdict.json").read_text()))

    def ours(keep):
        keep({"a": {"chain": 100e-6}})
        look()
        return {"a": {"chain": 100e-6}}, []

    def theirs(path, seconds):
        look()
        return clock.NvbenchTimes({"a": {"batch": 150e-6}})

    monkeypatch.setattr(clock, "measure_times", ours)
    monkeypatch.setattr(clock, "read_ncu_durations", lambda path: ({"a": 99e-6}, None))
    monkeypatch.setattr(clock, "run_nvbench", theirs)
    options = ["--out", str(tmp_path), "--verdict", str(tmp_path / "verdict.json"), "--seconds", "60"]
    assert clock.main(options) == 0
    look()
    assert [one["outcome"] for one in seen] == ["unfinished", "passed", "passed"]
    assert all(one["figures"]["ours"] == {"a": {"chain": 100e-6}} for one in seen)
    assert seen[2]["figures"]["apart"] == 1


def test_the_exercise_runs_each_kind_of_configuration_that_is_committed():
    used = exercise.tuned_configs("sm_90")
    committed = {row.config for row in tuned_linear_table("sm_90").rows if row.tokens <= SKINNY_MAX_TOKENS}
    assert set(used[:-1]) <= committed
    assert {(one.matrix, one.tokens) for one in used} >= {(one.matrix, one.tokens) for one in committed}
    assert used[-1].tma
    assert not any(one.tma for one in exercise.tuned_configs("sm_80"))
    assert exercise.tuned_configs("sm_70") == []


@pytest.mark.parametrize(("arch", "tma"), [("sm_80", {False}), ("sm_90", {False, True})])
def test_the_exercise_runs_the_gemm_by_every_path(arch, tma):
    """Ragged in tokens, n and k; k and n / 2 multiples of 8, for descriptors need rows at 16 bytes."""
    found = [
        (shape, kernel.run.keywords) for kernel, shape in exercise.gemm_cases(arch) if "config" in kernel.run.keywords
    ]
    paths = {(told["config"].tma, told["config"].split > 1, told["swiglu"]) for _, told in found}
    assert paths == {(fetch, split, swiglu) for fetch in tma for split in (False, True) for swiglu in (False, True)}
    for shape, told in found:
        config = told["config"]
        assert shape["tokens"] % config.tokens and shape["n"] % config.rows and shape["k"] % config.depth  # noqa: PT018
        assert shape["k"] % 8 == shape["n"] // 2 % 8 == 0
        assert config.programs(shape["n"], shape["tokens"]) > 2 * told["programs"]


def test_the_exercise_covers_every_kernel_of_ours_and_tells_right_from_wrong():
    ours = {kernel.implementation for kernel, _ in exercise.exercise_cases()}
    assert {"triton", "triton-pdl", "triton-paged"} <= ours
    assert not ours & {"torch", "cublaslt", "flash-attn", "flashinfer"}
    ops = {kernel.op for kernel, _ in exercise.exercise_cases()}
    assert ops == {"control", "linear", "read", "gate_up_swiglu", "rmsnorm", "rotary", "swiglu", "attention"}
    shape = {"tokens": 3, "n": 131, "k": 257}
    assert exercise.check_case(TORCH_LINEAR, shape, current_device()).startswith("right: torch_linear bf16")
    silent = replace(TORCH_LINEAR, run=lambda x, weight, out: None)
    assert exercise.check_case(silent, shape, current_device()).startswith("wrong: ")
    assert exercise.check_case(replace(TORCH_LINEAR, archs=("sm_90",)), shape, current_device()).startswith("not run: ")


def test_the_exercise_takes_each_kernel_once_before_any_twice():
    names = [kernel.name.split()[0] for kernel, _ in exercise.interleave_kernels(exercise.exercise_cases())]
    kinds = len(set(names))
    assert names[0] == "control_sum"
    assert len(set(names[:kinds])) == kinds
    assert sorted(names) == sorted(kernel.name.split()[0] for kernel, _ in exercise.exercise_cases())


def test_the_exercise_says_what_it_begins_and_what_came_of_it(monkeypatch, capsys):
    shape = {"tokens": 3, "n": 131, "k": 257}
    silent = replace(TORCH_LINEAR, name="silent", run=lambda x, weight, out: None)
    monkeypatch.setattr(exercise, "exercise_cases", lambda: [(TORCH_LINEAR, shape), (silent, shape)])
    assert exercise.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["calls:", "begins", "right:", "begins", "wrong:"]
    found = parse_run("", "\n".join(lines), 1)
    assert (found.calls, len(found.results), len(found.wrong)) == (2, 2, 1)


def test_the_control_is_a_sum_across_warps_and_compiles():
    made = compile_variant(
        TritonVariant(exercise._control_sum, {"value": "*fp32", "out": "*fp32"}, {"SIZE": 1024}, 4, 1), "sm_90"
    )
    assert "bar.sync" in made.ptx
    assert "st.shared" in made.ptx
    inputs = exercise.CONTROL.inputs(RandomTensors(1, "cpu"), dtype="fp32")
    inputs["out"].copy_(inputs["value"].sum())
    assert exercise.CONTROL.relative_error(inputs) < exercise.CONTROL.rtol["fp32"]


def test_mark_and_planted_fault_compile_and_the_mark_is_named_as_the_reader_expects():
    compile_variant(TritonVariant(exercise._fill, {"out": "*i32", "size": "i32"}, {"SIZE": 256}, 4, 1), "sm_90")
    made = compile_variant(TritonVariant(watched_calls._gate_mark, {"marked": "*i32"}, {}, 4, 1), "sm_90")
    assert f".entry {MARK_KERNEL}(" in made.ptx


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_the_planted_race_compiles_and_has_no_barrier(tmp_path):
    (tmp_path / "race.cu").write_text(exercise.RACE_SOURCE)
    command = ["nvcc", "-arch=sm_90", "-ptx", "-o", str(tmp_path / "race.ptx"), str(tmp_path / "race.cu")]
    subprocess.run(command, check=True, capture_output=True)
    ptx = (tmp_path / "race.ptx").read_text()
    assert "st.shared" in ptx
    assert "ld.shared" in ptx
    assert "bar.sync" not in ptx


def test_the_suite_is_run_within_its_time_and_its_file_found(monkeypatch, tmp_path):
    path = tmp_path / "gpu-2026-01-01-abc.json"
    monkeypatch.setattr(suite, "result_path", lambda out: path)
    write = f"open({str(path)!r}, 'w').write('{{}}')"
    monkeypatch.setattr(
        suite, "pytest_command", lambda path, budget, cases, axes, resume: [sys.executable, "-c", write]
    )
    assert suite.main_suite(["--out", str(tmp_path), "--seconds", "60"]) == 0
    path.unlink()
    monkeypatch.setattr(
        suite,
        "pytest_command",
        lambda path, budget, cases, axes, resume: [sys.executable, "-c", "import time; time.sleep(60)"],
    )
    left = ["--verdict", str(tmp_path / "v.json")]
    suite.main_suite(["--out", str(tmp_path), "--seconds", "16", *left])
    assert json.loads((tmp_path / "v.json").read_text())["outcome"] == "unfinished"
