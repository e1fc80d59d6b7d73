"""The noun `Form`: one compiled form of one of our kernels."""

from collections.abc import Callable
from dataclasses import dataclass

from kernels.compile import Compiled
from kernels.kernel import Kernel
from kernels.tuning.config import Config
from specs.parallel import Shard


@dataclass(frozen=True)
class Form:
    """One kernel in one configuration.

    Attributes:
        kernel: the kernel.
        config: what was configured, in words.
        basis: measured, static model, rule or not chosen, where there was a choice.
        dtype: of the operands.
        warps: of a program.
        in_flight_bytes: that a program has asked memory for and not yet got.
        make: compiles it for an architecture.
        cut: the configuration that predictions are made from; None where the model does not apply.
        serves: (shard, tokens) of the inspected model that run with it.
        lacks: what the architecture does not have that this needs; None where it runs.
    """

    kernel: Kernel
    config: str
    basis: str | None
    dtype: str
    warps: int
    in_flight_bytes: int
    make: Callable[[str], Compiled]
    cut: Config | None = None
    serves: tuple[tuple[Shard, int], ...] = ()
    lacks: str | None = None
