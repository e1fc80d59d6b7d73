"""The configuration that a call runs with: a table's where one covers the shape, else the rule's. No search."""

from functools import cache
from typing import Generic, NamedTuple, TypeVar

import torch

from kernels.tuning.compiler import compiles_well
from kernels.tuning.config import Config
from kernels.tuning.rule import rule
from kernels.tuning.table import tuned
from specs.gpus import ARCHS, arch

WITHOUT_GPU = "sm_80"
"""Whose configurations calls on CPU tensors take, which only Triton's interpreter makes."""


Kind = TypeVar("Kind")


class Choice(NamedTuple, Generic[Kind]):
    """A configuration, and what it rests on: measured, static model, or rule."""

    config: Kind
    basis: str

    def __str__(self) -> str:
        return f"{self.config} ({self.basis})"


@cache
def choose(name: str, dtype: str, *, tokens: int, n: int, k: int) -> Choice[Config]:
    """What y[tokens, n] = x[tokens, k] · W[n, k]ᵀ runs with on the architecture `name`.

    A row that another Triton was chosen for, and that this one compiles badly, gives way to the rule.

    Raises:
        UserError: the architecture's limits are unknown, or its table cannot be read.
    """
    table = tuned(name)
    row = table.nearest(dtype, tokens, n, k) if table else None
    if row and compiles_well(row.config):
        return Choice(row.config, row.basis)
    return Choice(rule(arch(name), dtype, tokens=tokens, n=n, k=k), "rule")


@cache
def arch_of(device: torch.device) -> str:
    """Architecture of a device: sm_90, …; one that is unknown takes that of the newest below it."""
    if device.type != "cuda":
        return WITHOUT_GPU
    major, minor = torch.cuda.get_device_capability(device)
    older = [name for name in ARCHS if int(name.removeprefix("sm_")) <= 10 * major + minor]
    return max(older, key=lambda name: int(name.removeprefix("sm_")), default=WITHOUT_GPU)


def configuration(*, arch: str, dtype: str, tokens: int, n: int, k: int) -> str:
    """The choice in words, for the record."""
    return str(choose(arch, dtype, tokens=tokens, n=n, k=k))
