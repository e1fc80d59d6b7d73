"""References, work and refusals of every kernel, by hand on tiny cases; no Triton runs here."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kernels import ceilings, linear
from kernels.ceilings import TORCH_COPY, TORCH_LAUNCH, TORCH_READ, TRITON_EMPTY, TRITON_READ
from kernels.configs.config import LinearConfig
from kernels.gemm import TRITON_GEMM
from kernels.kernel import RandomTensors
from kernels.linear import TORCH_LINEAR
from kernels.registry import LINEARS
from kernels.registry import select_linear as pick
from kernels.skinny import TRITON_SKINNY, TRITON_SKINNY_PDL
from kernels.skinny import launch as run_skinny
from specs.errors import UserError
from specs.roofline import Work

ON_CPU = [
    (TORCH_LINEAR, {"tokens": 3, "n": 65, "k": 130}),
    (TORCH_READ, {"elements": 100_003}),
    (TORCH_COPY, {"elements": 1001}),
    (TORCH_LAUNCH, {}),
]
CASES = [
    pytest.param(kernel, shape, dtype, id=f"{kernel.name}-{dtype}") for kernel, shape in ON_CPU for dtype in kernel.rtol
]


def test_linear_reference_is_the_product_by_hand():
    x, weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0], [9.0, 10.0]])
    # row 0: 5 + 12, 7 + 16, 9 + 20; row 1: 15 + 24, 21 + 32, 27 + 40
    assert linear.reference(x, weight).tolist() == [[17, 23, 29], [39, 53, 67]]


def test_linear_reference_agrees_with_numpy_over_several_slices():
    x, weight = torch.randn(1, 2**22), torch.randn(9, 2**22)  # 2^25 / 2^22: slices of eight rows, then one
    expected = x.numpy().astype(np.float64) @ weight.numpy().astype(np.float64).T
    np.testing.assert_allclose(linear.reference(x, weight).numpy(), expected, rtol=1e-9)


def test_read_references_by_hand():
    buffer = torch.arange(10, dtype=torch.float32)
    assert ceilings.block_sums(buffer, 4).tolist() == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7, 8 + 9]
    assert ceilings.torch_read_reference(buffer).tolist() == [45]
    assert ceilings.triton_read_reference(torch.ones(4097)).tolist() == [4096, 1]  # 16 KiB of fp32, and one more


def test_copy_and_launch_references_are_the_input():
    assert ceilings.copy_reference(torch.tensor([1.5, -2.0])).tolist() == [1.5, -2.0]
    assert ceilings.launch_reference(torch.tensor([-3.0])).tolist() == [-3.0]


@pytest.mark.parametrize(
    ("kernel", "shape", "expected"),
    [
        # W 4096 x 1024, x 8 x 1024, y 8 x 4096, 2 bytes each; a multiply and an add for each of 8 x 4096 x 1024
        (TORCH_LINEAR, {"tokens": 8, "n": 4096, "k": 1024}, Work(67_108_864, 2 * (4_194_304 + 8192 + 32_768))),
        (TRITON_SKINNY, {"tokens": 1, "n": 2, "k": 3}, Work(12, 2 * (6 + 3 + 2))),
        (TRITON_GEMM, {"tokens": 5, "n": 2, "k": 3}, Work(60, 2 * (6 + 15 + 10))),
        (TORCH_READ, {"elements": 1000}, Work(1000, 2000)),
        (TRITON_READ, {"elements": 1000}, Work(1000, 2000)),
        (TORCH_COPY, {"elements": 1000}, Work(0, 4000)),
        (TORCH_LAUNCH, {}, Work(1, 6)),
        (TRITON_EMPTY, {}, Work(0, 0)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_work_by_hand(kernel, shape, expected):
    assert kernel.work(**shape, dtype="bf16") == expected


@pytest.mark.parametrize(("kernel", "shape", "dtype"), CASES)
def test_torch_kernels_on_cpu(kernel, shape, dtype):
    inputs = kernel.inputs(RandomTensors(1), **shape, dtype=dtype)
    assert math.isnan(kernel.relative_error(inputs)), "unwritten output must show"
    kernel.run(**inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol[dtype]


@pytest.mark.parametrize(("kernel", "shape", "dtype"), CASES)
def test_a_wrong_torch_kernel_is_caught(kernel, shape, dtype):
    inputs = kernel.inputs(RandomTensors(2), **shape, dtype=dtype)
    kernel.run(**inputs)
    inputs["out"] *= 1.05
    assert kernel.relative_error(inputs) > kernel.rtol[dtype]


def test_one_unread_element_in_a_hundred_is_caught():
    inputs = TORCH_READ.inputs(RandomTensors(3), elements=100_000, dtype="fp32")
    TORCH_READ.run(inputs["buffer"][:-1000], inputs["out"])
    assert TORCH_READ.relative_error(inputs) > TORCH_READ.rtol["fp32"]


def test_launch_reads_what_the_call_before_wrote():
    inputs = TORCH_LAUNCH.inputs(RandomTensors(4), dtype="fp32")
    inputs["out"] = inputs["x"] + 1
    TORCH_LAUNCH.run(**inputs)
    assert inputs["out"] == inputs["x"] + 1


def test_a_kernel_that_is_not_empty_is_caught():
    inputs = TRITON_EMPTY.inputs(RandomTensors(5), dtype="fp32")
    assert TRITON_EMPTY.relative_error(inputs) == 0
    inputs["out"] += 1
    assert TRITON_EMPTY.relative_error(inputs) > TRITON_EMPTY.rtol["fp32"]


@pytest.mark.parametrize("tokens", [1, 4, 5, 64, 65, 4096])
def test_every_token_count_is_served_once(tokens):
    for implementation in ("torch", "cublaslt", "triton"):
        fitting = [one for one in LINEARS if one.implementation == implementation and tokens in one.tokens]
        assert fitting == [pick(implementation, tokens)]


def test_unknown_linears_are_refused():
    with pytest.raises(UserError, match=r"'cublas'.*torch, cublaslt, triton"):
        pick("cublas", 1)
    with pytest.raises(UserError, match="0 tokens"):
        pick("triton", 0)


def test_why_not_names_the_obstacle():
    assert TRITON_SKINNY.why_not("sm_90", "bf16") is None
    assert TORCH_LINEAR.why_not("cpu", "fp32") is None
    reason = TRITON_SKINNY.why_not("cpu", "bf16")
    assert "this is cpu" in reason
    assert "sm_80" in reason
    assert TORCH_READ.why_not("cpu", "fp16") == "fp16 is not among the dtypes of torch_read: fp32, bf16"


GOOD = {"x": torch.zeros(2, 8), "weight": torch.zeros(4, 8), "out": torch.zeros(2, 4)}


@pytest.mark.parametrize("kernel", [TRITON_SKINNY, TRITON_SKINNY_PDL, TRITON_GEMM], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"x": torch.zeros(8, 2).t()}, r"x has shape \(2, 8\) and strides \(1, 2\).*contiguous\(\)"),
        ({"weight": torch.zeros(4, 16)[:, :8]}, r"weight has .* strides \(16, 1\)"),
        ({"out": torch.zeros(4, 2).t()}, "out has shape"),
        ({"weight": torch.zeros(4, 9)}, "do not belong together"),
        ({"x": torch.zeros(8)}, r"x has shape \(8,\).*two dimensions"),
        ({"out": torch.zeros(2, 5)}, "do not belong together"),
        ({"x": torch.zeros(2, 8, dtype=torch.float16)}, "convert them to one dtype"),
    ],
)
def test_operands_that_would_touch_foreign_memory_are_refused(kernel, fault, message):
    with pytest.raises(UserError, match=message):
        kernel.run(**(GOOD | fault))


def test_skinny_refuses_more_tokens_than_it_is_made_for():
    with pytest.raises(UserError, match=r"65 tokens.*1 to 64.*triton_gemm"):
        TRITON_SKINNY.run(torch.zeros(65, 8), torch.zeros(4, 8), torch.zeros(65, 4))
    with pytest.raises(UserError, match=r"float64; triton_skinny takes fp32, bf16, fp16"):
        TRITON_SKINNY.run(*(torch.zeros(shape, dtype=torch.float64) for shape in ((1, 8), (4, 8), (1, 4))))
    narrow = LinearConfig(4, 2, 64, 1, 4, 1, matrix=False)
    with pytest.raises(UserError, match=r"3 tokens.*holds 2.*multiply-add 4x2x64"):
        run_skinny(torch.zeros(3, 8), torch.zeros(4, 8), torch.zeros(3, 4), narrow)


def planted(outputs, reference):
    return replace(TORCH_COPY, outputs=outputs, reference=reference)


def test_the_worst_of_several_outputs_counts_and_one_that_is_not_written_gives_nan():
    two = planted(("out", "key"), lambda source: (source, 2 * source))
    source = torch.tensor([3.0, 4.0])
    assert two.relative_error({"source": source, "out": source, "key": 2 * source}) == 0
    assert two.relative_error({"source": source, "out": source, "key": 3 * source}) == 0.5
    assert math.isnan(two.relative_error({"source": source, "out": torch.full((2,), math.nan), "key": 3 * source}))


def test_an_output_without_a_reference_is_no_check():
    both = planted(("out", "key"), lambda source: source)
    with pytest.raises(ValueError, match="shorter"):
        both.relative_error(dict.fromkeys(("source", "out", "key"), torch.ones(2)))
