"""The static model of the GEMM: rounds of tiles over the SMs, and what each tile multiplies and loads.

    t = launch + max(memory, busiest SM) + reduction

As in kernels/tuning/model.py, whose launch and memory it shares, constants are assumptions, and what comes out ranks
configurations until silicon does.
"""

from kernels.tuning.config import Config
from kernels.tuning.model import (
    LATENCY_SECONDS,
    LAUNCH_SECONDS,
    READ_SHARE,
    REDUCTION_SECONDS,
    Prediction,
    needed_bytes,
    saturation,
)
from specs.gpus import WARP, Arch, Gpu, blocks_per_sm
from specs.units import ITEMSIZE

PEAK_SHARE = 0.9
"""Of the matrix units' peak, what a loop that waits for nothing reaches: clocks drop under load."""
PORT_BYTES_PER_SECOND = 7.0e10
"""What one SM draws of tiles that others read too, so mostly from L2: two thirds of 64 bytes a clock."""
OPERAND_ELEMENTS = 8
"""Multiply-adds an element of the tile's operands at which loading them takes as long as multiplying."""
OTHER_REGISTERS = 100
"""Of a thread beside the sums: addresses, fragments, and the epilogue where the sums lie in tensor memory."""
STAGED_COLUMNS = 64
"""Of a tile, that the epilogue holds in shared memory at a time."""
TENSOR_COLUMNS = 512
"""Of an SM's tensor memory, 128 lanes of 4 bytes each; a program that asks for more than is left waits."""


def shared_bytes(on: Arch, config: Config, dtype: str) -> int:
    """Shared memory of a program, before a compiler has told: its stages, and a piece of the result on its way out.

    Warps that multiply from registers (HMMA) have one stage there.
    """
    stages = config.stages - (on.matrix == "HMMA")
    alone = config.split == 1 or config.rows == STAGED_COLUMNS  # else the piece takes the place of a stage that is done
    piece = config.tokens * STAGED_COLUMNS if config.tma and alone else 0
    return (stages * (config.rows + config.tokens) * config.depth + piece) * ITEMSIZE[dtype]


def resident(on: Arch, config: Config, dtype: str, *, registers: int | None = None, shared: int | None = None) -> int:
    """Programs that an SM holds at once; from the compiler's registers and shared bytes where they are known."""
    in_tensor_memory = on.matrix == "UTCHMMA" and dtype != "fp32"
    sums = 0 if in_tensor_memory else config.rows * config.tokens // (WARP * config.warps)
    blocks = blocks_per_sm(
        on,
        registers=min(255, sums + OTHER_REGISTERS) if registers is None else registers,
        shared_bytes=shared_bytes(on, config, dtype) if shared is None else shared,
        warps=config.warps,
    )
    if not in_tensor_memory:
        return blocks
    # Flattened, the loop begins a tile's sums while the epilogue still reads those of the tile before.
    columns = config.rows * -(-config.tokens // 128) * (2 if config.split == 1 else 1)
    return min(blocks, TENSOR_COLUMNS // columns)


def predict(config: Config, gpu: Gpu, ctas: int, dtype: str, *, tokens: int, n: int, k: int) -> Prediction:
    """Time of y[tokens, n] = x[tokens, k] · W[n, k]ᵀ where an SM holds `ctas` programs."""
    need, sms, itemsize = needed_bytes(gpu), gpu.sms or 1, ITEMSIZE[dtype]
    if ctas == 0:
        return Prediction(None, 0, 0, need)
    units = config.programs(n, tokens)
    rounds = -(-units // sms)
    here = min(ctas, rounds)
    steps = config.steps(k)
    in_flight = here * config.in_flight_bytes(dtype, k)
    bandwidth = READ_SHARE * gpu.hbm_bytes_per_second
    supply = bandwidth * saturation(in_flight * min(1.0, units / (sms * here)) / need)
    memory = (n * k + tokens * k + tokens * n) * itemsize / supply
    loaded = (config.rows + config.tokens) * steps * config.depth * itemsize
    ahead = in_flight * (config.rows + config.tokens) / config.rows  # of x as many stages as of W
    loading = loaded / (PORT_BYTES_PER_SECOND * saturation(ahead / (PORT_BYTES_PER_SECOND * LATENCY_SECONDS)))
    area = config.rows * config.tokens
    peak = PEAK_SHARE * gpu.flops_per_second[dtype] / sms
    fed = area / (area + OPERAND_ELEMENTS * (config.rows + config.tokens))
    multiplying = 2 * area * steps * config.depth / (peak * fed)
    storing = LATENCY_SECONDS + area * itemsize / PORT_BYTES_PER_SECOND
    # Where an SM holds several programs, or loads run on under the epilogue, only the last tile's is waited for.
    overlapped = here > 1 or (config.tma and config.split == 1)
    tile = (loading**4 + multiplying**4) ** 0.25  # two limits that are near each other cost more than either
    busiest = rounds * tile + (1 if overlapped else rounds) * storing
    last = 4 * config.split * area / PORT_BYTES_PER_SECOND
    reduction = REDUCTION_SECONDS + last if config.split > 1 else 0.0
    return Prediction(LAUNCH_SECONDS + max(memory, busiest) + reduction, here, in_flight, need)
