"""What cuBLASLt is asked, and which of its proposals wins: a library that keeps records stands in for it."""

import ctypes
import weakref
from enum import IntEnum

import numpy as np
import pytest
import torch

from kernels import cublaslt
from kernels.cublaslt import CUBLASLT_LINEAR
from kernels.timing.device import Device, SamplingLimits
from kernels.timing.host import TimerSamples
from kernels.timing.pool import TensorPool
from specs.errors import UserError

STREAM = 77
TOKENS, N, K = 3, 64, 32
PROPOSAL = np.dtype(
    [("algo", [("data_", "<u8", (8,))]), ("workspace_size", "<u8"), ("state", "<i4"), ("waves_count", "<f4"),
     ("reserved", "<i4", (4,))]
)  # fmt: skip


class Description(IntEnum):
    TRANSA = 3


class Preference(IntEnum):
    MAX_WORKSPACE_BYTES = 1


def _array(address, rows, columns):
    """Column-major numbers at an address, as the library sees them."""
    flat = (ctypes.c_float * (rows * columns)).from_address(address)
    return np.frombuffer(flat, np.float32).reshape(columns, rows).T


class Library:
    """nvmath.bindings.cublasLt for fp32 in host memory: every proposal computes, unless a fault is planted for it."""

    MatmulDescAttribute, MatmulPreferenceAttribute = Description, Preference
    matmul_heuristic_result_dtype = PROPOSAL

    def __init__(self):
        self.faults = {}
        self.states = [0, 0, 0, 0]
        self.layouts, self.set, self.matmuls, self.heuristics, self.living = {}, [], [], [], set()
        self.numbers = iter(range(1000, 10**6))

    def create(self):
        return 5

    def matmul_desc_create(self, compute, scale):
        self.types = (compute, scale)
        return 6

    def matrix_layout_create(self, kind, rows, columns, ld):
        self.layouts[number := next(self.numbers)] = (kind, rows, columns, ld)
        return number

    def matmul_preference_create(self):
        self.living.add(number := next(self.numbers))
        return number

    def matmul_preference_destroy(self, number):
        self.living.remove(number)

    def get_matmul_desc_attribute_dtype(self, attribute):
        return {Description.TRANSA: np.int32}[attribute]

    def get_matmul_preference_attribute_dtype(self, attribute):
        return {Preference.MAX_WORKSPACE_BYTES: np.uint64}[attribute]

    def matmul_desc_set_attribute(self, description, attribute, address, size):
        assert (description, size) == (6, 4)
        self.set.append((Description(attribute), ctypes.c_int32.from_address(address).value))

    def matmul_preference_set_attribute(self, preference, attribute, address, size):
        assert preference in self.living
        assert size == 8
        self.set.append((Preference(attribute), ctypes.c_uint64.from_address(address).value))

    def matmul_algo_get_heuristic(self, handle, description, a, b, c, d, preference, most, results, count):
        assert (handle, description) == (5, 6)
        assert preference in self.living
        self.heuristics.append(([self.layouts[one] for one in (a, b, c, d)], most))
        array = np.frombuffer((ctypes.c_char * (most * 96)).from_address(results), PROPOSAL)
        for number, state in enumerate(self.states):
            array[number]["algo"]["data_"][0] = number + 1
            array[number]["workspace_size"], array[number]["state"] = 1_000_000 * number, state
        ctypes.c_int32.from_address(count).value = len(self.states)

    def matmul(
        self, handle, description, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algo, workspace,
        workspace_bytes, stream,
    ):  # fmt: skip
        assert (handle, description, c, c_layout) == (5, 6, d, d_layout)
        number = ctypes.c_uint64.from_address(algo).value
        self.matmuls.append((number, workspace, workspace_bytes, stream))
        scales = [ctypes.c_float.from_address(one).value for one in (alpha, beta)]
        assert scales == [1.0, 0.0]
        _, *a_size, _ = self.layouts[a_layout]
        _, *b_size, _ = self.layouts[b_layout]
        _, *d_size, _ = self.layouts[d_layout]
        fault = self.faults.get(number)
        if fault == "raises":
            raise RuntimeError("an unsupported value or parameter was passed to the function")
        if fault != "unwritten":
            _array(d, *d_size)[:] = _array(a, *a_size).T @ _array(b, *b_size) * (1.001 if fault == "wrong" else 1)


