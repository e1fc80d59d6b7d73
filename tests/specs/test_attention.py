import pytest

from specs.errors import UserError
from specs.layer import AttentionShard, attention_shard
from specs.models import find_model
from specs.parallel import Split


@pytest.mark.parametrize(
    ("slug", "tp", "expected"),
    [
        ("llama-3-70b", 1, (64, 8, 128)),
        ("llama-3-70b", 8, (8, 1, 128)),
        ("llama-3-70b", 16, (4, 1, 128)),  # each kv head is on two ranks
        ("llama-3.2-1b", 1, (32, 8, 64)),
    ],
)
def test_heads_of_one_rank(slug, tp, expected):
    assert attention_shard(Split(find_model(slug), tp)) == AttentionShard(slug, tp, 1, "attention", *expected)


def test_attention_of_another_kind_is_refused():
    with pytest.raises(UserError, match="not grouped-query"):
        attention_shard(Split(find_model("deepseek-v3")))
