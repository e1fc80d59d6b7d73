"""Static models of the skinny linear and of the GEMM, without a GPU.

They predict the time of a configuration, to rank configurations until a GPU measures them. Their constants are
assumptions, and the result is never a measurement. Launch and read share fit published cuBLAS times of these shapes.
The latency is that of memory under load.

The model of the skinny linear:

    t = launch + max(memory, busiest SM, L2, arithmetic) + reduction
"""

from typing import NamedTuple

from kernels.configs.config import LinearConfig
from specs.gpus import WARP_SIZE, Arch, Gpu, blocks_per_sm
from specs.units import ITEMSIZE

MEMORY_LATENCY_SECONDS = 1.0e-6
"""Time from a request to memory until the line arrives, under load.

By Little's law it needs 36 KB per SM on H200.
"""
LAUNCH_SECONDS = 1.8e-6
"""Time from one kernel of a graph to the next, until the first bytes arrive."""
REDUCTION_SECONDS = 1.0e-6
"""Time to store a partial sum, count it in and read the other sums back.

These are three trips to L2.
"""
READ_EFFICIENCY = 0.9
"""Share of the datasheet's bandwidth that reading reaches."""
L2_BYTES_PER_SECOND = 5.0e12
"""L2 bandwidth of the GPUs so far.

At least L2_FACTOR times the memory's bandwidth, where that is more.
"""
L2_FACTOR = 1.5
SM_BYTES_PER_SECOND = 5.5e10
"""Largest bandwidth of one SM: half of its port of 64 bytes a clock.

At least SM_FACTOR times an equal share.
"""
SM_FACTOR = 1.5
ASSUMED_REGISTERS = {True: 128, False: 80}
"""Registers of a thread before compilation, with and without the matrix units."""


class Prediction(NamedTuple):
    """Prediction for one configuration on one GPU for one shape.

    Attributes:
        seconds: time of one call; None where a program does not fit an SM.
        ctas_per_sm: programs that an SM holds at once and has work for.
        in_flight_bytes_per_sm: bytes of W in flight.
        needed_bytes_per_sm: bytes in flight that keep the memory busy, by Little's law.
    """

    seconds: float | None
    ctas_per_sm: int
    in_flight_bytes_per_sm: int
    needed_bytes_per_sm: int


def needed_bytes_per_sm(gpu: Gpu) -> int:
    """Return the bytes in flight per SM that keep the memory busy.

    They are latency x bandwidth / SMs.

    Raises:
        ValueError: the number of SMs is unknown.
    """
    if not gpu.sms:
        raise ValueError(f"{gpu} has no count of SMs")
    return round(MEMORY_LATENCY_SECONDS * gpu.hbm_bytes_per_second / gpu.sms)


def skinny_shared_bytes(config: LinearConfig, dtype: str) -> int:
    """Return the largest shared memory of a program, before compilation.

    It has a tile of W and a tile of x for each stage.
    """
    if not config.matrix and config.stages == 1:
        return 0
    return config.stages * (config.rows + config.tokens) * config.depth * ITEMSIZE[dtype]


def skinny_programs_per_sm(
    arch: Arch, config: LinearConfig, dtype: str, *, registers: int | None = None, shared: int | None = None
) -> int:
    """Return how many programs an SM holds at once.

    The compiler's registers and shared bytes are used where they are known.
    """
    return blocks_per_sm(
        arch,
        registers=ASSUMED_REGISTERS[config.matrix] if registers is None else registers,
        shared_bytes=skinny_shared_bytes(config, dtype) if shared is None else shared,
        warps=config.warps,
    )