@pytest.fixture
def library(monkeypatch):
    """The library, a GPU of 1 KiB of L2 with memory for `copies` weights, and nothing chosen yet."""
    one = Library()
    one.stream, one.capturing, one.emptied = STREAM, False, 0
    monkeypatch.setattr(cublaslt, "import_cublaslt", lambda: one)
    monkeypatch.setattr(cublaslt, "_CHOSEN_BY_SIZE", {})
    device = Device("cpu", "sm_90", 1024, SamplingLimits(1e-3, 30e-3, 0.005, 240.0))
    one.free = 2**40
    monkeypatch.setattr(Device, "free_bytes", lambda self: one.free)
    assert device.cold_bytes == 32 * 1024  # four weights of 64 x 32 x 4 bytes
    monkeypatch.setattr(cublaslt, "current_device", lambda: device)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: type("Stream", (), {"cuda_stream": one.stream}))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: one.capturing)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(one, "emptied", one.emptied + 1))
    cublaslt._handle.cache_clear()
    cublaslt._workspace.cache_clear()
    yield one
    cublaslt._handle.cache_clear()
    cublaslt._workspace.cache_clear()


@pytest.fixture
def timed(monkeypatch, library):
    """The clock: seconds by proposal, 4 > 2 > 3 > 1 unless a test says otherwise; notes looks and visits."""

    class Look:
        def __init__(self, calls):
            self.weights = set()
            for call in calls:
                call()
                self.weights.add(call.args[2].data_ptr())
            self.number = library.matmuls[-1][0]

        def seconds(self, replays):
            Timer.looks.append((self.number, replays, len(self.weights)))
            return Timer.promise.get(self.number, Timer.seconds[self.number] or 1e-9)

    class Timer:
        def __init__(self, device, launch):
            self.launch = launch

        def warm_up(self, calls, expected):
            self.expected, self.weights = expected, set()
            for call in calls:
                call()
                self.weights.add(call.args[2].data_ptr())

        def sample(self, share):
            number = library.matmuls[-1][0]
            Timer.visits.append((number, self.launch, len(self.weights), self.expected))
            if (seconds := self.seconds[number]) is None:
                raise RuntimeError("took no longer than")
            # Their mean is `seconds`, their median 0.9 of it for proposal 2
            return TimerSamples((seconds * 0.9, seconds * 0.9, seconds * 1.2) if number == 2 else (seconds,) * 3, 1)

    Timer.seconds, Timer.promise, Timer.visits, Timer.looks = {1: 4e-6, 2: 2e-6, 3: 3e-6, 4: 1e-6}, {}, [], []
    monkeypatch.setattr(cublaslt, "CudaTimer", Timer)
    monkeypatch.setattr(cublaslt, "QuickTiming", Look)
    return Timer


def tensors(tokens=TOKENS, n=N, k=K):
    """x, weight and out at multiples of 256 bytes, as a GPU's allocator places them."""

    def aligned(*shape):
        room = torch.randn(shape[0] * shape[1] + 64)
        start = -room.data_ptr() % 256 // 4
        return room[start : start + shape[0] * shape[1]].view(shape)

    return aligned(tokens, k), aligned(n, k), aligned(tokens, n).fill_(float("nan"))


def error(x, weight, out):
    return CUBLASLT_LINEAR.relative_error({"x": x, "weight": weight, "out": out})


def test_the_library_is_told_of_columns_where_torch_has_rows(library, timed):
    x, weight, out = tensors()
    CUBLASLT_LINEAR.run(x, weight, out)
    assert error(x, weight, out) < 1e-6
    # out(64 x 3) = weight(32 x 64)ᵀ · x(32 x 3); type 0 is fp32, and the leading dimension is a column's length
    weight_layout, x_layout, out_layout = (0, 32, 64, 32), (0, 32, 3, 32), (0, 64, 3, 64)
    assert library.heuristics == [([weight_layout, x_layout, out_layout, out_layout], 32)]
    assert library.types == (68, 0)  # CUBLAS_COMPUTE_32F, scales in fp32
    assert library.set == [(Description.TRANSA, 1), (Preference.MAX_WORKSPACE_BYTES, 33_554_432)]
    assert not library.living


