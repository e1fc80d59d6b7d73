"""Decode attention under the interpreter: shapes, lengths, pages and splits, against softmax in float64."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import attention, decode_attention
from kernels.configs.attention import SplitConfig
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION, launch
from kernels.kernel import RandomTensors
from kernels.operands import RING_LENGTH, Workspace
from specs.errors import UserError
from tests.kernels.interpreter import interpreted, needs_interpreter

few = settings(max_examples=4, deadline=None, derandomize=True, database=None)
RTOL = {**attention.DECODE_RTOL, "bf16": 2**-6}  # the interpreter cuts fp32 to bf16 where a GPU rounds, twice
CPU = torch.device("cpu")
SMALL = SplitConfig(16, 4, 3)
SHAPE = {"batch": 2, "context": 150, "heads": 8, "kv_heads": 2, "head_dim": 64}


def drawn(kernel=TRITON_DECODE_ATTENTION, dtype="fp32", lengths=None, **shape):
    inputs = kernel.inputs(RandomTensors(5), dtype=dtype, **(SHAPE | shape))
    if lengths is not None:
        inputs["lengths"] = torch.tensor(lengths, dtype=torch.int32)
    return inputs


def started(inputs, cut, **options):
    pages = {"key": inputs.get("key_pages"), "value": inputs.get("value_pages"), "table": inputs.get("table")}
    operands = {name: inputs[name] for name in ("query", "lengths", "out")}
    launch(**operands, **({name: inputs[name] for name in ("key", "value")} if "key" in inputs else pages),
           config=cut, **options)  # fmt: skip


def after(inputs, split, config=SMALL, scratch=None):
    """The result of one call in `split` parts, out and partial results poisoned before."""
    inputs["out"].fill_(math.nan)
    scratch = scratch or Workspace(CPU)
    scratch.partials.fill_(math.nan)
    with interpreted(decode_attention, decode_attention):
        started(inputs, config._replace(split=split), scratch=scratch)
    assert not scratch.arrived.any(), "a counter is left above zero"
    return inputs["out"]


@needs_interpreter
@few
@given(
    batch=st.integers(1, 3),
    context=st.integers(1, 300),
    kv_heads=st.integers(1, 2),
    group=st.integers(1, 20),
    head_dim=st.sampled_from([64, 128]),
    dtype=st.sampled_from(list(RTOL)),
)
@example(batch=1, context=1, kv_heads=1, group=1, head_dim=64, dtype="fp32")
@example(batch=1, context=4096, kv_heads=1, group=8, head_dim=128, dtype="bf16")  # one rank of Llama-3-70B under tp 8
@example(batch=1, context=129, kv_heads=1, group=17, head_dim=64, dtype="fp16")  # one past the tile, one past the rows
def test_as_the_rule_cuts_it(batch, context, kv_heads, group, head_dim, dtype):
    shape = {"batch": batch, "context": context, "heads": group * kv_heads, "kv_heads": kv_heads, "head_dim": head_dim}
    inputs = drawn(dtype=dtype, **shape)
    with interpreted(decode_attention, decode_attention):
        TRITON_DECODE_ATTENTION.run(**inputs)
    assert TRITON_DECODE_ATTENTION.relative_error(inputs) <= RTOL[dtype]


@needs_interpreter
@pytest.mark.parametrize(
    ("split", "calls"), [(1, 1), (2, 1), (5, RING_LENGTH + 1), (16, 1), (21, RING_LENGTH + 1), (40, 1)]
)
def test_any_split_and_any_lengths(split, calls):
    """330 tokens are 21 tiles of 16: of 16 and 40 parts some get nothing, of length 1 all but one."""
    inputs = drawn(context=330, lengths=[330, 1], heads=4, kv_heads=1)
    scratch = Workspace(CPU)
    for _ in range(calls):  # every slot, and the first one again
        after(inputs, split, scratch=scratch)
        assert TRITON_DECODE_ATTENTION.relative_error(inputs) <= RTOL["fp32"]


@needs_interpreter
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_two_levels_of_parts_in_half_precision(dtype):
    inputs = drawn(dtype=dtype, context=330, lengths=[329, 33], heads=8, kv_heads=1, head_dim=128)
    after(inputs, 21)
    assert TRITON_DECODE_ATTENTION.relative_error(inputs) <= RTOL[dtype]


@needs_interpreter
@pytest.mark.parametrize(("page_size", "block"), [(16, 16), (64, 16), (16, 64), (24, 16)])
@pytest.mark.parametrize("split", [1, 3])
def test_pages_give_the_same_bits_as_a_contiguous_cache(page_size, block, split):
    """Tiles within a page, and tiles over several."""
    paged = drawn(TRITON_PAGED_ATTENTION, page_size=page_size, lengths=[150, 71])
    table = paged["table"].long()
    assert table.flatten().tolist() != sorted(table.flatten().tolist()), "pages that lie in order would prove little"
    gathered = {name: paged[f"{name}_pages"][table].flatten(1, 2) for name in ("key", "value")}
    found = after(paged, split, SMALL._replace(block=block)).clone()
    assert TRITON_PAGED_ATTENTION.relative_error(paged) <= RTOL["fp32"]
    plain = {name: paged[name].clone() for name in ("query", "lengths", "out")} | gathered
    assert torch.equal(found, after(plain, split, SMALL._replace(block=block)))


@needs_interpreter
def test_pages_as_the_rule_cuts_them():
    inputs = drawn(TRITON_PAGED_ATTENTION, page_size=64, context=700, lengths=[700, 65])
    with interpreted(decode_attention, decode_attention):
        TRITON_PAGED_ATTENTION.run(**inputs)
    assert TRITON_PAGED_ATTENTION.relative_error(inputs) <= RTOL["fp32"]


@needs_interpreter
def test_views_of_a_cache_and_of_queries_beside_keys():
    """A layer passes one layer of [batch, layers, context, 2, kv_heads, head_dim], and the first heads of qkv."""
    inputs = drawn()
    cache = torch.full((2, 3, 150, 2, 2, 64), math.nan)
    cache[:, 1, :, 0], cache[:, 1, :, 1] = inputs["key"], inputs["value"]
    qkv = torch.full((2, 12, 64), math.nan)
    qkv[:, :8] = inputs["query"]
    expected = after(inputs, 3).clone()
    views = {"query": qkv[:, :8], "key": cache[:, 1, :, 0], "value": cache[:, 1, :, 1]}
    assert not views["key"].is_contiguous()
    assert torch.equal(after(inputs | views, 3), expected)


@needs_interpreter
@pytest.mark.parametrize(
    ("shape", "strides"), [((3, 17, 1, 64), (2**30, 128, 64, 1)), ((1, 17, 1, 64), (2**31, 2**27, 64, 1))]
)
def test_rows_beyond_2_31_elements_are_found(shape, strides):
    """By a far sequence and by a far token; of 4.3e9 bytes the rows that are used alone take memory."""
    sizes = {"batch": shape[0], "context": 17, "heads": 4, "kv_heads": 1, "dtype": "fp16"}
    inputs, room = drawn(**sizes), torch.empty(2**31 + 2**13, dtype=torch.float16)
    expected = after(inputs, 2).clone()
    for offset, name in ((0, "key"), (64, "value")):
        far = room.as_strided(shape, strides, offset)
        far.copy_(inputs[name])
        inputs[name] = far
    assert torch.equal(after(inputs, 2), expected)


@needs_interpreter
def test_what_lies_behind_the_length_is_not_read():
    inputs = drawn(lengths=[149, 20])
    expected = after(inputs, 3).clone()
    for b, length in enumerate((149, 20)):
        inputs["key"][b, length:] = math.nan
        inputs["value"][b, length:] = math.nan
    assert torch.equal(after(inputs, 3), expected)


@needs_interpreter
def test_a_length_beyond_the_context_ends_there():
    assert torch.equal(after(drawn(lengths=[999, 150]), 2), after(drawn(lengths=[150, 150]), 2))


@needs_interpreter
@pytest.mark.parametrize("split", [1, 7, 21])
def test_scores_far_apart_in_any_order(split):
    """The largest score comes last, first and in the middle: sums are faded by up to e^-400 on the way."""
    inputs = drawn(batch=3, context=330)
    inputs["query"].mul_(40)
    for b, best in enumerate((329, 0, 165)):
        inputs["key"][b, best] = inputs["query"].view(3, 2, 4, 64)[b].sum(dim=1) / 40
    after(inputs, split)
    assert TRITON_DECODE_ATTENTION.relative_error(inputs) <= RTOL["fp32"]


@needs_interpreter
@pytest.mark.parametrize("split", [4, 21])
def test_two_calls_give_the_same_bits(split):
    shape = {"context": 330, "heads": 4, "kv_heads": 1}
    first, second = (after(drawn(lengths=[330, 77], **shape), split).clone() for _ in range(2))
    assert torch.equal(first, second)


@needs_interpreter
@pytest.mark.parametrize("split", [4, 20])
def test_what_arrived_before_the_call_spoils_it(split):
    inputs, scratch = drawn(heads=4, kv_heads=1), Workspace(CPU)
    after(inputs, split, scratch=scratch)
    scratch.partials.fill_(math.nan)
    scratch.arrived.fill_(1)
    inputs["out"].fill_(math.nan)
    with interpreted(decode_attention, decode_attention):
        started(inputs, SMALL._replace(split=split), scratch=scratch)
    assert math.isnan(TRITON_DECODE_ATTENTION.relative_error(inputs))


@needs_interpreter
def test_a_dropped_token_is_caught():
    inputs = drawn(context=300, lengths=[300, 300])
    after(inputs | {"lengths": torch.tensor([299, 300], dtype=torch.int32)}, 3)
    assert TRITON_DECODE_ATTENTION.relative_error(inputs) > RTOL["bf16"]


GOOD = drawn()
PAGED = drawn(TRITON_PAGED_ATTENTION, page_size=16)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"query": torch.zeros(2, 512)}, r"query has shape \(2, 512\); it must be query\[batch, heads, head_dim\]"),
        ({"query": torch.zeros(3, 8, 64), "out": torch.zeros(3, 8, 64)}, "query is of 3 sequences and key of 2"),
        ({"query": torch.zeros(2, 64, 8).transpose(1, 2)}, "the heads of a sequence without gaps"),
        ({"out": torch.zeros(2, 16, 64)[:, ::2]}, "out contiguous"),
        ({"out": torch.zeros(2, 4, 64)}, "they must be of one shape"),
        ({"query": torch.zeros(2, 7, 64), "out": torch.zeros(2, 7, 64)}, "7 query heads on 2 kv heads"),
        ({"query": torch.zeros(2, 80, 64), "out": torch.zeros(2, 80, 64)}, "80 query heads on 2 kv heads.*32 at most"),
        ({"query": torch.zeros(2, 8, 32), "out": torch.zeros(2, 8, 32)}, "head_dim 32; our .* takes 64 and 128"),
        ({"value": torch.zeros(2, 151, 2, 64)}, "both must be of one shape"),
        ({"value": torch.zeros(2, 2, 150, 64).transpose(1, 2)}, "equal strides"),
        ({"key": torch.zeros(2, 150, 2, 64, dtype=torch.float16)}, "convert them to one dtype"),
        ({"lengths": torch.zeros(2, dtype=torch.int64)}, "lengths.* is torch.int64; it must be int32"),
        ({"lengths": torch.zeros(3, dtype=torch.int32)}, r"lengths\[3\].*one for each of 2"),
    ],
)
def test_operands_that_would_touch_foreign_memory_are_refused(fault, message):
    with pytest.raises(UserError, match=message):
        TRITON_DECODE_ATTENTION.run(**(GOOD | fault))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"table": torch.zeros(2, 10, dtype=torch.int64)}, "table.* is torch.int64 .*it must be int32"),
        ({"table": torch.zeros(3, 10, dtype=torch.int32)}, "a row without gaps for each of 2 sequences"),
        ({"table": torch.zeros(20, dtype=torch.int32)}, r"it must be table\[batch, pages a sequence\]"),
    ],
)
def test_a_page_table_that_does_not_fit_is_refused(fault, message):
    with pytest.raises(UserError, match=message):
        TRITON_PAGED_ATTENTION.run(**(PAGED | fault))


def test_a_dtype_that_is_not_ours_is_refused():
    wide = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in GOOD.items()}
    with pytest.raises(UserError, match=r"float64; triton_decode_attention takes fp32, bf16, fp16"):
        decode_attention.run(**wide)
