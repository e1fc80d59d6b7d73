"""Device time of a layer's parts: from every timed call, by the order in which the shown call launches them."""

import pytest

from tests.reports.importers.profiler.planted_trace import CASE, NVTX, Trace

LAYER = (("norm", 2), ("qkv", 10), ("attention", 7), ("norm", 2), ("down", 4))
"""A call: 25 us. The second norm comes from the same kernel as the first; qkv and down do too."""
KERNELS = {"norm": "rms", "qkv": "gemm", "attention": "flash", "down": "gemm"}


def shown(trace, at=300, slow=3.0):
    """A checked call, some times slower than those that are timed; each part in its range."""
    trace.visit(at - 300, at + 1000, (at + 200, at + 900), call=(at + 1, at + 150))
    for number, (part, each) in enumerate(LAYER):
        start = at + 2 + 20 * number
        trace.range(part, start, start + 10)
        trace.eager(start + 1, start + 2, start + 2 + slow * each, KERNELS[part])
    return trace


def timed(trace, at=520, calls=3, order=LAYER, graph=True, streams=(7,)):
    """Calls in one graph or launched one by one, a gap of 1 us behind each kernel."""
    number = trace.launch(at - 5, name="cudaGraphLaunch_v10000") if graph else None
    for _ in range(calls):
        for place, (part, each) in enumerate(order):
            of_kernel = number or trace.launch(at - 5)
            stream = streams[place % len(streams)]
            trace.kernel(of_kernel, at, at + each, KERNELS[part], node=place + 1 if graph else None, stream=stream)
            at += each + 1
    trace.tell(1250, calls, 30e-6)
    return trace


@pytest.mark.parametrize("graph", [True, False])
def test_parts_are_timed_in_every_call_of_a_graph_and_of_eager_ones(imported, tmp_path, graph):
    cases, notes, file = imported(timed(shown(Trace()), graph=graph).write(tmp_path / "trace.sqlite"))
    one = cases[CASE]
    # 25 us a call, of it norms 2 + 2, qkv 10, attention 7, down 4
    assert one["busy_seconds"] == pytest.approx(25e-6)
    assert {part["part"]: part["busy_seconds"] for part in one["parts"]} == {
        "norm": pytest.approx(4e-6),
        "qkv": pytest.approx(10e-6),
        "attention": pytest.approx(7e-6),
        "down": pytest.approx(4e-6),
    }
    assert [part["share"] for part in one["parts"]] == pytest.approx([0.16, 0.4, 0.28, 0.16])
    assert one["parts"][0]["per_layer"] == one["parts"][0]["kernels"] == 2
    whole, norm, qkv, *_ = file.measurements
    assert (norm.case.name, norm.case.layer, norm.case.question) == (f"{CASE}/norm", "norm", "layer")
    assert (norm.case.op, norm.case.per_layer, norm.seconds) == ("rmsnorm", 2, ((pytest.approx(2e-6),),))
    assert (qkv.case.op, qkv.case.kernel) == ("linear", "void gemm<float>(int)")
    assert not [note for note in notes if "order" in note]
    assert whole.seconds == ((pytest.approx(25e-6),),)


def test_parts_of_each_visit_are_its_own(imported, tmp_path):
    trace = timed(shown(Trace()))
    trace.visit(2000, 3300, (2200, 3200))
    slower = [(part, 2 * each) for part, each in LAYER]
    timed_again = [row for row in trace.rows[NVTX] if row.get("textId") == trace.string("calls")]
    assert len(timed_again) == 1
    number = trace.launch(2205, name="cudaGraphLaunch_v10000")
    at = 2300
    for part, each in slower:
        trace.kernel(number, at, at + each, KERNELS[part], node=1)
        at += each
    trace.tell(3250, 1, 50e-6)
    _, _, file = imported(trace.write(tmp_path / "trace.sqlite"))
    qkv = next(one for one in file.measurements if one.case.layer == "qkv")
    assert qkv.seconds == ((pytest.approx(10e-6),), (pytest.approx(20e-6),))


def test_where_the_order_is_another_the_shown_call_stands_alone_and_it_is_said(imported, tmp_path):
    swapped = (LAYER[1], LAYER[0], *LAYER[2:])
    cases, notes, file = imported(timed(shown(Trace()), order=swapped).write(tmp_path / "trace.sqlite"))
    parts = {part["part"]: part["busy_seconds"] for part in cases[CASE]["parts"]}
    assert parts["qkv"] == pytest.approx(30e-6)  # as shown: three times as slow
    assert parts["norm"] == pytest.approx(12e-6)
    assert any("parts are of that call alone" in note for note in notes)
    assert cases[CASE]["busy_seconds"] == pytest.approx(25e-6)
    assert len(file.measurements) == 5


def test_traces_whose_parts_stand_beside_the_call_are_read_too(imported, tmp_path):
    trace = timed(shown(Trace()))
    trace.rows[NVTX] = [row for row in trace.rows[NVTX] if row.get("textId") != trace.string("call")]
    cases, *_ = imported(trace.write(tmp_path / "trace.sqlite"))
    assert cases[CASE]["parts"][1]["busy_seconds"] == pytest.approx(10e-6)


def test_parts_of_one_kernel_that_overlap_in_a_graph_cannot_be_told_apart_and_it_is_said(imported, tmp_path):
    """qkv of 10 us and down of 4 run the same gemm: the second begins before the first ends, on another stream."""
    pair = (("qkv", 10), ("down", 4))
    for later, mixed in ((5, True), (11, False)):
        trace = Trace()
        trace.visit(0, 1000, (200, 900), call=(10, 100))
        for number, (part, each) in enumerate(pair):
            trace.range(part, 12 + 30 * number, 30 + 30 * number)
            trace.eager(13 + 30 * number, 14 + 30 * number, 14 + 30 * number + each)
        number = trace.launch(210, name="cudaGraphLaunch_v10000")
        trace.kernel(number, 300, 310, node=1)
        trace.kernel(number, 300 + later, 304 + later, node=2, stream=13)
        trace.tell(950, 1)
        _, notes, _ = imported(trace.write(tmp_path / "trace.sqlite"))
        assert any("which is whose cannot be told" in note for note in notes) == mixed


def test_a_part_on_two_streams_counts_the_union(imported, tmp_path):
    trace = Trace()
    trace.visit(0, 1000, (200, 900), call=(10, 100))
    trace.range("qkv", 11, 60)
    for at in (12, 14):
        trace.eager(at, at + 2, at + 12, stream=at)
    # two calls of two gemms of 10 us that overlap by 4: 16 us each
    for at in (300, 400):
        trace.eager(at, at + 1, at + 11)
        trace.eager(at + 1, at + 7, at + 17, stream=13)
    trace.tell(950, 2, 16e-6)
    cases, *_ = imported(trace.write(tmp_path / "trace.sqlite"))
    (qkv,) = cases[CASE]["parts"]
    assert (qkv["busy_seconds"], qkv["share"]) == (pytest.approx(16e-6), 1.0)