@pytest.mark.parametrize(("dtype", "kind"), [(torch.bfloat16, 14), (torch.float16, 2), (torch.float32, 0)])
def test_every_dtype_adds_up_in_fp32(library, dtype, kind):
    cublaslt.CublasltMatmul(1, 8, 16, dtype)
    assert library.types == (68, 0)
    assert {layout[0] for layout in library.layouts.values()} == {kind}


def test_calls_go_to_torchs_current_stream_with_one_workspace_of_32_mib(library, timed):
    x, weight, out = tensors()
    CUBLASLT_LINEAR.run(x, weight, out)
    library.stream = 78
    CUBLASLT_LINEAR.run(x, weight, out)
    assert {stream for *_, stream in library.matmuls[:-1]} == {77}
    assert library.matmuls[-1][3] == 78
    workspace = cublaslt._workspace()
    assert workspace.nbytes == 32 * 2**20
    assert {call[1:3] for call in library.matmuls} == {(workspace.data_ptr(), 33_554_432)}


def test_the_least_cold_mean_wins_and_is_named(library, timed):
    x, weight, out = tensors()
    shape = {"tokens": TOKENS, "n": N, "k": K}
    assert CUBLASLT_LINEAR.configuration(arch="sm_90", dtype="fp32", **shape).startswith("heuristics not asked yet")
    CUBLASLT_LINEAR.run(x, weight, out)
    # 32 KiB of pool / 8 KiB of weight = 4 copies; the least so far is what the next is expected to take
    assert timed.looks == [(number, 2, 4) for number in (1, 2, 3, 4)] + [(number, 6, 4) for number in (4, 2, 3, 1)]
    assert timed.visits == [(4, "graph", 4, None), (2, "graph", 4, 1e-6), (3, "graph", 4, 1e-6)]
    assert library.matmuls[-1][0] == 4
    told = CUBLASLT_LINEAR.configuration(arch="sm_90", dtype="fp32", **shape)
    assert told == ("algo 4 of 4 proposed (32 asked), 3.0 MB workspace (fastest cold of 3 timed in full, 4 are right)")
    assert library.emptied == 1


def test_of_32_proposals_all_are_looked_at_eight_again_and_three_timed(library, timed):
    library.states = [0] * 32
    timed.seconds = {number: (60 - number) * 1e-7 for number in range(1, 33)}  # the fastest come last
    timed.promise = {30: 1e-9}  # as at a first look; timed in full it is third
    x, weight, out = tensors()
    CUBLASLT_LINEAR.run(x, weight, out)
    assert [replays for _, replays, _ in timed.looks] == [2] * 32 + [6] * 8
    assert {number for number, replays, _ in timed.looks if replays == 6} == {*range(25, 33)}
    assert [visit[0] for visit in timed.visits] == [30, 32, 31]
    assert library.matmuls[-1][0] == 32
    told = CUBLASLT_LINEAR.configuration(arch="sm_90", dtype="fp32", tokens=TOKENS, n=N, k=K)
    assert told.startswith("algo 32 of 32 proposed (32 asked), ")


def test_up_to_three_proposals_are_timed_without_a_look(library, timed):
    library.states = [0] * 3
    CUBLASLT_LINEAR.run(*tensors())
    assert not timed.looks
    assert [visit[0] for visit in timed.visits] == [1, 2, 3]


def test_where_results_alone_count_the_first_right_one_is_taken_untimed_and_forgotten(library, timed):
    library.faults[1] = "wrong"
    x, weight, out = tensors()
    with cublaslt.take_first_correct():
        CUBLASLT_LINEAR.run(x, weight, out)
        assert error(x, weight, out) < 1e-6
        assert library.matmuls[-1][0] == 2
        told = CUBLASLT_LINEAR.configuration(arch="sm_90", dtype="fp32", tokens=TOKENS, n=N, k=K)
        assert told == "algo 2 of 4 proposed (32 asked), 1.0 MB workspace (the first that is right, untimed)"
        library.faults = dict.fromkeys((1, 2, 3, 4), "raises")
        with pytest.raises(RuntimeError, match=r"none of .* 4 candidates can be used; algo 1: .*algo 4: "):
            CUBLASLT_LINEAR.run(*tensors(tokens=4))
    assert not timed.looks + timed.visits
    library.faults = {}
    CUBLASLT_LINEAR.run(x, weight, out)
    assert timed.visits
    assert library.matmuls[-1][0] == 4


