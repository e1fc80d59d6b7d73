"""The fastest linear of cuBLASLt: the best algorithm that its heuristics propose.

It computes y[tokens, n] = x[tokens, k] · W[n, k]ᵀ. cuBLAS behind torch takes the first proposal. Here the first call at
a size asks for 32 proposals and discards wrong ones. Quick timings halve the rest, and the last few are timed as the
suites time a cold case. The process keeps the fastest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache, partial
from math import inf
from statistics import fmean
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from kernels.compile import TRITON_ARCHS
from kernels.kernel import TORCH_DTYPES
from kernels.linear import RTOL, TORCH_LINEAR
from kernels.operands import check_operands, dtype_name
from kernels.timing.cuda import CudaTimer, QuickTiming
from kernels.timing.device import Device, current_device
from kernels.timing.host import Call
from kernels.timing.pool import ALIGNMENT, TensorPool
from specs.errors import UserError
from specs.layer import CUBLASLT_CANDIDATES

# Successive halving: a quick timing of all candidates, then a full timing of the last few.

HALVING_ROUNDS = ((2, 8), (6, 3))
"""Replays of each quick timing, and candidates kept after it.

A quick timing costs a tenth of samples.
"""
VISIT_SHARE = 0.25
"""Share of a visit's time for each remaining candidate."""

CandidateType = TypeVar("CandidateType")


class HalvingResult(NamedTuple, Generic[CandidateType]):
    """The fastest candidate, and how many were timed in full and could be used."""

    best: CandidateType
    timed: int
    correct: int


class SuccessiveHalving(Generic[CandidateType]):
    """A search among candidates.

    Args:
        candidates: candidates in the order of their ranking.
        check: raises where a candidate is wrong or cannot run.
        name: gives a candidate's name for failures.

    Attributes:
        failures: one line for each unusable candidate.
    """

    def __init__(
        self,
        candidates: Sequence[CandidateType],
        check: Callable[[CandidateType], object],
        name: Callable[[CandidateType], str],
    ) -> None:
        self._candidates, self._check, self._name = candidates, check, name
        self.failures: list[str] = []

    def first_correct(self) -> CandidateType | None:
        """Return the first correct candidate, untimed; None without any."""
        return next((one for one in self._candidates if self._succeeds(one, self._check)), None)

    def fastest(
        self, device: Device, calls: Callable[[CandidateType], Sequence[Call]]
    ) -> HalvingResult[CandidateType] | None:
        """Return the fastest mean of the candidates timed in full; None without any.

        Args:
            device: device that they run on.
            calls: gives a candidate's calls, in turn through cold copies.
        """
        looks: dict[CandidateType, QuickTiming] = {}

        def look(one: CandidateType) -> None:
            self._check(one)
            looks[one] = QuickTiming(calls(one))

        for one in self._candidates:
            self._succeeds(one, look)
        means: dict[CandidateType, float] = {}

        def time(one: CandidateType) -> None:
            timer = CudaTimer(device, "graph")
            timer.warm_up(calls(one), min(means.values(), default=None))
            means[one] = fmean(timer.sample(VISIT_SHARE).seconds)

        for one in self._ranked(looks):
            if len(means) < HALVING_ROUNDS[-1][1]:
                self._succeeds(one, time)
        return HalvingResult(min(means, key=means.__getitem__), len(means), len(looks)) if means else None

    def _ranked(self, looks: Mapping[CandidateType, QuickTiming]) -> list[CandidateType]:
        """Return candidates by promise, reordered by each further quick timing.

        A further quick timing covers only candidates that the previous one kept; dropped candidates stay behind.
        """
        ranked, kept = list(looks), len(looks)
        for replays, left in HALVING_ROUNDS:
            if kept <= HALVING_ROUNDS[-1][1]:
                break
            seconds = {one: self._look_seconds(one, looks[one], replays) for one in ranked[:kept]}
            ranked[:kept] = sorted(seconds, key=seconds.__getitem__)
            kept = min(kept, left)
        return ranked

    def _look_seconds(self, one: CandidateType, look: QuickTiming, replays: int) -> float:
        found = [inf]
        self._succeeds(one, lambda _: found.append(look.seconds(replays)))
        return found[-1]

    def _succeeds(self, one: CandidateType, do: Callable[[CandidateType], object]) -> bool:
        """Return whether `do` succeeded; any error of one candidate is kept as a failure."""
        try:
            do(one)
        except Exception as error:
            self.failures.append(f"{self._name(one)}: {type(error).__name__}: {error}".split("\n")[0])
            return False
        return True


