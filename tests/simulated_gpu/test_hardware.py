"""The simulated device: what is true of a call, and what a timer that looks at events sees instead."""

import pytest

from tests.simulated_gpu.hardware import L2, Gpu, Graph, Launch, Spec, StickyError, Weather, true_seconds

SPEC = Spec()
MB = 10**6
WEIGHTS = 20 * MB


def reads(address, count=WEIGHTS):
    return Launch("read", ((address, count),))


def copies(count):
    return [(reads(number * 2**30),) for number in range(count)]


def test_a_cold_call_takes_its_launch_and_its_bytes_at_the_speed_of_memory():
    # 20 MB at 4.2 TB/s are 4.76 us, and 1.8 us for the launch
    assert true_seconds(SPEC, copies(2), cold=True) == pytest.approx(6.56e-6, rel=1e-3)


def test_a_hot_call_reads_from_the_cache():
    # 20 MB at 11 TB/s are 1.82 us
    assert true_seconds(SPEC, copies(1), cold=False) == pytest.approx(3.62e-6, rel=1e-3)


def test_copies_that_do_not_fit_the_cache_are_cold_but_for_what_it_keeps():
    hot, cold = true_seconds(SPEC, copies(2), cold=False), true_seconds(SPEC, copies(2), cold=True)
    assert hot < 0.6 * cold
    assert 0.9 * cold < true_seconds(SPEC, copies(8), cold=False) < cold
    assert true_seconds(SPEC, copies(96), cold=False) == pytest.approx(cold, rel=1e-2)


def test_the_cache_counts_each_byte_once():
    cache = L2(SPEC)
    assert cache.hits([(0, 3 * MB)]) == (0, pytest.approx(3 * MB))
    assert cache.hits([(0, 3 * MB)]) == (pytest.approx(3 * MB), 0)


def replays(gpu, count, launches=200):
    graph = Graph([reads(2**30 * number) for number in range(launches)], uploaded=True)
    begin = gpu.record()
    for _ in range(count):
        gpu.replay(graph)
    return gpu.elapsed(begin, gpu.record()) / count / launches


def test_the_clock_ramps_under_load_and_calls_take_longer_until_it_is_up():
    gpu = Gpu(SPEC, Weather())
    first = replays(gpu, 1)
    replays(gpu, 60)
    assert gpu.load > SPEC.ramp_seconds
    assert first > 3 * replays(gpu, 1)
    gpu.wait()
    assert gpu.sm_mhz() == SPEC.top_mhz
    gpu.host += 2 * SPEC.cool_seconds
    assert gpu.sm_mhz() == SPEC.idle_mhz


def test_a_graph_has_a_start_that_two_lengths_take_away():
    gpu = Gpu(SPEC, Weather())
    replays(gpu, 60)
    short, long = replays(gpu, 1, 200), replays(gpu, 1, 400)
    assert short > long
    difference = (400 * long - 200 * short) / 200
    assert difference == pytest.approx(true_seconds(SPEC, copies(2), cold=True), rel=0.01)


def test_a_cap_holds_the_clock_back_while_it_lasts():
    gpu = Gpu(SPEC, Weather(throttled=((0.1, 10.0, 990.0),)))
    replays(gpu, 150)
    assert gpu.free_at > 0.1
    assert replays(gpu, 1) == pytest.approx(2 * true_seconds(SPEC, copies(2), cold=True), rel=0.05)
    gpu.wait()
    assert gpu.held_back()


def test_events_tick():
    gpu = Gpu(SPEC, Weather())
    assert gpu.elapsed(1.0, 1.0000012) == pytest.approx(1e-6)


def test_noise_is_the_same_for_the_same_seed_and_another_for_another():
    def run(seed):
        return replays(Gpu(SPEC, Weather(jitter=0.01, drift=0.01, seed=seed)), 50)

    assert run(1) == run(1) != run(2)


def test_waiting_inside_a_capture_is_refused_and_noted():
    gpu, noted = Gpu(SPEC, Weather()), []
    gpu.fault, gpu.capturing = noted.append, Graph()
    with pytest.raises(RuntimeError, match="capturing"):
        gpu.wait()
    assert noted == ["the host waits for the device inside a graph capture"]


def test_a_lost_device_answers_nothing_any_more():
    gpu = Gpu(SPEC, Weather())
    gpu.sticky = "CUDA error: an illegal memory access was encountered"
    for ask in (gpu.wait, gpu.record, lambda: gpu.launch(reads(0)), lambda: gpu.replay(Graph())):
        with pytest.raises(StickyError, match="illegal memory access"):
            ask()


def test_an_event_is_waited_for_and_not_what_is_queued_behind_it():
    gpu = Gpu(SPEC, Weather())
    gpu.busy(0.1)
    event = gpu.record()
    gpu.busy(0.1)
    gpu.wait(event)
    assert event <= gpu.host < gpu.free_at
    gpu.wait()
    assert gpu.host >= gpu.free_at


def test_a_graphs_first_replay_uploads_it():
    gpu, graph = Gpu(SPEC, Weather()), Graph([Launch("empty")] * 1000)
    gpu.busy(1.0)
    spans = []
    for _ in range(3):
        begin = gpu.record()
        gpu.replay(graph)
        spans.append(gpu.record() - begin)
    # 1,000 kernels of 0.5 us each
    assert spans[0] - spans[1] == pytest.approx(500e-6)
    assert spans[1] == pytest.approx(spans[2])


def test_a_profiled_launch_is_charged_what_its_row_says():
    gpu = Gpu(SPEC, Weather())
    gpu.busy(1.0)
    gpu.profiled = []
    begin = gpu.record()
    gpu.launch(reads(0))
    ((_, missed, seconds),) = gpu.profiled
    assert missed == WEIGHTS
    assert gpu.record() - begin == pytest.approx(seconds)