def test_means_decide_not_medians(library, timed):
    timed.seconds = {1: 4e-6, 2: 2e-6, 3: 1.9e-6, 4: 3e-6}  # the median of proposal 2 is 1.8e-6
    x, weight, out = tensors()
    CUBLASLT_LINEAR.run(x, weight, out)
    assert library.matmuls[-1][0] == 3


@pytest.mark.parametrize("fault", ["wrong", "raises", "unwritten"])
def test_a_proposal_that_is_wrong_or_fails_never_wins(library, timed, fault):
    library.faults[4] = fault
    x, weight, out = tensors()
    CUBLASLT_LINEAR.run(x, weight, out)
    assert {visit[0] for visit in timed.visits} == {1, 2, 3}
    assert library.matmuls[-1][0] == 2
    assert error(x, weight, out) < 1e-6
    told = CUBLASLT_LINEAR.configuration(arch="sm_90", dtype="fp32", tokens=3, n=64, k=32)
    assert "fastest cold of 3 timed in full, 3 are right" in told


def test_a_proposal_that_cannot_be_timed_never_wins(library, timed):
    timed.seconds = {**timed.seconds, 4: None}
    x, weight, out = tensors()
    CUBLASLT_LINEAR.run(x, weight, out)
    assert [visit[0] for visit in timed.visits] == [4, 2, 3, 1], "the next in promise takes its place"
    assert library.matmuls[-1][0] == 2


def test_a_proposal_that_the_heuristics_call_invalid_is_not_tried(library, timed):
    library.states = [0, 15, 0, 0]
    x, weight, out = tensors()
    CUBLASLT_LINEAR.run(x, weight, out)
    assert {visit[0] for visit in timed.visits} == {1, 3, 4}
    told = CUBLASLT_LINEAR.configuration(arch="sm_90", dtype="fp32", tokens=3, n=64, k=32)
    assert told.startswith("algo 4 of 3 proposed (32 asked), ")


def test_when_none_is_right_each_ones_reason_is_told_and_nothing_is_kept(library, timed):
    library.faults = {1: "wrong", 2: "raises", 3: "unwritten", 4: "raises"}
    with pytest.raises(
        RuntimeError, match=r"none of cuBLASLt's 4 .*algo 1: .*error 0.001 is over 2e-05; algo 2: .*nan"
    ):
        CUBLASLT_LINEAR.run(*tensors())
    assert not cublaslt._CHOSEN_BY_SIZE
    assert library.emptied == 1


def test_the_second_call_asks_times_and_allocates_nothing(library, timed, monkeypatch):
    x, weight, out = tensors()
    CUBLASLT_LINEAR.run(x, weight, out)
    visits, calls, layouts = len(timed.visits), len(library.matmuls), len(library.layouts)
    for maker in ("empty", "zeros", "empty_like", "mm"):
        monkeypatch.setattr(torch, maker, lambda *_, **__: pytest.fail("allocates"))
    library.capturing = True
    out.fill_(float("nan"))
    CUBLASLT_LINEAR.run(x, weight, out)
    assert (len(timed.visits), len(library.matmuls), len(library.layouts)) == (visits, calls + 1, layouts)
    assert len(library.heuristics) == 1
    assert not out.isnan().any()


def test_every_size_has_its_own_choice(library, timed):
    CUBLASLT_LINEAR.run(*tensors())
    timed.seconds = {1: 1e-6, 2: 2e-6, 3: 3e-6, 4: 4e-6}
    CUBLASLT_LINEAR.run(*tensors(tokens=4))
    CUBLASLT_LINEAR.run(*tensors())
    assert [library.matmuls[-1][0], len(library.heuristics)] == [4, 2]
    assert CUBLASLT_LINEAR.configuration(arch="sm_90", dtype="fp32", tokens=4, n=64, k=32).startswith("algo 1 of 4")


