"""The compiled forms of the GEMM that an architecture can be asked to run, and for which shapes."""

from collections.abc import Iterator, Sequence

from kernels import gemm
from kernels.gate_up import TRITON_GEMM_GATE_UP
from kernels.inspection.form import Form, Served, of_config
from kernels.kernel import Kernel
from kernels.tuning.choice import choose
from kernels.tuning.shapes import GEMM_TOKENS
from specs.gpus import Arch
from specs.parallel import Shard


def gemm_forms(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    """The linear's forms, then those with the epilogue of gate and up, which gate_up alone asks for."""
    yield from _of(gemm.TRITON_GEMM, dtype, _served(on, dtype, shards))
    gate_up = [shard for shard in shards if shard.layer == "gate_up"]
    yield from _of(TRITON_GEMM_GATE_UP, dtype, _served(on, dtype, gate_up))


def _served(on: Arch, dtype: str, shards: Sequence[Shard]) -> Served:
    served: Served = {}
    for shard in shards:
        for tokens in GEMM_TOKENS:
            choice = choose(on.name, dtype, tokens=tokens, n=shard.n, k=shard.k)
            even = choice.config.tma or shard.k % choice.config.depth == 0
            served.setdefault((choice.config, choice.basis, even), []).append((shard, tokens))
    return served


def _of(kernel: Kernel, dtype: str, served: Served) -> Iterator[Form]:
    swiglu = kernel is TRITON_GEMM_GATE_UP
    for (config, basis, even), shapes in served.items():
        variant = gemm.variant(config, dtype, even=even, swiglu=swiglu)
        yield of_config(kernel, variant, config, basis, even, dtype, shapes)
