"""Times of a layer and of the head, from planted parts worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from reports import results
from reports.plan.estimate import MAX_KEPT_SIZES, MissingMeasurementError
from reports.plan.planner import plan_for_files
from reports.plan.query import Interconnect, PlanQuery
from reports.plan.step import PromptChunk, Variant
from specs.models import MODELS
from tests.reports import planted
from tests.reports.plan import planted_parts
from tests.reports.plan.planted_parts import US

NO_PROMPT = PromptChunk()


def microseconds_by_part(named):
    return {name: cost.seconds / US for name, cost in named.items()}


def test_a_layer_is_its_linears_its_attention_and_two_all_reduces(parts):
    # linears 4 x (80 + 0.8 x 64) / 8 = 65.6; attention 0.4 x 64 = 25.6; message 64 x 8192 x 2 = 1 MiB: 5 + 102.4, twice
    found = microseconds_by_part(parts().layer_parts(8, 64, NO_PROMPT, 8))
    assert found == {
        "linears": pytest.approx(65.6),
        "attention": pytest.approx(25.6),
        "all-reduce": pytest.approx(214.8),
    }


def test_without_tp_there_is_no_all_reduce(parts):
    assert set(parts().layer_parts(1, 64, NO_PROMPT, 8)) == {"linears", "attention"}


def test_elementwise_kernels_move_their_bytes_and_have_a_price(parts):
    # 64 x (8 x 8192 + 2 x (8 + 2 x 1) x 128 + 3 x 28672 / 8) x 2 B = 10,092,544 B at 4.8 TB/s: 2.1026 us; four of 2 us
    found = parts(elementwise=True).layer_parts(8, 64, NO_PROMPT, 8)["elementwise"]
    assert found.seconds / US == pytest.approx(8 + 2.10261, rel=1e-5)
    assert found.provenance == "assumed"


def test_variants_of_an_implementation_look_a_cost_up_once(parts):
    counted = parts(elementwise=True)
    left_out, sizes = counted.as_variant(Variant("vllm", elementwise=False)), np.array([1, 64])
    assert (left_out.variant.elementwise, left_out.variant.implementation) == (False, "vllm")
    assert left_out.comm_costs.all_reduce(8, 1024 * sizes) is counted.comm_costs.all_reduce(8, 1024 * sizes)
    assert counted.comm_costs.all_reduce(8, 1024 * sizes) is not counted.comm_costs.all_reduce(8, 2048 * sizes)
    assert counted.comm_costs.all_reduce(4, 1024 * sizes) is not counted.comm_costs.all_reduce(8, 1024 * sizes)


def test_costs_of_whole_searches_are_not_kept(parts):
    sizes = 1024 * np.arange(1, 1 + MAX_KEPT_SIZES + 1)
    costs = parts().comm_costs
    assert costs.all_reduce(8, sizes) is not costs.all_reduce(8, sizes)


def test_the_head_is_counted_with_the_gather_of_the_best_logits(parts):
    # (100 + 64) x 2 / 8 = 41 us; 8 B x 64 x 8 = 4096 B: 5.4 us
    assert microseconds_by_part(parts().head_parts(8, 64, 8)) == {
        "lm_head": pytest.approx(41.0),
        "all-reduce": pytest.approx(5.4),
    }


def test_a_head_that_is_nowhere_tabulated_is_taken_in_proportion_and_says_so(parts):
    # tp 1 has twice the rows of tp 2: 2 x (100 + 64)
    found = parts().head_parts(1, 64, 8)["lm_head"]
    assert found.seconds / US == pytest.approx(328.0)
    assert found.provenance == "assumed"


def test_draft_tokens_and_a_chunk_are_rows_of_the_linears_and_of_messages(parts):
    # 64 x (1 + 3) + 128 = 384 rows: 4 x (80 + 307.2) / 8 = 193.6; message 6 MiB: 2 x (5 + 614.4)
    with_prompts = [*planted_parts.all_parts(), planted_parts.attention(8, 1, 256, 28 * US, phase="prefill")]
    with_prompts += [planted_parts.attention(8, 1, 1024, 112 * US, phase="prefill")]
    found = microseconds_by_part(
        parts(with_prompts, draft_tokens=3, prefill_chunk=128).layer_parts(8, 64, PromptChunk(128, 512), 8)
    )
    assert found["linears"] == pytest.approx(193.6)
    assert found["all-reduce"] == pytest.approx(1238.8)
    assert found["attention"] == pytest.approx(25.6)  # the drafts read the same cache
    assert found["attention of prompts"] == pytest.approx(14.0)  # a quarter of a prompt of 512, which takes 56


def test_between_contexts_attention_is_interpolated_and_outside_them_refused(parts):
    found = parts(context=384).layer_parts(1, 64, NO_PROMPT, 8)["attention"]
    assert found.seconds / US == pytest.approx(38.4)
    assert found.provenance == "interpolated"
    with pytest.raises(MissingMeasurementError, match=r"context 1024: .* from 256 to 512"):
        parts(context=1024).layer_parts(1, 64, NO_PROMPT, 8)


def test_attention_beyond_the_largest_batch_goes_on_and_is_called_assumed(parts):
    found = parts().layer_parts(1, 1024, NO_PROMPT, 8)["attention"]
    assert found.seconds / US == pytest.approx(409.6)
    assert found.provenance == "assumed"


def test_linears_beyond_the_most_tokens_are_refused(parts):
    with pytest.raises(MissingMeasurementError, match="20000 tokens through qkv at tp 1: measured up to 16384"):
        parts().layer_parts(1, 20000, NO_PROMPT, 8)


def test_no_all_reduce_over_so_many_ranks_says_which_counts_there_are(parts):
    fewer = [one for one in planted_parts.all_parts() if not (one.case.op == "all_reduce" and one.case.ranks == 8)]
    with pytest.raises(
        MissingMeasurementError, match=r"no all-reduce over 8 ranks on h200_sxm: there are those of 2, 4; none is"
    ):
        parts(fewer).layer_parts(8, 64, NO_PROMPT, 8)


def test_a_message_beyond_the_largest_measured_is_refused(parts):
    short = [one for one in planted_parts.all_parts() if one.case.message_bytes != planted_parts.MESSAGES[-1]]
    short += [planted_parts.all_reduce(8, 2048, 5.2 * US)]
    with pytest.raises(
        MissingMeasurementError, match="all-reduce of 1 MiB over 8 ranks: the largest measured is 2 KiB"
    ):
        parts(short).layer_parts(8, 64, NO_PROMPT, 8)


@pytest.mark.parametrize(("backend", "microseconds"), [("best", 214.8), ("custom", 214.8), ("nccl", 429.6)])
def test_the_backend_chooses_whose_all_reduce(parts, backend, microseconds):
    found = parts(backend=backend).layer_parts(8, 64, NO_PROMPT, 8)["all-reduce"]
    assert found.seconds / US == pytest.approx(microseconds)


def test_best_takes_the_library_where_it_is_faster(parts):
    # 1 MiB lies on a line from 1 KiB to 64 MiB that is 1 us at both ends
    faster = [planted_parts.all_reduce(8, size, 1 * US, "vllm", "nccl", "graph") for size in planted_parts.MESSAGES]
    found = parts([*planted_parts.all_parts(), *faster]).layer_parts(8, 64, NO_PROMPT, 8)["all-reduce"]
    assert found.seconds / US == pytest.approx(2.0)


def test_another_engines_kernel_is_not_taken(parts):
    theirs = [planted_parts.all_reduce(8, size, 1 * US, "sglang") for size in planted_parts.MESSAGES]
    found = parts([*planted_parts.all_parts(), *theirs]).layer_parts(8, 64, NO_PROMPT, 8)["all-reduce"]
    assert found.seconds / US == pytest.approx(214.8)


def test_an_all_reduce_behind_a_linear_is_not_taken_as_back_to_back(parts):
    """Its time holds the wait for the latest rank; taken as back-to-back it would win here at every size."""
    behind = [
        replace(one, case=replace(one.case, name=f"{one.case.name}-behind", late_seconds=0.0))
        for size in planted_parts.MESSAGES
        for one in [planted_parts.all_reduce(8, size, 1e-3 * US)]
    ]
    found = parts([*planted_parts.all_parts(), *behind]).layer_parts(8, 64, NO_PROMPT, 8)["all-reduce"]
    assert found.seconds / US == pytest.approx(214.8)


def behind_linears(tokens, late=0.0, **seconds_by_layer):
    """All-reduces of 8 ranks behind linears of so many tokens."""
    found = []
    for layer, seconds in seconds_by_layer.items():
        one = planted_parts.all_reduce(8, tokens * 8192 * 2, seconds)
        case = replace(
            one.case, name=f"behind-{layer}-{tokens}-{late}", question="late_ranks", layer=layer, late_seconds=late
        )
        found.append(replace(one, case=case))
    return found


def test_an_all_reduce_of_the_step_goes_before_one_timed_back_to_back(parts):
    """In a layer one follows o and one follows down; a rank delayed on purpose is in no plan."""
    planted_here = [
        *planted_parts.all_parts(),
        *behind_linears(16, o=100 * US, down=300 * US),
        *behind_linears(64, o=200 * US, down=400 * US),
        *behind_linears(64, late=1e-3, o=1 * US, down=1 * US),
    ]
    found = parts(planted_here)
    assert found.layer_parts(8, 64, NO_PROMPT, 8)["all-reduce"].seconds / US == pytest.approx(600)
    assert found.layer_parts(8, 40, NO_PROMPT, 8)["all-reduce"].seconds / US == pytest.approx(500)
    # 128 tokens were not timed behind a linear: 2 x (5 + 204.8)
    assert found.layer_parts(8, 128, NO_PROMPT, 8)["all-reduce"].seconds / US == pytest.approx(419.6)
    assert parts(planted_here, interconnect=Interconnect(share=0.5)).comm_costs.in_step(8, 2**20).unknown


def test_a_share_holds_no_wait_where_the_all_reduce_does(parts):
    """The slowest of the ranks is 20 us behind the fastest, so 10 us behind the mean."""
    shares = [
        planted.measured(
            planted.case(
                f"planted::share[{tokens}]", question="shares", op="layer", layer="layer", tp=8, tokens=tokens,
                batch=tokens, context=256, ranks=8, implementation="vllm", n=None, k=None,
            ),
            50 * US, skew_seconds=20 * US,
        )
        for tokens in (64, 128)
    ]  # fmt: skip
    alone = parts([*planted_parts.all_parts(), *shares]).layer_parts(8, 64, NO_PROMPT, 8)
    assert alone["layer"].seconds / US == pytest.approx(50)
    behind = parts([*planted_parts.all_parts(), *shares, *behind_linears(64, o=100 * US, down=100 * US)])
    assert behind.layer_parts(8, 64, NO_PROMPT, 8)["layer"].seconds / US == pytest.approx(40)
    assert behind.layer_parts(8, 128, NO_PROMPT, 8)["layer"].seconds / US == pytest.approx(50)


def test_maybe_hot_linears_widen_upwards_by_what_the_cache_may_have_held(parts):
    # of o at tp 8, 8192 x 1024 x 2 B = 16.78 MB, six copies are 100.7 MB and the L2 has 60 MiB: 0.625 of 3.495 us
    found = parts([*planted_parts.all_parts(maybe_hot=True)]).layer_parts(8, 1, NO_PROMPT, 8)["linears"]
    # as of each of the four: what is held is 60 MiB / 6 at most, and every linear is larger than that
    wider = 4 * 10 * 2**20 / 4.8e12
    assert found.high - found.seconds == pytest.approx(wider, rel=1e-6)
    assert found.low == found.seconds


def test_a_ranks_own_share_goes_before_the_sum_of_parts(parts):
    share = planted.case(
        "planted::share", question="shares", op="layer", layer="layer", tp=8, tokens=64, batch=64, context=256, ranks=8,
        implementation="vllm", n=None, k=None,
    )  # fmt: skip
    found = parts([*planted_parts.all_parts(), planted.measured(share, 50 * US)])
    assert microseconds_by_part(found.layer_parts(8, 64, NO_PROMPT, 8))["layer"] == pytest.approx(50.0)
    assert "layer" not in found.layer_parts(8, 64, NO_PROMPT, 4)  # four ranks at a time were not measured


def test_means_are_added_not_medians(parts):
    slow = planted.case(
        "planted::share", question="shares", op="layer", layer="layer", tp=1, tokens=64, batch=64, context=256, ranks=1,
        implementation="vllm", n=None, k=None,
    )  # fmt: skip
    one = planted.measured(slow, [(1 * US, 1 * US, 7 * US)] * 6)  # median 1, mean 3
    assert microseconds_by_part(parts([*planted_parts.all_parts(), one]).layer_parts(1, 64, NO_PROMPT, 1))[
        "layer"
    ] == pytest.approx(3.0)


def test_norms_per_head_are_two_more_kernels_and_their_bytes(parts, monkeypatch):
    usual = parts(elementwise=True).layer_parts(8, 64, NO_PROMPT, 8)["elementwise"]
    monkeypatch.setitem(MODELS, "llama-3-70b", replace(MODELS["llama-3-70b"], qk_norm=True))
    normed = parts(elementwise=True).layer_parts(8, 64, NO_PROMPT, 8)["elementwise"]
    # two of 2 us; 64 x 2 x (8 + 1) x 128 x 2 B = 294,912 B at 4.8 TB/s
    assert (normed.seconds - usual.seconds) / US == pytest.approx(4 + 294_912 / 4.8e12 / US)


def test_gate_and_up_that_no_file_has_whole_are_two_calls_of_half_the_width(parts):
    narrow = [one for one in planted_parts.all_parts() if (one.case.layer, one.case.tp) != ("gate_up", 1)]
    made = parts(narrow)
    found = made.layer_parts(1, 1024, NO_PROMPT, 8)["linears"]
    # 80 + 0.8 x 1024 = 899.2 each; gate_up of tp 2 takes half as long, twice
    assert found.seconds / US == pytest.approx(4 * 899.2)
    assert found.provenance == "interpolated"
    assert any("gate_up-tp2" in name for name in found.cases)
    assert made.halved_linears(1) == ["gate_up"]
    assert parts().layer_parts(1, 1024, NO_PROMPT, 8)["linears"].provenance == "published"
    assert parts().halved_linears(1) == []


def test_a_plan_says_which_linears_are_halved(tmp_path):
    narrow = [one for one in planted_parts.all_parts() if (one.case.layer, one.case.tp) != ("gate_up", 1)]
    file = results.load(planted_parts.write(tmp_path / "planted.json", narrow))
    notes = plan_for_files([file], PlanQuery(model="llama-3-70b", gpus=8, context=256, batches=(64,))).notes
    assert list(notes) == ["gate_up at tp 1 as two calls of half its width, which no file has whole"]


@pytest.mark.parametrize(
    ("layer", "kept", "why"),
    [("o", (2, 4, 8), r"no linear o of .* import --tp 1$"), ("gate_up", (8,), r"gate_up of .* import --tp 1 or 2$")],
)
def test_only_gate_and_up_are_halved(parts, layer, kept, why):
    fewer = [one for one in planted_parts.all_parts() if one.case.layer != layer or one.case.tp in kept]
    with pytest.raises(MissingMeasurementError, match=why):
        parts(fewer).layer_parts(1, 64, NO_PROMPT, 8)