def test_where_memory_is_short_fewer_copies_rotate_and_at_last_only_the_given_one(library, timed, monkeypatch):
    library.free = 8 * 2 * 8192  # an eighth of it is two weights
    CUBLASLT_LINEAR.run(*tensors())
    assert {copies for _, _, copies, _ in timed.visits} == {2}
    library.free = 8 * 8192
    monkeypatch.setattr(cublaslt, "TensorPool", lambda *_: pytest.fail("allocates"))
    CUBLASLT_LINEAR.run(*tensors(tokens=4))
    assert timed.visits[-1][2] == 1


def test_the_copies_are_gone_before_memory_is_given_back(library, timed, monkeypatch):
    copies, alive = [], []

    class Noting(TensorPool):
        def weight(self, *shape, dtype):
            copies.append(weakref.ref(one := super().weight(*shape, dtype=dtype)))
            return one

    monkeypatch.setattr(cublaslt, "TensorPool", Noting)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.extend(ref() for ref in copies))
    CUBLASLT_LINEAR.run(*tensors())
    assert alive == [None] * 4


def test_a_first_call_during_capture_is_refused(library, timed):
    library.capturing = True
    with pytest.raises(UserError, match="before the capture"):
        CUBLASLT_LINEAR.run(*tensors())


def test_misaligned_and_strided_operands_are_refused(library, timed):
    x, weight, out = tensors()
    with pytest.raises(UserError, match=r"x starts 128 bytes past a multiple of 256; .*pass x\.clone"):
        CUBLASLT_LINEAR.run(x[1:], weight, out[1:])
    with pytest.raises(UserError, match=r"weight .*strides"):
        CUBLASLT_LINEAR.run(x, weight.t().contiguous().t(), out)
    assert not library.matmuls


def test_without_the_bindings_one_line_says_how_to_get_them(monkeypatch):
    def absent():
        raise ModuleNotFoundError("No module named 'nvmath'\nand more")

    monkeypatch.setattr(cublaslt, "import_cublaslt", absent)
    reason = CUBLASLT_LINEAR.why_not("sm_90", "bf16")
    assert "nvmath-python: pip install -c constraints.txt .[cublaslt] (ModuleNotFoundError: No module" in reason
    assert "\n" not in reason
    assert "this is cpu" in CUBLASLT_LINEAR.why_not("cpu", "bf16")
    monkeypatch.setattr(cublaslt, "import_cublaslt", Library)
    assert CUBLASLT_LINEAR.why_not("sm_90", "bf16") is None


def test_the_real_bindings_have_these_names_and_values():
    """Needs the package and no GPU: the library itself is loaded by the first call only."""
    lt = pytest.importorskip("nvmath.bindings.cublasLt", reason="nvmath-python is not installed")
    cublas, types = pytest.importorskip("nvmath.bindings.cublas"), pytest.importorskip("nvmath").CudaDataType
    for dtype, name in {torch.float32: "32F", torch.float16: "16F", torch.bfloat16: "16BF"}.items():
        assert cublaslt.CUDA_TYPES[dtype] == types[f"CUDA_R_{name}"]
    assert (cublaslt.COMPUTE_32F, cublaslt.OP_TRANSPOSE) == (cublas.ComputeType.COMPUTE_32F, cublas.Operation.T)
    real = lt.matmul_heuristic_result_dtype
    assert (real.itemsize, {name: real.fields[name][1] for name in real.names}) == (
        PROPOSAL.itemsize,
        {name: PROPOSAL.fields[name][1] for name in PROPOSAL.names},
    )
    assert lt.get_matmul_desc_attribute_dtype(lt.MatmulDescAttribute.TRANSA) is np.int32
    assert lt.get_matmul_preference_attribute_dtype(lt.MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES) is np.uint64
    assert int(lt.MatmulDescAttribute.TRANSA) == Description.TRANSA
    assert int(lt.MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES) == Preference.MAX_WORKSPACE_BYTES
    for call in ("matmul", "matmul_algo_get_heuristic", "matrix_layout_create", "matmul_desc_create"):
        names = getattr(Library, call).__code__.co_varnames[1 : getattr(Library, call).__code__.co_argcount]
        (line,) = getattr(lt, call).__doc__.splitlines()[:1]
        assert line.count(",") + 1 == len(names), line
