import pytest

from specs import memory
from specs.errors import UserError
from specs.models import MODELS, find_model
from specs.parallel import Split

LLAMA = find_model("llama-3-70b")
GQA = [row for row in MODELS.values() if row.heads]


@pytest.mark.parametrize("row", GQA, ids=str)
def test_one_rank_keeps_every_parameter(row):
    assert memory.stage_weight_bytes(Split(row), 0, itemsize=2) == 2 * row.parameters


@pytest.mark.parametrize("row", GQA, ids=str)
def test_stages_together_keep_every_parameter(row):
    split = Split(row, pp=8)
    kept = sum(memory.stage_weight_bytes(split, stage, itemsize=2) for stage in range(8))
    copy_of_tied_head = row.embedding_parameters if row.tied_embeddings else 0
    assert kept == 2 * (row.parameters + copy_of_tied_head)


def test_tensor_parallel_weights_all_cut():
    # 70,553,706,496·2/8 = 17,638,426,624; the 161 norms are replicated: 161·8192·2·7/8 = 2,308,096 more
    assert memory.stage_weight_bytes(Split(LLAMA, tp=8), 0, itemsize=2) == 17_638_426_624 + 2_308_096  # 17.64 GB


def test_tensor_parallel_weights_with_a_replicated_embedding():
    # the embedding costs 1,050,673,152·2·7/8 = 1,838,678,016 more than its eighth
    size = memory.stage_weight_bytes(Split(LLAMA, tp=8), 0, itemsize=2, replicated_embedding=True)
    assert size == 17_640_734_720 + 1_838_678_016 == 19_479_412_736  # 19.48 GB


@pytest.mark.parametrize(
    ("stage", "size"),
    [
        (0, 19_214_434_304),  # 10·855,654,400·2 + 1,050,673,152·2 = 19.21 GB
        (3, 17_113_088_000),  # 10·855,654,400·2 = 17.11 GB
        (7, 19_214_450_688),  # as the first, and the final norm 8192·2
    ],
)
def test_pipeline_stages_differ_at_the_ends(stage, size):
    assert memory.stage_weight_bytes(Split(LLAMA, pp=8), stage, itemsize=2) == size


def test_a_tied_head_is_a_copy_on_another_stage_only():
    row = find_model("llama-3.2-1b")  # embedding 128256·2048 = 262,668,288
    last = memory.stage_weight_bytes(Split(row, pp=2), 1, itemsize=2)
    assert last == 2 * (8 * row.layer_parameters + 262_668_288 + 2048)
    assert memory.stage_weight_bytes(Split(row), 0, itemsize=2) == 2 * (16 * row.layer_parameters + 262_668_288 + 2048)


def test_reads_of_a_tensor_parallel_step():
    # (80·855,654,400 + 1,050,673,152)·2/8 = 17,375,756,288; the layers' norms are replicated, 160·8192·2·7/8 more,
    # and so is the final norm, 8192·2: 17.38 GB
    assert memory.stage_read_bytes(Split(LLAMA, tp=8), 0, itemsize=2) == 17_375_756_288 + 2_293_760 + 16_384


def test_reads_of_a_stage_repeat_with_each_micro_batch():
    # 8·17,113,088,000 = 136,904,704,000: 137 GB for eight microbatches
    assert 8 * memory.stage_read_bytes(Split(LLAMA, pp=8), 3, itemsize=2) == 136_904_704_000
    # the last stage reads final norm and head: 17,113,088,000 + 16,384 + 2,101,346,304
    assert memory.stage_read_bytes(Split(LLAMA, pp=8), 7, itemsize=2) == 19_214_450_688


def test_a_vocabulary_padded_up_costs_its_padding():
    row = find_model("gpt-3-175b")
    # 6283 rows of 50257/8, and 2048 positions whole
    assert memory.embedding_bytes(Split(row, tp=8), itemsize=2) == (6283 + 2048) * 12288 * 2
    assert memory.lm_head_bytes(Split(row, tp=8), itemsize=2) == 6283 * 12288 * 2


def test_experts_are_cut_and_their_router_is_not():
    row = find_model("qwen3-235b-a22b")
    # qkv (64/8 + 2)·128·4096 + o 4096·1024 + 128·3·4096·192 + router 4096·128 + norms 2·4096 + 2·128
    expected = 5_242_880 + 4_194_304 + 301_989_888 + 524_288 + 8_192 + 256
    assert memory.layer_weight_bytes(Split(row, tp=8), itemsize=1) == expected


