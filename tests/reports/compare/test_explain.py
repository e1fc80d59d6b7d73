"""What explains a change, with ceilings planted so that each ratio can be worked out in the head."""

import pytest

from reports.compare.comparison import compare_files
from tests.reports import planted
from tests.reports.planted import measured
from tests.reports.planted_sweeps import file

GPUS = {
    "h100": planted.H200 | {"gpu": "NVIDIA H100 80GB HBM3", "gpu_memory_bytes": 80_000_000_000},
    "h200": planted.H200,
}
"""Memory 3.35 and 4.8 TB/s by their datasheets, bf16 989.5 TFLOP/s both, the link 450 GB/s both."""
OLD, NEW = planted.CPU, planted.CPU | {"cpu": {"brand_raw": "Planted CPU 9001"}}
STREAM = planted.case("s::stream", flops=10**6, hbm_bytes=10**9)
PRODUCT = planted.case("s::product", flops=10**11, hbm_bytes=10**6, question="prefill", tokens=1000)


def found(case, before, after, a=OLD, b=NEW, ceilings=({}, {})):
    """The explanation of a case in two files, each with ceilings where some are given."""
    planted_in = [planted.ceilings(**of) if of else [] for of in ceilings]
    versus = compare_files(
        file([measured(case, before), *planted_in[0]], a), file([measured(case, after), *planted_in[1]], b)
    )
    return dict(zip([pair.a.case.name for pair in versus.pairs], versus.explanations, strict=True))[case.name]


def test_measured_bandwidth_explains_a_stream_and_says_what_is_left():
    """1e9 bytes at 10 and 20 GB/s: 0.1 s and 0.05 s. 0.2 s became 0.12: 0.6 of the time where 0.5 was to expect."""
    why = found(STREAM, 0.2, 0.12, ceilings=({"read": 10e9}, {"read": 20e9}))
    assert why.explained_by == "memory bandwidth"
    assert why.expected == pytest.approx(0.5)
    assert why.unexplained == pytest.approx(0.6 / 0.5)
    assert why.share == pytest.approx(0.5)
    assert why.resource_ratios == pytest.approx({"memory bandwidth": 0.5, "flops": 1.0})


def test_flops_explain_a_product():
    """1e11 flops at 100 and 250 GFLOP/s."""
    why = found(PRODUCT, 1.1, 0.44, ceilings=({"peak": 100e9}, {"peak": 250e9}))
    assert (why.explained_by, why.expected, why.unexplained) == ("flops", pytest.approx(0.4), pytest.approx(1.0))


def test_what_did_not_change_explains_nothing():
    why = found(PRODUCT, 1.1, 0.99, ceilings=({"peak": 100e9, "read": 10e9}, {"peak": 100e9, "read": 20e9}))
    assert (why.explained_by, why.bound) == (None, ("flops", "flops"))
    assert why.unexplained == pytest.approx(0.9)


def test_what_went_the_other_way_explains_nothing():
    assert found(STREAM, 0.2, 0.25, ceilings=({"read": 10e9}, {"read": 20e9})).explained_by is None


@pytest.mark.parametrize(("after", "by"), [(0.101, "memory bandwidth"), (0.14, "memory bandwidth"), (0.15, None)])
def test_at_least_half_of_what_was_to_expect_has_to_come(after, by):
    """Half the time was to expect: on the logarithm, a factor of 0.707 is half of that."""
    why = found(STREAM, 0.2, after, ceilings=({"read": 10e9}, {"read": 20e9}))
    assert why.explained_by == by
    assert why.unexplained == pytest.approx(after / 0.2 / 0.5)  # what did not come shows either way


def test_a_case_whose_bytes_nobody_knows_is_not_explained():
    case = planted.case("s::experts", op="moe", question="moe", flops=10**11, hbm_bytes=0)
    why = found(case, 1.1, 0.5, ceilings=({"peak": 100e9}, {"peak": 200e9}))
    assert (why.explained_by, why.expected, dict(why.resource_ratios)) == (None, None, {})


def test_what_takes_a_small_part_of_the_time_explains_nothing():
    """A tenth of its floor on both machines: it waits for something else."""
    why = found(STREAM, 1.0, 0.5, ceilings=({"read": 10e9}, {"read": 20e9}))
    assert (why.explained_by, why.share, why.unexplained) == (None, pytest.approx(0.1), 0.5)


