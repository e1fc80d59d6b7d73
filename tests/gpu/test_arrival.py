"""Split-K: whichever program arrives last adds up all partial sums, in one order, and leaves the counters at zero."""

import pytest
import torch

from kernels import gemm
from kernels.configs.config import LinearConfig
from kernels.configs.dispatch import choose_config, device_arch
from kernels.gemm import TRITON_GEMM
from kernels.kernel import RandomTensors
from kernels.operands import Workspace
from kernels.skinny import TRITON_SKINNY, TRITON_SKINNY_PDL, launch
from specs.gpus import ARCHS
from tests.gpu.arrival_protocol import Violations, offences

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, torch sees none")

RUNS = 1000
DELAYS = (0, 5_000)
"""Nanoseconds: a program's own time at these sizes, so that any may be the last."""
SHAPES = [(1, 1280, 8192), (16, 1280, 8192), (64, 8192, 1024)]


class Split:
    """One shape cut over `split` programs a tile, with a workspace of its own that is large enough already."""

    def __init__(self, tokens, n, k, split):
        device = torch.device("cuda", torch.cuda.current_device())
        self.config = choose_config(device_arch(device), "bf16", tokens=tokens, n=n, k=k).config._replace(split=split)
        self.inputs = TRITON_SKINNY.inputs(RandomTensors(1, "cuda"), tokens=tokens, n=n, k=k, dtype="bf16")
        self.scratch = Workspace(device)
        self.launch(0)

    @property
    def out(self):
        return self.inputs["out"]

    def launch(self, delay, dependent=False):
        launch(**self.inputs, config=self.config, scratch=self.scratch, delay=delay, dependent=dependent)

    def offences(self, run, runs=RUNS):
        return offences(run, self.out, self.scratch, runs)


@pytest.mark.parametrize("split", [2, 4])
@pytest.mark.parametrize(("tokens", "n", "k"), SHAPES)
def test_any_order_of_arrival_gives_the_same_bits_and_zeroed_counters(tokens, n, k, split):
    case = Split(tokens, n, k, split)
    assert case.scratch.partials.numel() > 0, "nothing is split"
    assert case.offences(lambda number: case.launch(DELAYS[number % len(DELAYS)])) == Violations(0, 0, 0)
    assert TRITON_SKINNY.relative_error(case.inputs) <= TRITON_SKINNY.rtol["bf16"]


def test_dependent_launches_in_a_row_keep_their_partial_sums_apart():
    case = Split(16, 1280, 8192, 4)
    if reason := TRITON_SKINNY_PDL.why_not(device_arch(case.out.device), "bf16"):
        pytest.skip(reason)

    def eight(number):
        for _ in range(8):
            case.launch(DELAYS[number % len(DELAYS)], dependent=True)

    assert case.offences(eight, RUNS // 8) == Violations(0, 0, 0)
    assert TRITON_SKINNY.relative_error(case.inputs) <= TRITON_SKINNY.rtol["bf16"]


@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
def test_any_order_of_arrival_gives_the_gemm_the_same_bits_too(tma):
    device = torch.device("cuda", torch.cuda.current_device())
    if tma and not ARCHS[device_arch(device)].tma:
        pytest.skip("no copy engine")
    inputs = TRITON_GEMM.inputs(RandomTensors(1, "cuda"), tokens=129, n=1280, k=8192, dtype="bf16")
    config, scratch = LinearConfig(128, 64, 64, 4, 4, 3, tma=tma), Workspace(device)

    def launch_gemm(number):
        gemm.launch(**inputs, config=config, scratch=scratch, delay=DELAYS[number % len(DELAYS)])

    launch_gemm(0)
    assert offences(launch_gemm, inputs["out"], scratch, RUNS // 2) == Violations(0, 0, 0)
    assert TRITON_GEMM.relative_error(inputs) <= TRITON_GEMM.rtol["bf16"]


def test_counters_that_start_one_too_high_are_caught():
    case = Split(16, 1280, 8192, 2)

    def early(_):
        case.scratch.arrived.fill_(1)  # the first to arrive takes itself for the last
        case.launch(DELAYS[-1])

    found = case.offences(early, 20)
    assert found.counting or found.unwritten


def test_counters_that_start_one_too_low_are_caught():
    case = Split(16, 1280, 8192, 2)

    def never(_):
        case.scratch.arrived.fill_(-1)  # nobody takes itself for the last
        case.launch(0)

    assert case.offences(never, 20).unwritten == 20