def test_biases_of_row_parallel_linears_are_replicated():
    row = find_model("gpt-3-175b")
    # weights 12·12288²/8 = 226,492,416; biases qkv 3·12288/8, up 49152/8, o and down 12288 each; norms 4·12288
    expected = 226_492_416 + 4608 + 6144 + 2 * 12288 + 4 * 12288
    assert memory.layer_weight_bytes(Split(row, tp=8), itemsize=1) == expected


def test_quantized_linears_leave_the_rest_as_it_is():
    # linears (855,654,400 - 2·8192)/8 = 106,954,752, each 0.5625 B: 60,162,048; norms 2·8192·2
    assert memory.layer_weight_bytes(Split(LLAMA, tp=8), 2, linear_itemsize=0.5625) == 60_162_048 + 32_768
    # of one byte 80·(106,954,752 + 32,768); embedding 128256·8192·2, head an eighth of it, final norm 8192·2
    whole = memory.stage_weight_bytes(Split(LLAMA, tp=8), 0, 2, replicated_embedding=True, linear_itemsize=1)
    assert whole == 8_559_001_600 + 2_101_346_304 + 262_668_288 + 16_384


def test_biases_of_queries_keys_and_values_are_cut():
    row = find_model("qwen2.5-7b")
    # 233,057,792 parameters less the norms 2·3584 and biases 36·128 = 233,046,016, over 4; biases 9·128, norms 2·3584
    assert memory.layer_weight_bytes(Split(row, tp=4), itemsize=1) == 233_046_016 // 4 + 1152 + 7168


def test_norms_of_queries_and_keys_move_both_once_more():
    # per token of Qwen3-32B under TP 8: norms 8·5120; rotary 2·(8 + 2)·128; qk norm 2·(8 + 1)·128; SwiGLU 3·25600/8
    expected = 40_960 + 2_560 + 2_304 + 9_600
    assert memory.elementwise_bytes(Split(find_model("qwen3-32b"), tp=8), tokens=1, itemsize=1) == expected


def test_key_value_cache_of_a_token():
    assert memory.kv_bytes_per_token(Split(LLAMA), itemsize=2) == 327_680  # 2·80·8·128·2
    # the note's 400 MB a GPU hold 400e6 / 40,960 = 9,766 tokens
    assert 400e6 / memory.kv_bytes_per_token_per_rank(Split(LLAMA, tp=8), 0, itemsize=2) == pytest.approx(9766, abs=0.5)


@pytest.mark.parametrize(
    ("tp", "pp", "size"),
    [
        (8, 1, 40_960),  # 2·80·1·128·2
        (1, 8, 40_960),  # 2·10·8·128·2
        (2, 4, 40_960),  # 2·20·4·128·2
        (16, 1, 40_960),  # 8 kv_heads on 16 ranks: each is kept twice
    ],
)
def test_key_value_cache_of_a_rank(tp, pp, size):
    assert memory.kv_bytes_per_token_per_rank(Split(LLAMA, tp, pp), 0, itemsize=2) == size


def test_contexts_that_fit_at_batch_ten_thousand():
    # (80e9 − 17,640,734,720) / 40,960 = 1,522,443 tokens: 152 a sequence at 10,000 sequences
    assert memory.kv_tokens_that_fit(Split(LLAMA, tp=8), 80e9, itemsize=2) == 1_522_443
    # the last stage is the fullest: (80e9 − 19,214,450,688) / 40,960 = 1,484,022.2
    assert memory.kv_tokens_that_fit(Split(LLAMA, pp=8), 80e9, itemsize=2) == 1_484_022


def test_weights_that_do_not_fit_leave_less_than_nothing():
    assert memory.kv_tokens_that_fit(Split(LLAMA), 80e9, itemsize=2) < 0


def test_activations():
    split = Split(LLAMA, tp=8)
    assert memory.residual_bytes(split, 1024, itemsize=2) == 16_777_216  # 1024·8192·2, whole on each rank
    assert memory.mlp_activation_bytes(split, 1024, itemsize=2) == 14_680_064  # 1024·57344/8·2, cut
    experts = Split(find_model("qwen3-235b-a22b"), tp=8)
    assert memory.mlp_activation_bytes(experts, 1, itemsize=2) == 6144  # 8 experts·384·2


def test_what_needs_attention_is_refused_without_it():
    split = Split(find_model("deepseek-v3"), tp=8)
    for function in (memory.kv_bytes_per_token, memory.layer_weight_bytes):
        with pytest.raises(UserError, match="not grouped-query"):
            function(split, itemsize=2)
    with pytest.raises(UserError, match="not grouped-query"):
        memory.kv_bytes_per_token_per_rank(split, 0, itemsize=2)


def test_a_stage_outside_is_refused():
    with pytest.raises(UserError, match="stage 8 is outside"):
        memory.stage_weight_bytes(Split(LLAMA, pp=8), 8, itemsize=2)
