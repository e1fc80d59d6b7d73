"""The static model of the skinny linear: what a configuration should take on a GPU that is not here.

    t = launch + max(memory, busiest SM, L2, arithmetic) + reduction

It ranks configurations until silicon does; its constants are assumptions, and what comes out is a prediction, never a
measurement. Launch and read share are what published cuBLAS times of these shapes leave room for; the latency is that
of memory under load.
"""

from typing import NamedTuple

from kernels.configs.config import LinearConfig
from specs.gpus import WARP_SIZE, Arch, Gpu, blocks_per_sm
from specs.units import ITEMSIZE

MEMORY_LATENCY_SECONDS = 1.0e-6
"""From asking memory for a line to having it, under load: by Little's law 36 KB an SM on H200."""
LAUNCH_SECONDS = 1.8e-6
"""From one kernel of a graph to the next, until the first bytes arrive."""
REDUCTION_SECONDS = 1.0e-6
"""Storing a partial sum, counting it in and reading the others back: three trips to L2."""
READ_EFFICIENCY = 0.9
"""Of the datasheet's bandwidth, what reading reaches."""
L2_BYTES_PER_SECOND = 5.0e12
"""Of the GPUs so far, and at least L2_FACTOR times the memory's where that is more."""
L2_FACTOR = 1.5
SM_BYTES_PER_SECOND = 5.5e10
"""What one SM draws at most, half of its port of 64 bytes a clock, and at least SM_FACTOR times an equal share."""
SM_FACTOR = 1.5
ASSUMED_REGISTERS = {True: 128, False: 80}
"""Of a thread, on the matrix units and with multiply-adds, before a compiler has told."""


class Prediction(NamedTuple):
    """What the model says of one configuration on one GPU for one shape.

    Attributes:
        seconds: of one call; None where a program does not fit an SM.
        ctas_per_sm: programs that an SM holds at once, and has to do.
        in_flight_bytes_per_sm: of W.
        needed_bytes_per_sm: that keep the memory busy by Little's law.
    """

    seconds: float | None
    ctas_per_sm: int
    in_flight_bytes_per_sm: int
    needed_bytes_per_sm: int


def needed_bytes_per_sm(gpu: Gpu) -> int:
    """Bytes that each SM must have asked for at any time to keep the memory busy: latency x bandwidth / SMs.

    Raises:
        ValueError: the number of SMs is unknown.
    """
    if not gpu.sms:
        raise ValueError(f"{gpu} has no count of SMs")
    return round(MEMORY_LATENCY_SECONDS * gpu.hbm_bytes_per_second / gpu.sms)


def skinny_shared_bytes(config: LinearConfig, dtype: str) -> int:
    """Shared memory of a program at most, before a compiler has told: a tile of W and one of x for each stage."""
    if not config.matrix and config.stages == 1:
        return 0
    return config.stages * (config.rows + config.tokens) * config.depth * ITEMSIZE[dtype]


def skinny_programs_per_sm(
    arch: Arch, config: LinearConfig, dtype: str, *, registers: int | None = None, shared: int | None = None
) -> int:
    """Programs that an SM holds at once; from the compiler's registers and shared bytes where they are known."""
    return blocks_per_sm(
        arch,
        registers=ASSUMED_REGISTERS[config.matrix] if registers is None else registers,
        shared_bytes=skinny_shared_bytes(config, dtype) if shared is None else shared,
        warps=config.warps,
    )


def predict_skinny(config: LinearConfig, gpu: Gpu, ctas: int, dtype: str, *, tokens: int, n: int, k: int) -> Prediction:
    """Time of y[tokens, n] = x[tokens, k] · W[n, k]ᵀ where an SM holds `ctas` programs."""
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
    """Share of the bandwidth that `ratio` times the needed bytes in flight draw: 0.84 at 1, 0.98 at 2."""
    return float(ratio / (1 + ratio**4) ** 0.25)


def _compute_seconds(config: LinearConfig, gpu: Gpu, dtype: str, n: int, k: int) -> float:
    """Time of the multiply-adds: padding tokens count, and without matrix units an element of W is widened first."""
    peak = gpu.flops_per_second
    if config.matrix and dtype != "fp32":
        return 2 * n * k * config.tokens / peak[dtype]
    return 2 * n * k * (config.tokens + 1) / peak["fp32"]


