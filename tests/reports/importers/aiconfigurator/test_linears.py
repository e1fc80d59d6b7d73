import pytest

from reports.importers.aiconfigurator import readers
from specs.gpus import GPUS
from specs.parallel import Shard
from tests.reports.importers.aiconfigurator import planted_tables as planted
from tests.reports.importers.aiconfigurator.planted_tables import TOKENS, affine, shape

H200 = GPUS["h200_sxm"]
O_TP8 = Shard("llama-3-70b", 8, 1, "o", 8192, 1024)
QKV_TP8 = Shard("llama-3-70b", 8, 1, "qkv", 1280, 8192)
GATE_UP_TP8 = Shard("llama-3-70b", 8, 1, "gate_up", 7168, 8192)
GATE_UP_TP1 = Shard("llama-3-70b", 1, 1, "gate_up", 57344, 8192)
DOWN_TP1 = Shard("llama-3-70b", 1, 1, "down", 8192, 28672)


@pytest.fixture
def system(tmp_path):
    return tmp_path / "h200_sxm"


def read(system, *shards, dtypes=("bf16",), gpu=H200):
    return readers.read_linears(system, gpu, shards, dtypes)


def by_tokens(imported):
    found = {one.case.tokens: one for one in imported.measurements}
    assert len(found) == len(imported.measurements)
    return found


def test_a_tabulated_point_says_all_that_is_known_of_it(system):
    planted.gemm(system, shape(8192, 1024, affine), version="0.24.0", kernel_source="torch.nn.functional.linear")
    imported = read(system, O_TP8)
    one = by_tokens(imported)[64]
    assert one.samples == (pytest.approx(affine(64, 8192, 1024) * 1e-3),)
    assert (one.framework, one.version, one.kernel_source) == ("vllm", "0.24.0", "torch.nn.functional.linear")
    assert (one.provenance, one.clock, one.stopped_by) == ("published", "published", "published")
    assert (one.interpolated_over, one.interpolation_error, one.copies, one.doubts) == (None, None, 6, ())
    case = one.case
    assert case.name == "aiconfigurator::linear[llama-3-70b-tp8-o-64-bf16-vllm]"
    assert (case.question, case.op, case.implementation, case.kernel) == ("sweep", "linear", "vllm", one.kernel_source)
    assert (case.cache, case.launch, case.dtype) == ("rotated-6", "graph", "bf16")
    assert (case.model, case.layer, case.tp, case.pp, case.n, case.k) == ("llama-3-70b", "o", 8, 1, 8192, 1024)
    assert case.flops == 1_073_741_824  # 2 x 64 x 8192 x 1024
    assert case.hbm_bytes == 17_956_864  # 2 x (64 x 1024 + 8192 x 1024 + 64 x 8192)
    assert imported.device == "NVIDIA H200"


def test_fp8_reads_one_byte_and_writes_two(system):
    planted.gemm(system, shape(8192, 1024, affine), gemm_dtype="fp8")
    assert read(system, O_TP8).measurements == []
    case = by_tokens(read(system, O_TP8, dtypes=("fp8",)))[64].case
    assert (case.dtype, case.hbm_bytes) == ("fp8", 9_502_720)  # 64 x 1024 + 8192 x 1024 + 2 x 64 x 8192


@pytest.mark.parametrize(
    ("framework", "theirs", "ours", "cache", "launch", "copies"),
    [
        ("VLLM", "fp8_block", "fp8-block", "unknown", "eager", 1),
        ("VLLM", "fp8", "fp8", "rotated-6", "graph", 6),
        ("SGLang", "fp8_block", "fp8-block", "rotated-6", "graph", 6),
    ],
)
def test_one_framework_times_one_format_eager_on_one_copy(system, framework, theirs, ours, cache, launch, copies):
    planted.gemm(system, shape(8192, 8192, affine), framework, gemm_dtype=theirs)
    shard = Shard("llama-3-70b", 1, 1, "o", 8192, 8192)
    found = by_tokens(read(system, shard, dtypes=("fp8", "fp8-block")))[64]
    assert (found.case.dtype, found.case.cache, found.case.launch, found.copies) == (ours, cache, launch, copies)
    assert found.maybe_hot == (copies == 1)  # one copy of 67 MB is less than 4 x 60 MiB, six are more


