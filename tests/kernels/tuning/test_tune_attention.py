"""The search for cuts of attention on a GPU of the tests' own making, and one try under the interpreter."""

import json
from math import inf
from types import SimpleNamespace

import pytest
import torch

from kernels import decode_attention
from kernels.configs import attention, dispatch
from kernels.configs.attention import SplitConfig
from kernels.timing.device import SAMPLING_LIMITS, Device
from kernels.tuning import search as tuning_search
from kernels.tuning import tune
from kernels.tuning.search import DeviceLostError, TrialRunner
from kernels.tuning.shapes import AttentionShape, split_candidates
from specs.errors import UserError
from specs.gpus import ARCHS
from specs.parallel import Shard
from tests.kernels.interpreter import interpreted, needs_interpreter
from tests.kernels.tuning.quick_timer import Timer

GPU, SMS = "NVIDIA Planted", 132
SHARDS = [Shard("llama-3-70b", 8, 1, "qkv", 1280, 8192)]
BEST = SplitConfig(128, 8, 2, 1)
SHAPES = 4  # batch 1 on one kv head, two contexts, with pages and without


class Machine:
    """A GPU whose every cut has its time, and a clock that goes on by a second a try."""

    def __init__(self, into):
        self.into, self.now, self.tried, self.wrong, self.deadly = into, 0.0, [], set(), None
        self.free_bytes = 2**40

    def seconds(self, cut):
        return inf if cut in self.wrong else 1e-6 * (1 + sum(a != b for a, b in zip(cut[:3], BEST[:3], strict=True)))


@pytest.fixture
def machine(monkeypatch, tmp_path):
    machine = Machine(tmp_path)

    class Planted:
        problem, is_permanent = "", True

        def __init__(self, device, dtype, largest_bytes):
            pass

        def seconds(self, shape, config):
            machine.now += 1
            machine.tried.append((shape, config))
            if config == machine.deadly:
                raise DeviceLostError(f"the GPU is lost to this process after {config}")
            if isinstance(config, SplitConfig):
                self.problem = "wrong result" if config in machine.wrong else ""
                return machine.seconds(config)
            return 1e-6

    monkeypatch.setattr(tune, "current_device", lambda: Device("cuda", "sm_90", 2**20, SAMPLING_LIMITS["cuda"]))
    monkeypatch.setattr(Device, "free_bytes", lambda self: machine.free_bytes)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *which: GPU)
    monkeypatch.setattr(tune, "time", SimpleNamespace(monotonic=lambda: machine.now))
    monkeypatch.setattr(tune, "TrialRunner", Planted)
    monkeypatch.setattr(tuning_search, "SEED_CONFIGS", 1)
    monkeypatch.setattr(tune, "sm_count", lambda device: SMS)
    monkeypatch.setattr(tune, "TUNED_FOLDER", tmp_path / "none committed")
    monkeypatch.setattr(tune, "TOKEN_CLASSES", (1, 16))
    monkeypatch.setattr(tune, "ATTENTION_BATCHES", (1,))
    monkeypatch.setattr(tune, "ATTENTION_CONTEXTS", (1024, 8192))
    return machine


def search(machine, tries, say=lambda line: None, parts=(tune.ATTENTION_PART,)):
    """Search for as many tries; the table of attention then."""
    tune.tune("bf16", SHARDS, tries, machine.into, say, parts)
    return attention.load_attention_table(machine.into / "sm_90.attention.json")


def test_each_shape_gets_the_best_of_what_was_tried(machine):
    found = search(machine, 200)
    assert {(row.batch, row.context, row.page_size) for row in found.rows} == {
        (1, context, page) for context in (1024, 8192) for page in (0, 64)
    }
    for row in found.rows:
        mine = [cut for shape, cut in machine.tried if tuple(shape) == row.shape]
        assert row.seconds == machine.seconds(row.config) == min(map(machine.seconds, mine))
        assert (row.heads, row.kv_heads, row.basis) == (8, 1, f"measured on {GPU}")
    assert found.made[f"measured on {GPU}"].keys() == {"gpu", "torch", "triton", "kernel", "date"}


def test_the_rules_cut_is_tried_first(machine):
    search(machine, SHAPES)
    for shape, cut in machine.tried:
        assert cut == split_candidates(ARCHS["sm_90"], SMS, shape)[0]


def test_a_search_that_goes_on_repeats_nothing(machine):
    said = []
    before = {row.shape: row.seconds for row in search(machine, 10).rows}
    after = {row.shape: row.seconds for row in search(machine, 30, said.append).rows}
    assert len(machine.tried) == len(set(machine.tried)) == 40
    assert said[0] == f"{GPU}: {SHAPES} shapes, 10 tries known, 30 s"
    assert all(after[shape] <= before[shape] for shape in before)