# The static model of the GEMM: rounds of tiles over the SMs, and what each tile multiplies and loads.
#
#     t = launch + max(memory, busiest SM) + reduction
#
# As in kernels/configs/cost_model.py, whose launch and memory it shares, constants are assumptions, and what comes out
# ranks configurations until silicon does.

PEAK_EFFICIENCY = 0.9
"""Of the matrix units' peak, what a loop that waits for nothing reaches: clocks drop under load."""
PORT_BYTES_PER_SECOND = 7.0e10
"""What one SM draws of tiles that others read too, so mostly from L2: two thirds of 64 bytes a clock."""
BALANCED_INTENSITY = 8
"""Multiply-adds an element of the tile's operands at which loading them takes as long as multiplying."""
NON_ACCUMULATOR_REGISTERS = 100
"""Of a thread beside the sums: addresses, fragments, and the epilogue where the sums lie in tensor memory."""
EPILOGUE_COLUMNS = 64
"""Of a tile, that the epilogue holds in shared memory at a time."""
TENSOR_MEMORY_COLUMNS = 512
"""Of an SM's tensor memory, 128 lanes of 4 bytes each; a program that asks for more than is left waits."""


def gemm_shared_bytes(arch: Arch, config: LinearConfig, dtype: str) -> int:
    """Shared memory of a program, before a compiler has told: its stages, and a piece of the result on its way out.

    Warps that multiply from registers (HMMA) have one stage there.
    """
    stages = config.stages - (arch.matrix == "HMMA")
    alone = (
        config.split == 1 or config.rows == EPILOGUE_COLUMNS
    )  # else the piece takes the place of a stage that is done
    piece = config.tokens * EPILOGUE_COLUMNS if config.tma and alone else 0
    return (stages * (config.rows + config.tokens) * config.depth + piece) * ITEMSIZE[dtype]


def gemm_programs_per_sm(
    arch: Arch, config: LinearConfig, dtype: str, *, registers: int | None = None, shared: int | None = None
) -> int:
    """Programs that an SM holds at once; from the compiler's registers and shared bytes where they are known."""
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
    # Flattened, the loop begins a tile's sums while the epilogue still reads those of the tile before.
    columns = config.rows * -(-config.tokens // 128) * (2 if config.split == 1 else 1)
    return min(blocks, TENSOR_MEMORY_COLUMNS // columns)


def predict_gemm(config: LinearConfig, gpu: Gpu, ctas: int, dtype: str, *, tokens: int, n: int, k: int) -> Prediction:
    """Time of y[tokens, n] = x[tokens, k] · W[n, k]ᵀ where an SM holds `ctas` programs."""
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
    ahead = in_flight * (config.rows + config.tokens) / config.rows  # of x as many stages as of W
    loading = loaded / (
        PORT_BYTES_PER_SECOND * bandwidth_saturation(ahead / (PORT_BYTES_PER_SECOND * MEMORY_LATENCY_SECONDS))
    )
    area = config.rows * config.tokens
    peak = PEAK_EFFICIENCY * gpu.flops_per_second[dtype] / sms
    fed = area / (area + BALANCED_INTENSITY * (config.rows + config.tokens))
    multiplying = 2 * area * steps * config.depth / (peak * fed)
    storing = MEMORY_LATENCY_SECONDS + area * itemsize / PORT_BYTES_PER_SECOND
    # Where an SM holds several programs, or loads run on under the epilogue, only the last tile's is waited for.
    overlapped = here > 1 or (config.tma and config.split == 1)
    tile = (loading**4 + multiplying**4) ** 0.25  # two limits that are near each other cost more than either
    busiest = rounds * tile + (1 if overlapped else rounds) * storing
    last = 4 * config.split * area / PORT_BYTES_PER_SECOND
    reduction = REDUCTION_SECONDS + last if config.split > 1 else 0.0
    return Prediction(LAUNCH_SECONDS + max(memory, busiest) + reduction, here, in_flight, need)
