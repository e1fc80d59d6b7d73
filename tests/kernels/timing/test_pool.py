"""Cold means other addresses: every weight is the next window of a buffer larger than the caches."""

from itertools import pairwise

import torch

from kernels.timing.device import SAMPLING_LIMITS, Device
from kernels.timing.pool import ALIGNMENT, ByteCounter, TensorPool

DEVICE = Device("cpu", "cpu", 2**16, SAMPLING_LIMITS["cpu"])


def test_successive_weights_lie_side_by_side_and_wrap_at_the_end():
    pool = TensorPool(DEVICE, {"fp32": 0})  # 32 x 64 KiB = 2 MiB
    first, second, third = (pool.weight(100, 1000, dtype="fp32") for _ in range(3))
    assert second.data_ptr() - first.data_ptr() == -(-first.nbytes // ALIGNMENT) * ALIGNMENT
    assert third.data_ptr() == second.data_ptr() + (second.data_ptr() - first.data_ptr())
    rest = [pool.weight(100, 1000, dtype="fp32").data_ptr() for _ in range(3)]
    assert rest[2] == first.data_ptr()  # 5 windows of 400 KB fit 2 MiB
    assert len({first.data_ptr(), second.data_ptr(), third.data_ptr(), *rest}) == 5


def test_windows_are_aligned_for_wide_loads():
    pool = TensorPool(DEVICE, {"bf16": 0})
    offsets = [pool.weight(3, 5, dtype="bf16").data_ptr() for _ in range(4)]
    assert len({offset % ALIGNMENT for offset in offsets}) == 1


def test_a_weight_larger_than_the_caches_makes_the_buffer_grow():
    pool = TensorPool(DEVICE, {"fp32": 3 * 2**20})
    assert pool.weight(3, 2**18, dtype="fp32").shape == (3, 2**18)


def test_every_value_is_random_and_none_is_missing():
    pool = TensorPool(DEVICE, {"fp32": 5 * 2**24})
    whole = pool.weight(5 * 2**22, dtype="fp32")
    assert abs(float(whole.mean())) < 0.01
    assert abs(float(whole.std()) - 1) < 0.01
    assert float((whole == 0).double().mean()) < 1e-5


def test_activations_and_outputs_are_one_tensor_for_all_calls_of_a_case():
    pool = TensorPool(DEVICE, {"fp32": 0})
    x, out = pool.activation(2, 8, dtype="fp32"), pool.output(2, 8, dtype="fp32")
    assert pool.activation(2, 8, dtype="fp32") is x
    assert torch.isnan(out).all()
    out.zero_()
    assert pool.output(2, 8, dtype="fp32") is out
    pool.reset()
    assert torch.isnan(pool.output(2, 8, dtype="fp32")).all()


def test_tensors_of_one_shape_are_told_apart_by_name():
    pool = TensorPool(DEVICE, {"fp32": 0})
    x, residual = pool.activation(2, 8, dtype="fp32"), pool.activation(2, 8, dtype="fp32", name="residual")
    assert residual is not x
    assert pool.activation(2, 8, dtype="fp32", name="residual") is residual
    assert pool.output(2, 8, dtype="fp32", name="sum") is not pool.output(2, 8, dtype="fp32")


def test_the_ruler_counts_bytes_without_taking_them():
    ruler = ByteCounter()
    ruler.weight(10**6, 10**6, dtype="bf16")
    ruler.activation(10**6, 10**6, dtype="fp32")
    ruler.output(1, dtype="fp32")
    assert (ruler.weight_bytes, ruler.other_bytes) == (2 * 10**12, 4 * 10**12 + 4)


def test_the_copies_of_a_weight_of_any_size_lie_apart_and_outgrow_the_caches_together():
    largest = 2**20
    for elements in (2**18 // 10 * one for one in range(1, 11)):  # of fp32, up to the largest
        pool, size = TensorPool(DEVICE, {"fp32": largest}), 4 * elements
        copies = DEVICE.cold_copies(size)
        starts = sorted(pool.weight(elements, dtype="fp32").data_ptr() for _ in range(copies))
        assert copies * size >= DEVICE.cold_bytes
        assert all(later - sooner >= size for sooner, later in pairwise(starts))
