"""Calls of a case, as the suites make them: rotating through a pool 32 times the last-level cache."""

from collections.abc import Iterable
from functools import partial

from kernels.kernel import Kernel
from kernels.registry import linear
from kernels.timing.device import Device
from kernels.timing.host import Call
from kernels.timing.pool import Pool
from specs.errors import UserError
from suites.gate.cases import DTYPE, GateCase


def make_pool(device: Device, cases: Iterable[GateCase]) -> Pool:
    """One buffer for all cases."""
    return Pool(device, {DTYPE: max(case.weight_bytes for case in cases)})


def kernel_of(case: GateCase, device: Device) -> Kernel | str:
    """The kernel of a case, or why it cannot run here."""
    try:
        kernel = linear(case.implementation, case.tokens)
    except UserError as error:
        return str(error)
    return kernel.why_not(device.arch, DTYPE) or kernel


def draw_calls(case: GateCase, kernel: Kernel, pool: Pool, count: int) -> list[Call]:
    """`count` calls on successive windows of the pool, sharing their activations and output."""
    drawn = [kernel.inputs(pool, dtype=DTYPE, **case.shape) for _ in range(count)]
    return [partial(kernel.run, **one) for one in drawn]
