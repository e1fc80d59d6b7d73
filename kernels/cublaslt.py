"""The strongest rival: y[tokens, n] = x[tokens, k] · W[n, k]ᵀ by the fastest of what cuBLASLt's heuristics propose.

cuBLAS behind torch takes the proposal that stands first. Here the first call at a size asks for 32, looks at each one
that is right, halves them by further looks, times the last few as the suites time a cold case, and keeps the fastest
for the process.
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

# The fastest of many candidates by successive halving: a first look at all of them, the last few timed in full.

HALVING_ROUNDS = ((2, 8), (6, 3))
"""Replays of a look at each candidate, and how many of them are kept after it: a look costs a tenth of samples."""
VISIT_SHARE = 0.25
"""Part of a visit's time for each candidate that is left."""

CandidateType = TypeVar("CandidateType")


class HalvingResult(NamedTuple, Generic[CandidateType]):
    """The fastest, how many were timed in full beside it, and how many could be used at all."""

    best: CandidateType
    timed: int
    correct: int


class SuccessiveHalving(Generic[CandidateType]):
    """A search among candidates.

    Args:
        candidates: in the order of their promise.
        check: raises where a candidate is wrong or cannot run.
        name: what a failure calls a candidate.

    Attributes:
        failures: a line for each that cannot be used.
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
        """The first that is right, untimed; None where none is."""
        return next((one for one in self._candidates if self._succeeds(one, self._check)), None)

    def fastest(
        self, device: Device, calls: Callable[[CandidateType], Sequence[Call]]
    ) -> HalvingResult[CandidateType] | None:
        """The one with the least mean of those timed in full; None where none can be used.

        Args:
            device: where they run.
            calls: a candidate's calls, in turn through cold copies.
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
        """By promise: each further look orders what the one before has kept; the others stay behind them."""
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
        """Whether it did without an error: whatever one candidate raises, another may do."""
        try:
            do(one)
        except Exception as error:
            self.failures.append(f"{self._name(one)}: {type(error).__name__}: {error}".split("\n")[0])
            return False
        return True


WORKSPACE_BYTES = 32 * 2**20
CUDA_TYPES = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14}
"""`cudaDataType_t`; its CUDA_R_32F is the type of the scales too."""
COMPUTE_32F = 68
"""`cublasComputeType_t`: sums in fp32, and fp32 operands are not rounded to TF32."""
OP_TRANSPOSE = 1
"""`cublasOperation_t`."""
SCALE_ONE, SCALE_ZERO = np.ones(1, np.float32), np.zeros(1, np.float32)
"""The scales of product and old output: the library reads them from the host while it launches."""


@cache
def import_cublaslt() -> Any:
    """The bindings of cuBLASLt; they load the library that torch has loaded already."""
    from nvmath.bindings import cublasLt

    return cublasLt


@cache
def _handle() -> int:
    return int(import_cublaslt().create())


@cache
def _workspace() -> torch.Tensor:
    return torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=current_device().kind)


def missing() -> str | None:
    """One line where the bindings cannot be imported."""
    try:
        import_cublaslt()
    except Exception as error:  # a driver or an installation that does not fit raises more than ImportError
        return f"cublaslt_linear needs nvmath-python: pip install -c constraints.txt .[cublaslt] ({_error_line(error)})"
    return None


def _error_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


class Candidate(NamedTuple):
    """A proposal of the heuristics: its place among them from 1, its address, the workspace that it uses."""

    number: int
    address: int
    workspace_bytes: int


class CublasltMatmul:
    """The product at one size, as cuBLASLt sees it.

    The library counts by columns: rows of W[n, k] are columns of a k x n matrix, those of x and y likewise. So it is
    asked for y(n x tokens) = W(k x n)ᵀ · x(k x tokens), and nothing is moved.
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
        """Ask the heuristics, with 32 MiB of workspace and operands that start at multiples of 256 bytes."""
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
        """Launch on torch's current stream. A scale of zero for the old output means that it is not read."""
        y = out.data_ptr()
        import_cublaslt().matmul(
            _handle(), self._description,
            SCALE_ONE.ctypes.data, weight.data_ptr(), self._weight, x.data_ptr(), self._x,
            SCALE_ZERO.ctypes.data, y, self._out, y, self._out,
            candidate.address, _workspace().data_ptr(), WORKSPACE_BYTES, torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip


class ChosenAlgorithm(NamedTuple):
    """What a size is computed with from its second call on, and that in words."""

    run: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
    description: str


_CHOSEN_BY_SIZE: dict[tuple[int, int, int, torch.dtype], ChosenAlgorithm] = {}
_TIME_CANDIDATES = ContextVar("timed", default=True)
"""Whether a first call at a size times the candidates."""


def run(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """One product; the first at a size chooses the algorithm, and cannot be captured in a graph.

    Raises:
        UserError: operands that are strided, misaligned or do not fit together; a first call during capture.
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
    """Take the first proposal that is right, untimed, at sizes that are new within this: for tests of results alone.

    What was chosen so is forgotten at the end.
    """
    before, token = dict(_CHOSEN_BY_SIZE), _TIME_CANDIDATES.set(False)
    try:
        yield
    finally:
        _TIME_CANDIDATES.reset(token)
        _CHOSEN_BY_SIZE.clear()
        _CHOSEN_BY_SIZE.update(before)


def _choose_algorithm(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> ChosenAlgorithm:
    """Take the fastest candidate of those that are right, cold.

    Raises:
        UserError: during capture.
        RuntimeError: none is right.
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
    """The best candidate and how it was found; None and what is wrong with each where none can be used."""
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
    if not error <= limit:  # NaN is no less than anything
        raise RuntimeError(f"relative error {error:.3g} is over {limit:g}")


def _cold_copies(weight: torch.Tensor) -> list[torch.Tensor]:
    """Weights that rotate through 32x the L2, fewer where memory is short; the given one where no second fits."""
    device = replace(current_device())  # a fresh one measures again how much memory is free
    count = device.cold_copies(weight.nbytes)
    if count < 2:
        return [weight]
    dtype = dtype_name(weight, "cublaslt_linear")
    pool = TensorPool(device, {dtype: weight.nbytes})
    return [pool.weight(*weight.shape, dtype=dtype) for _ in range(count)]


def configuration(*, arch: str, dtype: str, tokens: int, n: int, k: int) -> str:
    """The algorithm that was chosen, once a call has."""
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
