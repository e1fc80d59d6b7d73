"""Attention on a real GPU: every implementation at sharded shapes, ours at ragged lengths and any order of arrival."""

import pytest
import torch

from kernels.configs.attention import unsplit_config
from kernels.configs.dispatch import device_arch
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION, launch
from kernels.kernel import RandomTensors
from kernels.operands import Workspace
from kernels.registry import DECODE_ATTENTION, PREFILL_ATTENTION
from specs.gpus import ARCHS
from specs.layer import PAGED_IMPLEMENTATIONS
from tests.gpu.arrival_protocol import Violations, offences

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, torch sees none")

RUNS = 500
DELAYS = (0, 5_000)
"""Nanoseconds: about a program's own time at these sizes, so that any may be the last."""
HEADS = {
    "llama-3-70b-tp1": (64, 8, 128),
    "llama-3-70b-tp8": (8, 1, 128),
    "llama-3.2-1b": (32, 8, 64),
    "gpt-3-tp8": (12, 12, 128),
    "llama-3.1-405b-tp8": (16, 1, 128),
}
"""heads, kv_heads, head_dim of a rank."""
OURS = (TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION)


def sizes(shard):
    return dict(zip(("heads", "kv_heads", "head_dim"), HEADS[shard], strict=True))


def paged(kernel, page_size=64):
    return {"page_size": page_size} if kernel.implementation in PAGED_IMPLEMENTATIONS else {}


CASES = [
    *(("bf16", shard, batch, context) for shard in HEADS for batch, context in ((1, 8192), (32, 1024))),
    *(("bf16", "llama-3-70b-tp8", batch, context) for batch, context in ((1, 1), (1, 131072), (3, 129), (512, 128))),
    *((dtype, "llama-3-70b-tp8", 5, 1000) for dtype in ("fp32", "fp16")),
]


@pytest.fixture(scope="module")
def arch():
    return device_arch(torch.device("cuda", torch.cuda.current_device()))


@pytest.mark.parametrize("kernel", DECODE_ATTENTION, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(("dtype", "shard", "batch", "context"), CASES)
def test_decode(arch, kernel, dtype, shard, batch, context):
    if reason := kernel.why_not(arch, dtype):
        pytest.skip(reason)
    shape = {"batch": batch, "context": context, **sizes(shard), **paged(kernel)}
    inputs = kernel.inputs(RandomTensors(1, "cuda"), **shape, dtype=dtype)
    assert inputs["out"].isnan().all(), "unwritten output must show"
    kernel.run(**inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol[dtype]


@pytest.mark.parametrize("kernel", PREFILL_ATTENTION, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(("shard", "tokens"), [("llama-3-70b-tp8", 2048), ("llama-3.2-1b", 333)])
def test_prefill(arch, kernel, shard, tokens):
    if reason := kernel.why_not(arch, "bf16"):
        pytest.skip(reason)
    inputs = kernel.inputs(RandomTensors(1, "cuda"), tokens=tokens, **sizes(shard), dtype="bf16")
    kernel.run(**inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol["bf16"]


@pytest.mark.parametrize("kernel", OURS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("page_size", [16, 64, 256])
def test_ragged_lengths(kernel, page_size):
    if page_size != 64 and not paged(kernel):
        pytest.skip("this cache has no pages")
    shape = {"batch": 6, "context": 3000, **sizes("llama-3-70b-tp8"), **paged(kernel, page_size)}
    inputs = kernel.inputs(RandomTensors(1, "cuda"), **shape, dtype="bf16")
    inputs["lengths"] = torch.tensor([3000, 1, 64, 65, 1777, 2], dtype=torch.int32, device="cuda")
    kernel.run(**inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol["bf16"]


def test_a_cache_that_begins_off_16_bytes_and_is_a_view():
    inputs = TRITON_DECODE_ATTENTION.inputs(
        RandomTensors(1, "cuda"), batch=2, context=500, **sizes("llama-3.2-1b"), dtype="bf16"
    )
    for name in ("key", "value"):
        wide = torch.full((2, 500, 8, 67), float("nan"), dtype=torch.bfloat16, device="cuda")
        wide[..., 3:] = inputs[name]
        inputs[name] = wide[..., 3:]
    TRITON_DECODE_ATTENTION.run(**inputs)
    assert TRITON_DECODE_ATTENTION.relative_error(inputs) <= TRITON_DECODE_ATTENTION.rtol["bf16"]


class Parts:
    """One rank of Llama-3-70B under tp 8 in `split` parts, with a workspace of its own that is large enough already."""

    def __init__(self, split):
        device = torch.device("cuda", torch.cuda.current_device())
        shape = {"batch": 2, "context": 4096, **sizes("llama-3-70b-tp8")}
        self.config = unsplit_config(ARCHS[device_arch(device)], "bf16", shape["head_dim"])._replace(split=split)
        self.inputs = TRITON_DECODE_ATTENTION.inputs(RandomTensors(1, "cuda"), **shape, dtype="bf16")
        self.scratch = Workspace(device)
        self.launch(0)

    def launch(self, delay):
        launch(**self.inputs, config=self.config, scratch=self.scratch, delay=delay)

    def offences(self, run, runs=RUNS):
        return offences(run, self.inputs["out"], self.scratch, runs)


@pytest.mark.parametrize("split", [2, 16, 32])
def test_any_order_of_arrival_gives_the_same_bits_and_zeroed_counters(split):
    case = Parts(split)
    assert case.offences(lambda number: case.launch(DELAYS[number % len(DELAYS)])) == Violations(0, 0, 0)
    assert TRITON_DECODE_ATTENTION.relative_error(case.inputs) <= TRITON_DECODE_ATTENTION.rtol["bf16"]


@pytest.mark.parametrize("split", [2, 32])
def test_counters_that_start_one_too_low_are_caught(split):
    case = Parts(split)

    def never(_):
        case.scratch.arrived.fill_(-1)  # nobody takes itself for the last
        case.launch(0)

    assert case.offences(never, 20).unwritten == 20