WORKSPACE_BYTES = 32 * 2**20
CUDA_TYPES = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14}
"""`cudaDataType_t` by torch dtype; the scales have CUDA_R_32F too."""
COMPUTE_32F = 68
"""`cublasComputeType_t`: sums in fp32, without rounding fp32 operands to TF32."""
OP_TRANSPOSE = 1
"""`cublasOperation_t` for a transpose."""
SCALE_ONE, SCALE_ZERO = np.ones(1, np.float32), np.zeros(1, np.float32)
"""Scales of product and old output; the library reads them on the host at launch."""


@cache
def import_cublaslt() -> Any:
    """Return the bindings of cuBLASLt; they load the library that torch has loaded."""
    from nvmath.bindings import cublasLt

    return cublasLt


@cache
def _handle() -> int:
    return int(import_cublaslt().create())


@cache
def _workspace() -> torch.Tensor:
    return torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=current_device().kind)


def missing() -> str | None:
    """Return one line where the bindings cannot be imported; None where they can."""
    try:
        import_cublaslt()
    except Exception as error:  # a driver or installation that does not fit raises more than ImportError
        return f"cublaslt_linear needs nvmath-python: pip install -c constraints.txt .[cublaslt] ({_error_line(error)})"
    return None


def _error_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


class Candidate(NamedTuple):
    """A proposal of the heuristics: its rank from 1, its address, its workspace."""

    number: int
    address: int
    workspace_bytes: int


