"""One compiled form of a kernel of ours, and how the forms of a configured one are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from kernels import skinny
from kernels.compile import Compiled, Variant, compile_variant
from kernels.kernel import Kernel
from kernels.tuning.choice import choose
from kernels.tuning.config import Config
from specs.gpus import Arch
from specs.parallel import Shard

Served = dict[tuple[Config, str, bool], list[tuple[Shard, int]]]
"""(configuration, basis, whole tiles), and the shapes that run so."""


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


def served(on: Arch, dtype: str, shards: Sequence[Shard], tiles: Sequence[int]) -> Served:
    """What the decode linear is configured to for each shard at each tile of tokens."""
    found: Served = {}
    for shard in shards:
        for tokens in tiles:
            choice = choose(on.name, dtype, tokens=tokens, n=shard.n, k=shard.k)
            even = choice.config.even(shard.n, shard.k)
            found.setdefault((choice.config, choice.basis, even), []).append((shard, tokens))
    return found


def configured(
    kernel: Kernel,
    config: Config,
    basis: str,
    even: bool,
    dtype: str,
    shapes: Sequence[tuple[Shard, int]],
    *,
    dependent: bool = False,
    swiglu: bool = False,
) -> Form:
    """The decode linear, or what is made of it, in one configuration."""
    variant = skinny.variant(config, dtype, even=even, dependent=dependent, swiglu=swiglu)
    return of_config(kernel, variant, config, basis, even, dtype, shapes)


def of_config(
    kernel: Kernel,
    variant: Variant,
    config: Config,
    basis: str,
    even: bool,
    dtype: str,
    shapes: Sequence[tuple[Shard, int]],
) -> Form:
    """A linear compiled as `variant` for one configuration."""
    return Form(
        kernel=kernel,
        config=str(config) if even else f"{config} masked",
        basis=basis,
        dtype=dtype,
        warps=config.warps,
        in_flight_bytes=config.in_flight_bytes(dtype),
        make=partial(compile_variant, variant),
        cut=config,
        serves=tuple(shapes),
    )


def plain(kernel: Kernel, variant: Variant, config: str, dtype: str, in_flight_bytes: int) -> Form:
    """A kernel that has nothing to choose, or whose time the model does not predict."""
    make = partial(compile_variant, variant)
    return Form(kernel, config, None, dtype, variant.num_warps, in_flight_bytes, make)