def test_across_the_ridge_both_are_named_if_both_changed():
    """1e9 bytes at 10 GB/s bind A for 0.1 s; on B at 40 GB/s 8e9 flops at 200 GFLOP/s do, for 0.04 s."""
    case = planted.case("s::ridge", flops=8 * 10**9, hbm_bytes=10**9)
    why = found(case, 0.12, 0.05, ceilings=({"read": 10e9, "peak": 100e9}, {"read": 40e9, "peak": 200e9}))
    assert (why.explained_by, why.expected) == ("memory bandwidth and flops", pytest.approx(0.4))


def test_across_the_ridge_what_stayed_is_not_named():
    case = planted.case("s::ridge", flops=8 * 10**9, hbm_bytes=10**9)
    why = found(case, 0.12, 0.085, ceilings=({"read": 10e9, "peak": 100e9}, {"read": 40e9, "peak": 100e9}))
    assert (why.explained_by, why.bound) == ("memory bandwidth", ("memory bandwidth", "flops"))


def test_datasheets_explain_where_nothing_was_measured():
    """3.35 / 4.8 = 0.698 of the time; the peak is the same."""
    why = found(planted.case("s::stream", hbm_bytes=10**9), 4e-4, 3e-4, GPUS["h100"], GPUS["h200"])
    assert (why.explained_by, why.expected) == ("memory bandwidth", pytest.approx(0.698, abs=1e-3))
    assert why.resource_ratios["flops"] == 1.0


def test_a_measured_figure_is_never_set_against_a_printed_one():
    """Only A measured its read: then both are taken from the datasheet."""
    case = planted.case("s::stream", hbm_bytes=10**9)
    why = found(case, 4e-4, 3e-4, GPUS["h100"], GPUS["h200"], ceilings=({"read": 1e12}, {}))
    assert why.resource_ratios["memory bandwidth"] == pytest.approx(0.698, abs=1e-3)


def test_a_ceiling_does_not_explain_itself():
    a, b = planted.ceilings(read=10e9), planted.ceilings(read=20e9)
    versus = compare_files(file(a, OLD), file(b, NEW))
    assert [why.explained_by for why in versus.explanations] == [None, None]
    printed = compare_files(file(a, GPUS["h100"]), file(b, GPUS["h200"]))
    assert printed.explanations[0].resource_ratios["memory bandwidth"] == pytest.approx(0.698, abs=1e-3)


def test_launches_explain_what_is_little_more_than_a_launch():
    def launch(seconds):
        return measured(planted.case("s::launch", question="ceilings", op="launch", flops=0, hbm_bytes=4), seconds)

    tiny = planted.case("s::norm", op="rmsnorm", flops=10, hbm_bytes=100)
    a = [measured(tiny, 5e-6), launch(4e-6), *planted.ceilings()]
    b = [measured(tiny, 2.5e-6), launch(2e-6), *planted.ceilings()]
    why = compare_files(file(a, OLD), file(b, NEW)).explanations[0]
    assert (why.explained_by, why.expected) == ("launch latency", pytest.approx(0.5))


def test_the_link_explains_a_large_message():
    """An all-reduce of 2 ranks sends its message once: 64 MiB at 1 and 2 GB/s, as the large transfers show."""

    def send(size, seconds):
        name = f"s::send[{size}]"
        return measured(message(name, "send_recv", size), seconds)

    def message(name, op, size):
        return planted.case(
            name, question="communication", op=op, ranks=2, message_bytes=size, wire_bytes_sent_per_rank=size,
            flops=0, hbm_bytes=0, model=None, layer=None, tp=None, pp=None, tokens=None, n=None, k=None,
        )  # fmt: skip

    size = 2**26
    reduce = message("s::reduce", "all_reduce", size)
    a = [measured(reduce, 0.1), send(2**10, 10e-6), send(2**24, 2**24 / 1e9)]
    b = [measured(reduce, 0.05), send(2**10, 10e-6), send(2**24, 2**24 / 2e9)]
    versus = compare_files(file(a, OLD), file(b, NEW))
    why = versus.explanations[0]
    assert why.explained_by == "link"
    assert why.expected == pytest.approx((10e-6 + size / 2e9) / (10e-6 + size / 1e9))
    assert {why.explained_by for why in versus.explanations[1:]} == {None}  # transfers that the link's speed comes from


def test_nothing_known_leaves_all_unexplained():
    why = found(STREAM, 0.2, 0.1)
    assert (why.explained_by, why.expected, why.bound, why.unexplained) == (None, None, None, 0.5)
