"""The type `Kernel`, the sources of its tensors, and the choice by token count.

Suites, tests and the tuner know a kernel only through `Kernel`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isnan, nan, sqrt
from typing import Any, Protocol

import torch

from specs.errors import UserError
from specs.roofline import Work

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""torch's dtype for each short dtype name that kernels accept today."""

CHECK_ELEMENTS = 2**22
"""Elements that a check widens to float64 at a time: 32 MiB.

Fresh pages cost more than the arithmetic.
"""

Inputs = dict[str, torch.Tensor]
"""Named tensors of one call.

`run` writes `out` in full, unless the kernel names other outputs.
"""

Step = tuple[str, Callable[[], object]]
"""A named part of a call."""

Result = torch.Tensor | tuple[torch.Tensor, ...]
"""Result of a reference: one tensor for each output, in the kernel's order."""


class TensorSource(Protocol):
    """Source of a kernel's tensors.

    Tests use fresh memory, the suites a pool larger than the caches.
    """

    def weight(self, *shape: int, dtype: str) -> torch.Tensor:
        """Return standard normal values that a call streams once.

        Each call gets another copy when caches must be cold.
        """

    def activation(self, *shape: int, dtype: str, name: str = "") -> torch.Tensor:
        """Return standard normal values that the previous op has just written.

        All calls get the same tensor. `name` distinguishes several tensors of one shape.
        """

    def output(self, *shape: int, dtype: str, name: str = "") -> torch.Tensor:
        """Return room for a result, poisoned with NaN so that an unwritten element shows.

        `name` distinguishes several tensors of one shape.
        """

    def integers(self, values: torch.Tensor) -> torch.Tensor:
        """Return these whole numbers, lengths or a page table, on the kernel's device."""


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        name: unique name, such as torch_linear or triton_gemv.
        op: operation: linear, read, copy, launch, …
        implementation: torch, triton, cuda, …
        inputs: `inputs(source, *, dtype, **shape)` gives the tensors of one call, with the outputs.
        run: `run(**inputs)` writes the outputs.
        reference: `reference(**inputs without outputs)` gives the results in float64, or exactly in less.
        work: `work(*, dtype, **shape)` gives the flops and least bytes of one call.
        rtol: largest accepted ‖out − reference‖ / ‖reference‖, by dtype.
        archs: supported architectures: "cpu", "sm_80", …; None for all that torch supports.
        tokens: supported token counts.
        missing: one line on a required package that is not installed, and how to get it; None when all are.
        outputs: names of the tensors that `run` writes in full.
        steps: `steps(**inputs)` gives a call as named steps, which a timeline shows one by one; None for a call without
            steps.
        configuration: `configuration(arch=…, dtype=…, **shape)` names the choice of `run` and its basis; None for
            kernels without a choice.
    """

    name: str
    op: str
    implementation: str
    inputs: Callable[..., Inputs]
    run: Callable[..., Any]
    reference: Callable[..., Result]
    work: Callable[..., Work]
    rtol: Mapping[str, float]
    archs: tuple[str, ...] | None
    tokens: range = field(default=range(1, 2**31))
    missing: Callable[[], str | None] = field(default=lambda: None)
    outputs: tuple[str, ...] = ("out",)
    steps: Callable[..., Sequence[Step]] | None = None
    configuration: Callable[..., str] | None = None

    def why_not(self, arch: str, dtype: str) -> str | None:
        """Return why this kernel cannot run on `arch` with `dtype`; None when it can.

        `arch` is "cpu", "sm_90", …
        """
        if self.archs is not None and arch not in self.archs:
            return f"{self.name} runs on {', '.join(self.archs)}; this is {arch}"
        if dtype not in self.rtol:
            return f"{dtype} is not among the dtypes of {self.name}: {', '.join(self.rtol)}"
        return self.missing()

    def call(self, inputs: Inputs) -> Callable[[], object]:
        """Return one call on these tensors, for timing.

        A call of several steps binds its tensors beforehand.
        """
        if self.steps is None:
            return partial(self.run, **inputs)
        steps = [step for _, step in self.steps(**inputs)]

        def run() -> None:
            for step in steps:
                step()

        return run

    def relative_error(self, inputs: Inputs) -> float:
        """Return the largest ‖out − reference‖ / ‖reference‖ of all outputs after `run`.

        NaN where an output was not written in full.
        """
        expected = self.reference(**{name: tensor for name, tensor in inputs.items() if name not in self.outputs})
        results = expected if isinstance(expected, tuple) else (expected,)
        errors = [_relative_error(inputs[name], right) for name, right in zip(self.outputs, results, strict=True)]
        return nan if any(map(isnan, errors)) else max(errors)


def _relative_error(out: torch.Tensor, expected: torch.Tensor) -> float:
    wrong, whole = 0.0, 0.0
    for part, right in zip(*(t.reshape(-1).split(CHECK_ELEMENTS) for t in (out, expected)), strict=True):
        exact = right.to(torch.float64)
        wrong += float(torch.sum((part.to(torch.float64) - exact) ** 2))
        whole += float(torch.sum(exact**2))
    return sqrt(wrong / whole)


class RandomTensors:
    """A `TensorSource` of fresh tensors from a seeded generator, for checks."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._device = device

    def _normal(self, *shape: int, dtype: str, name: str = "") -> torch.Tensor:  # noqa: ARG002 - each is another
        return torch.randn(*shape, generator=self._generator, device=self._device).to(TORCH_DTYPES[dtype])

    weight = _normal
    activation = _normal

    def output(self, *shape: int, dtype: str, name: str = "") -> torch.Tensor:  # noqa: ARG002 - likewise
        """Return NaN everywhere, so that an unwritten element shows."""
        return torch.full(shape, float("nan"), dtype=TORCH_DTYPES[dtype], device=self._device)

    def integers(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values on the device."""
        return values.to(self._device)


def select_kernel(kernels: Sequence[Kernel], implementation: str, tokens: int) -> Kernel:
    """Return the kernel of `implementation` among `kernels`, for `tokens` tokens.

    All `kernels` have one op.

    Raises:
        UserError: no such implementation, or none of its kernels takes that many tokens.
    """
    op, own = kernels[0].op, [kernel for kernel in kernels if kernel.implementation == implementation]
    if not own:
        known = ", ".join(dict.fromkeys(kernel.implementation for kernel in kernels))
        raise UserError(f"unknown implementation {implementation!r} of a {op}; choose one of {known}")
    fitting = next((kernel for kernel in own if tokens in kernel.tokens), None)
    if fitting is None:
        taken = "; ".join(f"{kernel.name} takes {_format_range(kernel.tokens)}" for kernel in own)
        raise UserError(f"no {implementation} {op} takes {tokens} tokens: {taken}")
    return fitting


def _format_range(tokens: range) -> str:
    return f"{tokens[0]} to {tokens[-1]}" if len(tokens) < 2**20 else f"{tokens[0]} or more"