@pytest.mark.parametrize("tokens", [125, 1000])
def test_tokens_that_are_asked_for_are_interpolated(system, tokens):
    planted.gemm(system, shape(8192, 1024, affine))
    found = by_tokens(read(system, O_TP8))
    assert list(found) == sorted({*TOKENS, 125, 1000})
    one = found[tokens]
    assert one.provenance == "interpolated"
    assert one.interpolated_over == {125: "tokens 96–128", 1000: "tokens 768–1024"}[tokens]
    assert one.median == pytest.approx(affine(tokens, 8192, 1024) * 1e-3)
    assert one.interpolation_error == pytest.approx(0, abs=1e-12)


def test_tokens_that_are_tabulated_are_not_interpolated(system):
    planted.gemm(system, shape(8192, 1024, affine, (64, 125, 128, 1024)))
    found = by_tokens(read(system, O_TP8))
    assert (list(found), found[125].provenance) == ([64, 125, 128, 1000, 1024], "published")


def test_a_shape_between_tabulated_ones_says_which_and_with_what_error(system):
    def kinked(m, n, k):
        return {1024: 1.0, 1536: 2.0, 2048: 4.0}[n] * (64 + m)

    planted.gemm(system, [row for n in (1024, 1536, 2048) for row in shape(n, 8192, kinked)])
    found = by_tokens(read(system, QKV_TP8))
    assert found[64].median == pytest.approx(1.5 * 128e-3)
    assert (found[64].provenance, found[64].interpolated_over) == ("interpolated", "n 1024–1536")
    assert found[64].interpolation_error == pytest.approx(0.25)  # without 1536 the line says 2.5 there
    assert found[125].median == pytest.approx(1.5 * 189e-3)
    assert found[125].interpolated_over == "n 1024–1536, tokens 96–128"
    assert found[125].interpolation_error == pytest.approx(0.25)  # and nothing from the tokens, which are straight
    assert (found[125].case.n, found[125].case.k) == (1280, 8192)


def test_errors_over_shapes_and_over_tokens_add_up(system):
    kink = {64: 1.0, 96: 1.0, 128: 1.0, 256: 3.0}
    rows = [
        {"m": m, "n": n, "k": 8192, "latency": kink[m] * n / 1024 * (1.25 if n == 1536 else 1)}
        for n in (1024, 1536, 2048)
        for m in kink
    ]
    planted.gemm(system, rows)
    found = by_tokens(read(system, QKV_TP8))
    over_shapes, over_tokens = 1 - 1.5 / 1.875, 3.0 - 1 - 2 * 128 / 160  # 96 -> 256: 1.4 at 128
    assert found[128].interpolation_error == pytest.approx(over_shapes)
    assert found[125].interpolation_error == pytest.approx(over_shapes + over_tokens)


def test_the_error_over_shapes_is_what_nine_in_ten_tokens_keep(system):
    bump = {m: 1 + place / 100 for place, m in enumerate((1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64))}  # 0 to 10 %
    rows = [
        {"m": m, "n": n, "k": 8192, "latency": n / 1024 * (bump[m] if n == 1536 else 1)}
        for n in (1024, 1536, 2048)
        for m in bump
    ]
    planted.gemm(system, rows)
    found = by_tokens(read(system, QKV_TP8))
    assert [one.interpolation_error for one in found.values()] == pytest.approx([1 - 1 / 1.09] * 11)


def test_along_k_where_no_shape_has_the_same_k(system):
    planted.gemm(system, [row for k in (8192, 16384, 32768) for row in shape(8192, k, affine)])
    found = by_tokens(read(system, DOWN_TP1))
    assert found[64].interpolated_over == "k 16384–32768"
    assert found[64].median == pytest.approx(affine(64, 8192, 28672) * 1e-3)


def test_a_shape_outside_is_missing_and_not_guessed(system):
    planted.gemm(system, [row for n in (1024, 8192) for row in shape(n, 8192, affine)])
    imported = read(system, GATE_UP_TP1)
    assert imported.measurements == []
    (why,) = imported.not_run.items()
    assert why == (
        "aiconfigurator::linear[llama-3-70b-tp1-gate_up-bf16-vllm]",
        "n=57344, k=8192 lies outside the tabulated shapes",
    )


def test_small_weights_are_marked_in_all_points_also_the_interpolated(system):
    planted.gemm(system, [*shape(8192, 1024, affine), *shape(7168, 8192, affine)])
    found = read(system, O_TP8, GATE_UP_TP8).measurements  # 16 MiB and 112 MiB of weights, 60 MiB of L2
    assert {(one.case.layer, one.maybe_hot) for one in found} == {("o", True), ("gate_up", False)}