class CublasltMatmul:
    """The product at one size, as cuBLASLt sees it.

    The library is column-major: rows of W[n, k] are columns of a k x n matrix, and so are rows of x and y. It is
    therefore asked for y(n x tokens) = W(k x n)ᵀ · x(k x tokens), and nothing is moved.
    """

    def __init__(self, tokens: int, n: int, k: int, dtype: torch.dtype) -> None:
        lt, kind = import_cublaslt(), CUDA_TYPES[dtype]
        self._description = lt.matmul_desc_create(COMPUTE_32F, CUDA_TYPES[torch.float32])
        self._weight = lt.matrix_layout_create(kind, k, n, k)
        self._x = lt.matrix_layout_create(kind, k, tokens, k)
        self._out = lt.matrix_layout_create(kind, n, tokens, n)
        transposed = lt.MatmulDescAttribute.TRANSA
        value = np.array([OP_TRANSPOSE], lt.get_matmul_desc_attribute_dtype(transposed))
        lt.matmul_desc_set_attribute(self._description, int(transposed), value.ctypes.data, value.itemsize)
        self._proposed = np.zeros(CUBLASLT_CANDIDATES, lt.matmul_heuristic_result_dtype)

    def candidates(self) -> list[Candidate]:
        """Ask the heuristics for algorithms.

        They may use 32 MiB of workspace and operands that start at multiples of 256 bytes.
        """
        lt, count = import_cublaslt(), np.zeros(1, np.int32)
        preference, most = lt.matmul_preference_create(), lt.MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES
        value = np.array([WORKSPACE_BYTES], lt.get_matmul_preference_attribute_dtype(most))
        try:
            lt.matmul_preference_set_attribute(preference, int(most), value.ctypes.data, value.itemsize)
            lt.matmul_algo_get_heuristic(
                _handle(), self._description, self._weight, self._x, self._out, self._out, preference,
                CUBLASLT_CANDIDATES, self._proposed.ctypes.data, count.ctypes.data,
            )  # fmt: skip
        finally:
            lt.matmul_preference_destroy(preference)
        first = self._proposed.ctypes.data + self._proposed.dtype.fields["algo"][1]
        return [
            Candidate(index + 1, first + index * self._proposed.itemsize, int(one["workspace_size"]))
            for index, one in enumerate(self._proposed[: int(count[0])])
            if one["state"] == 0
        ]

    def run(self, candidate: Candidate, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        """Launch on torch's current stream.

        A scale of zero means that the old output is not read.
        """
        y = out.data_ptr()
        import_cublaslt().matmul(
            _handle(), self._description,
            SCALE_ONE.ctypes.data, weight.data_ptr(), self._weight, x.data_ptr(), self._x,
            SCALE_ZERO.ctypes.data, y, self._out, y, self._out,
            candidate.address, _workspace().data_ptr(), WORKSPACE_BYTES, torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip


class ChosenAlgorithm(NamedTuple):
    """Algorithm of a size from its second call on, and its description."""

    run: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
    description: str


_CHOSEN_BY_SIZE: dict[tuple[int, int, int, torch.dtype], ChosenAlgorithm] = {}
_TIME_CANDIDATES = ContextVar("timed", default=True)
"""True where a first call at a size times the candidates."""


def run(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """Run one product; the first call at a size chooses the algorithm.

    The first call cannot be captured in a graph.

    Raises:
        UserError: operands that are strided, misaligned or of mismatched shapes; a first call during capture.
        RuntimeError: no candidate gives a right result.
    """
    tokens, n, k = check_operands(x, weight, out)
    for name, tensor in {"x": x, "weight": weight, "out": out}.items():
        if tensor.data_ptr() % ALIGNMENT:
            raise UserError(
                f"{name} starts {tensor.data_ptr() % ALIGNMENT} bytes past a multiple of {ALIGNMENT}; the algorithms "
                f"that cublaslt_linear is given need one: pass {name}.clone()"
            )
    size = (tokens, n, k, x.dtype)
    if size not in _CHOSEN_BY_SIZE:
        _CHOSEN_BY_SIZE[size] = _choose_algorithm(x, weight, out)
    _CHOSEN_BY_SIZE[size].run(x, weight, out)


@contextmanager
def take_first_correct() -> Iterator[None]:
    """Take the first correct proposal, untimed, at new sizes within this context.

    It is for tests that check only results. These choices are dropped at the end.
    """
    before, token = dict(_CHOSEN_BY_SIZE), _TIME_CANDIDATES.set(False)
    try:
        yield
    finally:
        _TIME_CANDIDATES.reset(token)
        _CHOSEN_BY_SIZE.clear()
        _CHOSEN_BY_SIZE.update(before)


def _choose_algorithm(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> ChosenAlgorithm:
    """Return the fastest correct candidate, timed cold.

    Raises:
        UserError: called during capture.
        RuntimeError: no candidate is correct.
    """
    if torch.cuda.is_current_stream_capturing():
        raise UserError("cublaslt_linear times its candidates in the first call at a size: call it before the capture")
    product = CublasltMatmul(x.shape[0], weight.shape[0], weight.shape[1], x.dtype)
    candidates = product.candidates()
    best, how = _search_algorithm(product, candidates, x, weight, out)
    torch.cuda.empty_cache()
    if best is None:
        raise RuntimeError(f"none of cuBLASLt's {len(candidates)} candidates can be used; {how}")
    proposed = f"algo {best.number} of {len(candidates)} proposed ({CUBLASLT_CANDIDATES} asked)"
    return ChosenAlgorithm(
        partial(product.run, best), f"{proposed}, {best.workspace_bytes / 1e6:.1f} MB workspace ({how})"
    )


def _search_algorithm(
    product: CublasltMatmul, candidates: Sequence[Candidate], x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor
) -> tuple[Candidate | None, str]:
    """Return the best candidate and the way it was found.

    Without a usable candidate return None and the failure of each.
    """
    expected = torch.mm(x, weight.t())
    search = SuccessiveHalving(
        candidates,
        lambda one: _check_candidate(product, one, x, weight, out, expected),
        lambda one: f"algo {one.number}",
    )
    if not _TIME_CANDIDATES.get():
        if first := search.first_correct():
            return first, "the first that is right, untimed"
    else:
        copies = _cold_copies(weight)
        if found := search.fastest(
            current_device(), lambda one: [partial(product.run, one, x, w, out) for w in copies]
        ):
            return found.best, f"fastest cold of {found.timed} timed in full, {found.correct} are right"
    return None, "; ".join(search.failures)


def _check_candidate(
    product: CublasltMatmul,
    candidate: Candidate,
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    expected: torch.Tensor,
) -> None:
    out.fill_(float("nan"))
    product.run(candidate, x, weight, out)
    judge = replace(TORCH_LINEAR, reference=lambda **_: expected)
    error, limit = judge.relative_error({"x": x, "weight": weight, "out": out}), RTOL[dtype_name(x, "cublaslt_linear")]
    if not error <= limit:  # fails for NaN too
        raise RuntimeError(f"relative error {error:.3g} is over {limit:g}")


def _cold_copies(weight: torch.Tensor) -> list[torch.Tensor]:
    """Return weights that rotate through 32x the L2, fewer where memory is short.

    Only the given weight is returned where no second copy fits.
    """
    device = replace(current_device())  # a new object measures again how much memory is free
    count = device.cold_copies(weight.nbytes)
    if count < 2:
        return [weight]
    dtype = dtype_name(weight, "cublaslt_linear")
    pool = TensorPool(device, {dtype: weight.nbytes})
    return [pool.weight(*weight.shape, dtype=dtype) for _ in range(count)]


def configuration(*, arch: str, dtype: str, tokens: int, n: int, k: int) -> str:
    """Return the chosen algorithm in words, once a call has chosen."""
    chosen = _CHOSEN_BY_SIZE.get((tokens, n, k, TORCH_DTYPES[dtype]))
    return chosen.description if chosen else f"heuristics not asked yet on {arch}"


CUBLASLT_LINEAR = replace(
    TORCH_LINEAR,
    name="cublaslt_linear",
    implementation="cublaslt",
    run=run,
    archs=TRITON_ARCHS,
    missing=missing,
    configuration=configuration,
)