def test_wrong_cuts_are_tried_once_and_never_chosen(machine):
    shape = AttentionShape("bf16", 1, 8192, 8, 1, 128)
    machine.wrong = {cut for cut in split_candidates(ARCHS["sm_90"], SMS, shape) if cut[:3] == BEST[:3]}
    for _ in range(2):
        found = search(machine, 120)
    assert machine.wrong & {cut for _, cut in machine.tried}
    assert len(machine.tried) == len(set(machine.tried))
    assert not machine.wrong & {row.config for row in found.rows}
    lines = map(json.loads, (machine.into / "sm_90.attention.trials.jsonl").read_text().splitlines())
    assert {line["problem"] for line in lines if line["seconds"] is None} == {"wrong result"}


def test_a_lost_gpu_is_told_and_what_took_it_down_not_tried_again(machine):
    shape = AttentionShape("bf16", 1, 1024, 8, 1, 128)
    machine.deadly = split_candidates(ARCHS["sm_90"], SMS, shape)[0]
    for _ in range(2):  # with pages it is another try
        with pytest.raises(UserError, match=r"lost.*run it again"):
            search(machine, 10)
    search(machine, 10)


def test_what_the_table_has_is_tried_first(machine):
    cut = SplitConfig(128, 2, 2, 7)
    row = attention.AttentionRow("bf16", 1, 8192, 8, 1, 128, 0, cut, 1e-9, f"measured on {GPU}")
    (machine.into / "sm_90.attention.json").write_text(
        dispatch.format_table(dispatch.ConfigTable("sm_90", rows=(row,)))
    )
    search(machine, SHAPES)
    assert (AttentionShape("bf16", 1, 8192, 8, 1, 128), cut) in machine.tried


def test_one_shape_stands_for_all_of_as_many_pairs(machine, monkeypatch):
    monkeypatch.setattr(tune, "ATTENTION_BATCHES", (1, 8))
    tp1 = Shard("llama-3-70b", 1, 1, "qkv", 10240, 8192)
    tune.tune("bf16", [tp1, *SHARDS], 24, machine.into, lambda line: None, [tune.ATTENTION_PART])
    shapes = dict.fromkeys(shape for shape, _ in machine.tried)
    # 8 and 64 pairs on eight kv heads, 1 on one: a batch of 8 on one is a batch of 1 on eight
    assert {(shape.batch, shape.kv_heads) for shape in shapes} == {(1, 8), (8, 8), (1, 1)}


def test_caches_that_do_not_fit_are_left_out_and_said(machine):
    machine.free_bytes, said = 2 * 1024 * 128 * 2 * 2, []  # twice the cache of 1024 tokens
    assert {row.context for row in search(machine, 4, said.append).rows} == {1024}
    assert said[0] == "2 shapes of attention left out: their caches are beyond 0.00 GiB, half of what is free"


def test_a_short_budget_serves_linears_and_attention_in_proportion(machine):
    search(machine, 3, parts=tuple(tune.TUNING_PARTS))  # two linears and four shapes of attention
    assert sorted(type(shape).__name__ for shape, _ in machine.tried) == ["AttentionShape"] * 2 + ["LinearShape"]
    assert len(dispatch.load_linear_table(machine.into / "sm_90.json").rows) == 1


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(tuning_search, "CudaTimer", Timer)
    monkeypatch.setattr(AttentionShape, "rejection", lambda self, config, arch: "")
    return TrialRunner(Device("cpu", "cpu", 2048, SAMPLING_LIMITS["cpu"]), "fp32", 2**17)


@needs_interpreter
@pytest.mark.parametrize("page_size", [0, 16])
def test_a_try_is_correct_first_and_has_the_mean_of_its_samples(bench, monkeypatch, page_size):
    shape = AttentionShape("fp32", 2, 60, 4, 1, 64, page_size)
    with interpreted(decode_attention, decode_attention):
        assert bench.seconds(shape, SplitConfig(16, 4, 3, 3)) == pytest.approx(3e-6)  # (1 + 2 + 6) / 3
        assert bench.problem == ""
        start = decode_attention._launch_checked
        monkeypatch.setattr(decode_attention, "_launch_checked", lambda *call: start(*call) or call[4].mul_(1.01))
        assert bench.seconds(shape, SplitConfig(16, 4, 3, 3)) == inf
    assert bench.problem == "wrong result: relative error 0.01"


def test_what_the_compiler_rules_out_is_not_run(bench, monkeypatch):
    monkeypatch.setattr(AttentionShape, "rejection", lambda self, config, arch: "spills 16 bytes a thread")
    monkeypatch.setattr(AttentionShape, "launch", lambda *call: pytest.fail("it ran"))
    assert bench.seconds(AttentionShape("fp32", 2, 60, 4, 1, 64), SplitConfig(16, 4, 3)) == inf
    assert (bench.problem, bench.is_permanent) == ("spills 16 bytes a thread", True)