@pytest.mark.parametrize(("neighbours", "hot"), [((2048, 3072, 4096), True), ((2560, 3072, 4096), False)])
def test_what_lies_between_a_hot_shape_and_another_is_hot(system, neighbours, hot):
    planted.gemm(system, [row for n in neighbours for row in shape(n, 8192, affine)])
    found = read(system, Shard("llama-3-70b", 1, 1, "qkv", 2816, 8192)).measurements
    assert {(one.provenance, one.maybe_hot) for one in found} == {("interpolated", hot)}


def test_a_line_that_reaches_over_a_gap_to_a_hot_shape_is_hot(system):
    tokens = {2048: TOKENS, 2560: (1, 2, 4), 4096: TOKENS, 8192: TOKENS}  # 2560 lacks 64 tokens
    planted.gemm(system, [row for n in tokens for row in shape(n, 8192, affine, tokens[n])])
    one = by_tokens(read(system, Shard("llama-3-70b", 1, 1, "qkv", 3072, 8192)))[64]
    assert (one.interpolated_over, one.maybe_hot) == ("n 2048–4096", True)


def test_a_point_that_no_memory_could_serve_is_refused_and_its_series_hot(system):
    rows = [{**row, "latency": 0.001 if row["m"] == 1 else row["latency"]} for row in shape(7168, 8192, affine)]
    planted.gemm(system, rows)
    imported = read(system, GATE_UP_TP8)
    assert [*imported.refused] == ["aiconfigurator::linear[llama-3-70b-tp8-gate_up-1-bf16-vllm]"]
    found = by_tokens(imported)
    assert 1 not in found
    assert all(one.maybe_hot for one in found.values())


def test_a_series_of_refused_points_is_not_said_to_lie_outside(system):
    planted.gemm(system, shape(7168, 8192, lambda m, n, k: 0.001))
    imported = read(system, GATE_UP_TP8)
    assert (len(imported.refused), imported.measurements) == (len(TOKENS), [])
    assert "outside" not in "".join(imported.not_run.values())


def test_a_slow_point_is_doubted(system):
    rows = [{**row, "latency": row["latency"] * (4 if row["m"] == 8 else 1)} for row in shape(7168, 8192, affine)]
    planted.gemm(system, rows)
    found = by_tokens(read(system, GATE_UP_TP8))
    (doubt,) = found[8].doubts
    assert doubt.endswith(" times the time of 16 tokens")
    assert {tokens for tokens, one in found.items() if one.doubts} == {8}


def test_every_framework_has_its_own_series(system):
    for framework, slower in (("VLLM", 1), ("SGLang", 2), ("TRTLLM", 4)):
        planted.gemm(system, shape(8192, 1024, lambda m, n, k, slower=slower: slower * affine(m, n, k)), framework)
    found = {one.framework: one for one in read(system, O_TP8).measurements if one.case.tokens == 64}
    base = affine(64, 8192, 1024) * 1e-3
    assert {framework: one.median / base for framework, one in found.items()} == pytest.approx(
        {"vllm": 1, "sglang": 2, "trtllm": 4}
    )


def test_of_two_kernels_for_one_shape_the_order_of_the_rows_does_not_decide(tmp_path):
    fast, slow = shape(8192, 1024, affine), shape(8192, 1024, lambda m, n, k: 3 * affine(m, n, k))
    both = [{**row, "kernel_source": name} for name, rows in (("a", fast), ("b", slow)) for row in rows]
    planted.gemm(tmp_path / "one", both)
    planted.gemm(tmp_path / "other", both[::-1])
    one, other = (
        sorted((point.case.name, point.median) for point in read(tmp_path / name, O_TP8).measurements)
        for name in ("one", "other")
    )
    assert one == other


def test_each_tabulated_point_names_its_own_kernel(tmp_path):
    rows = [{**row, "kernel_source": "small" if row["m"] < 64 else "large"} for row in shape(8192, 1024, affine)]
    planted.gemm(tmp_path, rows)
    points = {one.case.tokens: one for one in read(tmp_path, O_TP8).measurements}
    assert (points[1].kernel_source, points[1].case.kernel) == ("small", "small")
    assert points[128].kernel_source == "large"
    assert points[125].kernel_source == "large | small"  # between two points: whatever the framework has
