import pytest

from reports.importers.aiconfigurator import readers
from tests.reports.importers.aiconfigurator import planted_tables as planted

ROW = {"message_size": 8192, "latency": 0.02}


@pytest.fixture
def system(tmp_path):
    return tmp_path / "h200_sxm"


def only(system):
    (one,) = readers.read_collectives(system).measurements
    return one


def test_nccl_in_bytes_though_the_table_counts_elements(system):
    planted.nccl(system, [ROW], version="2.29.2")
    one = only(system)
    assert one.samples == (pytest.approx(2e-5),)
    assert (one.framework, one.version, one.kernel_source, one.provenance) == ("trtllm", "2.29.2", "NCCL", "published")
    case = one.case
    assert case.name == "aiconfigurator::all_reduce[8x16384-fp16-nccl-eager]"
    assert (case.question, case.op, case.implementation) == ("communication", "all_reduce", "nccl")
    assert (case.dtype, case.message_bytes, case.ranks, case.tp) == ("fp16", 16_384, 8, 8)  # half: 2 bytes
    assert case.wire_bytes_sent_per_rank == 28_672  # 2 x 7 / 8 of the message
    assert (case.cache, case.launch, case.flops, case.hbm_bytes) == ("unknown", "eager", 0, 0)


@pytest.mark.parametrize(
    ("theirs", "ours", "message_bytes"),
    [("half", "fp16", 16_384), ("float16", "fp16", 16_384), ("bfloat16", "bf16", 16_384), ("int8", "int8", 8_192)],
)
def test_bytes_of_each_format(system, theirs, ours, message_bytes):
    planted.nccl(system, [ROW], nccl_dtype=theirs)
    assert (only(system).case.dtype, only(system).case.message_bytes) == (ours, message_bytes)


@pytest.mark.parametrize(("ranks", "wire"), [(2, 16_384), (4, 24_576), (8, 28_672)])
def test_bytes_on_the_wire(system, ranks, wire):
    planted.nccl(system, [ROW], num_gpus=ranks)
    assert (only(system).case.ranks, only(system).case.wire_bytes_sent_per_rank) == (ranks, wire)


@pytest.mark.parametrize(
    ("framework", "kernel", "launch"),
    [
        ("VLLM", "vLLM_custom_graph", "graph"),
        ("VLLM", "vLLM_custom_eager", "eager"),
        ("SGLang", "SGLang_CustomAllReduce_graph", "graph"),
        ("TRTLLM", "TRTLLM", "graph"),
        ("SGLang", "SGLang_CustomAllReduce", "unknown"),
    ],
)
def test_how_a_custom_kernel_was_launched(system, framework, kernel, launch):
    planted.all_reduce(system, [ROW], framework, kernel_source=kernel)
    case = only(system).case
    assert (case.launch, case.implementation, case.kernel) == (launch, "custom", kernel)
    assert case.name == f"aiconfigurator::all_reduce[8x16384-bf16-{framework.lower()}-{launch}]"


def test_graph_and_eager_stand_apart(system):
    both = [{**ROW, "kernel_source": f"vLLM_custom_{launch}", "latency": ms} for launch, ms in ONE_EACH.items()]
    planted.all_reduce(system, both)
    found = {one.case.launch: one for one in readers.read_collectives(system).measurements}
    assert {launch: one.median for launch, one in found.items()} == {
        launch: pytest.approx(ms * 1e-3) for launch, ms in ONE_EACH.items()
    }
    assert len({one.case.name for one in found.values()}) == 2


ONE_EACH = {"graph": 0.004, "eager": 0.02}


def test_two_kernels_of_one_framework_have_two_names(system):
    planted.all_reduce(system, [{**ROW, "kernel_source": f"vLLM_{kind}_graph"} for kind in ("oneshot", "twoshot")])
    names = [one.case.name for one in readers.read_collectives(system).measurements]
    assert len(names) == len(set(names)) == 2


def test_a_kernel_that_was_renamed_has_one_case(system):
    planted.all_reduce(system, [ROW], version="0.24.0", kernel_source="vLLM_custom_graph")
    planted.all_reduce(system, [{**ROW, "latency": 9.0}], version="0.9.0", kernel_source="vLLM_CustomAllReduce_graph")
    found = readers.read_collectives(system).measurements
    assert len({one.case.name for one in found}) == len(found)


def test_other_collectives_and_formats_are_left_out(system):
    others = [{"op_name": "all_gather"}, {"op_name": "alltoall"}, {"nccl_dtype": "float32"}]
    planted.nccl(system, [ROW, *({**ROW, "latency": 9.0, **other} for other in others)])
    assert only(system).median == pytest.approx(2e-5)


def test_the_newest_version(system):
    planted.nccl(system, [ROW, {**ROW, "num_gpus": 2}], version="2.9")
    planted.nccl(system, [{**ROW, "latency": 0.01}], version="2.23")
    found = {one.case.ranks: one.version for one in readers.read_collectives(system).measurements}
    assert found == {2: "2.9", 8: "2.23"}


def test_both_kinds_are_read(system):
    planted.nccl(system, [ROW])
    planted.all_reduce(system, [ROW], kernel_source="vLLM_custom_graph")
    imported = readers.read_collectives(system)
    assert [one.case.implementation for one in imported.measurements] == ["nccl", "custom"]
    assert imported.not_run == {}


def test_what_has_no_table_is_missing_with_a_reason(system):
    imported = readers.read_collectives(system)
    assert imported.measurements == []
    assert {name: why.partition(" that")[0] for name, why in imported.not_run.items()} == {
        "aiconfigurator::all_reduce[nccl]": "h200_sxm: no table comm/*/*/nccl_perf.parquet",
        "aiconfigurator::all_reduce[custom]": "h200_sxm: no table comm/*/*/custom_allreduce_perf.parquet",
    }