def predict_skinny(config: LinearConfig, gpu: Gpu, ctas: int, dtype: str, *, tokens: int, n: int, k: int) -> Prediction:
    """Return the prediction for y[tokens, n] = x[tokens, k] · W[n, k]ᵀ.

    An SM holds `ctas` programs.
    """
    need, sms = needed_bytes_per_sm(gpu), gpu.sms or 1
    programs, itemsize = config.programs(n), ITEMSIZE[dtype]
    here = min(ctas, -(-programs // sms))
    in_flight = here * config.in_flight_bytes(dtype, k)
    if ctas == 0:
        return Prediction(None, 0, 0, need)
    bandwidth = READ_EFFICIENCY * gpu.hbm_bytes_per_second
    weights, activations = n * k * itemsize, tokens * k * itemsize
    supply = bandwidth * bandwidth_saturation(in_flight * min(1.0, programs / (sms * here)) / need)
    memory = (weights + activations + tokens * n * itemsize) / supply
    port = max(SM_BYTES_PER_SECOND, SM_FACTOR * bandwidth / sms)
    cache = max(L2_BYTES_PER_SECOND, L2_FACTOR * bandwidth)
    share = (config.rows + tokens) * -(-k // config.split) * itemsize
    busiest = -(-programs // sms) * share / min(port, in_flight / MEMORY_LATENCY_SECONDS)
    partials = 4 * config.partial_elements(n)
    l2 = (weights + activations * -(-n // config.rows) + 2 * partials) / cache
    last = 4 * config.split * config.rows * config.tokens / port
    reduction = REDUCTION_SECONDS + last if config.split > 1 else 0.0
    seconds = LAUNCH_SECONDS + max(memory, busiest, l2, _compute_seconds(config, gpu, dtype, n, k)) + reduction
    return Prediction(seconds, here, in_flight, need)


def bandwidth_saturation(ratio: float) -> float:
    """Return the share of the bandwidth at `ratio` times the needed bytes in flight.

    It is 0.84 at 1, 0.98 at 2.
    """
    return float(ratio / (1 + ratio**4) ** 0.25)


def _compute_seconds(config: LinearConfig, gpu: Gpu, dtype: str, n: int, k: int) -> float:
    """Return the time of the multiply-adds.

    Padding tokens count, and without matrix units an element of W is widened first.
    """
    peak = gpu.flops_per_second
    if config.matrix and dtype != "fp32":
        return 2 * n * k * config.tokens / peak[dtype]
    return 2 * n * k * (config.tokens + 1) / peak["fp32"]


# Static model of the GEMM: rounds of tiles over the SMs, and the time of each tile's products and loads.
#
#     t = launch + max(memory, busiest SM) + reduction

PEAK_EFFICIENCY = 0.9
"""Share of the matrix units' peak that a loop without waits reaches.

Clocks drop under load.
"""
PORT_BYTES_PER_SECOND = 7.0e10
"""Bandwidth of one SM for tiles that other SMs read too, mostly from L2.

It is two thirds of 64 bytes a clock.
"""
BALANCED_INTENSITY = 8
"""Multiply-adds per operand element at which loads and products take equal time."""
NON_ACCUMULATOR_REGISTERS = 100
"""Registers of a thread besides the sums.

They hold addresses, fragments, and the epilogue where the sums lie in tensor memory.
"""
EPILOGUE_COLUMNS = 64
"""Columns of a tile that the epilogue holds in shared memory at a time."""
TENSOR_MEMORY_COLUMNS = 512
"""Columns of an SM's tensor memory, 128 lanes of 4 bytes each.

A program that asks for more than is free waits.
"""


def gemm_shared_bytes(arch: Arch, config: LinearConfig, dtype: str) -> int:
    """Return the shared memory of a program, before compilation.

    It has the stages, and a piece of the result on its way out. Warps that multiply from registers (HMMA) have one
    stage there.
    """
    stages = config.stages - (arch.matrix == "HMMA")
    alone = config.split == 1 or config.rows == EPILOGUE_COLUMNS  # else the piece takes the place of a finished stage
    piece = config.tokens * EPILOGUE_COLUMNS if config.tma and alone else 0
    return (stages * (config.rows + config.tokens) * config.depth + piece) * ITEMSIZE[dtype]


def gemm_programs_per_sm(
    arch: Arch, config: LinearConfig, dtype: str, *, registers: int | None = None, shared: int | None = None
) -> int:
    """Return how many programs an SM holds at once.

    The compiler's registers and shared bytes are used where they are known.
    """
    in_tensor_memory = arch.matrix == "UTCHMMA" and dtype != "fp32"
    sums = 0 if in_tensor_memory else config.rows * config.tokens // (WARP_SIZE * config.warps)
    blocks = blocks_per_sm(
        arch,
        registers=min(255, sums + NON_ACCUMULATOR_REGISTERS) if registers is None else registers,
        shared_bytes=gemm_shared_bytes(arch, config, dtype) if shared is None else shared,
        warps=config.warps,
    )
    if not in_tensor_memory:
        return blocks
    # Flattened, the loop begins a tile's sums while the epilogue still reads the previous tile's sums.
    columns = config.rows * -(-config.tokens // 128) * (2 if config.split == 1 else 1)
    return min(blocks, TENSOR_MEMORY_COLUMNS // columns)


def predict_gemm(config: LinearConfig, gpu: Gpu, ctas: int, dtype: str, *, tokens: int, n: int, k: int) -> Prediction:
    """Return the prediction for y[tokens, n] = x[tokens, k] · W[n, k]ᵀ.

    An SM holds `ctas` programs.
    """
    need, sms, itemsize = needed_bytes_per_sm(gpu), gpu.sms or 1, ITEMSIZE[dtype]
    if ctas == 0:
        return Prediction(None, 0, 0, need)
    units = config.programs(n, tokens)
    rounds = -(-units // sms)
    here = min(ctas, rounds)
    steps = config.steps(k)
    in_flight = here * config.in_flight_bytes(dtype, k)
    bandwidth = READ_EFFICIENCY * gpu.hbm_bytes_per_second
    supply = bandwidth * bandwidth_saturation(in_flight * min(1.0, units / (sms * here)) / need)
    memory = (n * k + tokens * k + tokens * n) * itemsize / supply
    loaded = (config.rows + config.tokens) * steps * config.depth * itemsize
    ahead = in_flight * (config.rows + config.tokens) / config.rows  # x has as many stages as W
    loading = loaded / (
        PORT_BYTES_PER_SECOND * bandwidth_saturation(ahead / (PORT_BYTES_PER_SECOND * MEMORY_LATENCY_SECONDS))
    )
    area = config.rows * config.tokens
    peak = PEAK_EFFICIENCY * gpu.flops_per_second[dtype] / sms
    fed = area / (area + BALANCED_INTENSITY * (config.rows + config.tokens))
    multiplying = 2 * area * steps * config.depth / (peak * fed)
    storing = MEMORY_LATENCY_SECONDS + area * itemsize / PORT_BYTES_PER_SECOND
    # Where an SM holds several programs, or loads continue under the epilogue, only the last tile's store is waited
    # for.
    overlapped = here > 1 or (config.tma and config.split == 1)
    tile = (loading**4 + multiplying**4) ** 0.25  # two limits near each other cost more than either
    busiest = rounds * tile + (1 if overlapped else rounds) * storing
    last = 4 * config.split * area / PORT_BYTES_PER_SECOND
    reduction = REDUCTION_SECONDS + last if config.split > 1 else 0.0
    return Prediction(LAUNCH_SECONDS + max(memory, busiest) + reduction, here, in_flight, need)
