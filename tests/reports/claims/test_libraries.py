"""Which fabrics and libraries the figures of a file were made with."""

import pytest

from reports.claims import report
from reports.results import load
from tests.reports import planted
from tests.reports.tp_vs_pp.planted_steps import TP2, step

L40S = planted.H200 | {"gpu": "NVIDIA L40S", "gpu_memory_bytes": 48_000_000_000}
GB200 = planted.H200 | {"gpu": "NVIDIA GB200", "gpu_memory_bytes": 186_000_000_000}
A100 = planted.H200 | {"gpu": "NVIDIA A100-SXM4-80GB", "gpu_memory_bytes": 80_000_000_000}
V100 = planted.H200 | {"gpu": "Tesla V100-SXM2-32GB", "gpu_memory_bytes": 32_000_000_000}
MI300X = planted.H200 | {"gpu": "AMD Instinct MI300X", "gpu_memory_bytes": 192_000_000_000, "hip": "6.4"}


def all_reduce(implementation="nccl", ranks=2, **facts):
    one = planted.case(
        f"all_reduce[{implementation}-{ranks}]", question="communication", op="all_reduce",
        implementation=implementation, model=None, layer=None, tp=None, pp=None, n=None, k=None, tokens=None,
        ranks=ranks, message_bytes=1024,
    )  # fmt: skip
    return planted.measured(one, 1e-5, **facts)


@pytest.fixture
def states(tmp_path):
    """By axis what is said of a file."""

    def states(measurements, machine=planted.H200):
        (table,) = report.library_tables([load(planted.write(tmp_path / "x.json", measurements, machine=machine))])
        (row,) = table.rows
        return dict(zip([column.title for column in table.columns], row, strict=True))

    return states


@pytest.mark.parametrize(
    ("measurements", "machine", "axis", "state"),
    [
        ([all_reduce()], planted.H200, "NCCL", "used"),
        ([all_reduce("custom")], planted.H200, "NCCL", "not used"),
        ([all_reduce("gloo")], planted.CPU, "NCCL", "not present"),
        ([step(TP2, backend="nccl")], planted.H200, "NCCL", "used"),
        ([step(TP2)], planted.CPU, "NCCL", "not present"),
        ([all_reduce("rccl")], MI300X, "RCCL", "used"),
        ([], MI300X, "RCCL", "not used"),
        ([all_reduce()], planted.H200, "RCCL", "not present"),
        ([all_reduce(ranks=8)], planted.H200, "NVSwitch", "used"),
        ([all_reduce(ranks=8)], A100, "NVSwitch", "used"),
        ([all_reduce(ranks=4)], planted.H200, "NVSwitch", "not used"),  # boards of four have none
        ([all_reduce(ranks=8)], planted.H200 | {"hosts": 2}, "NVSwitch", "not used"),
        ([all_reduce(ranks=4)], GB200, "NVSwitch", "used"),
        ([all_reduce("symm-multimem", ranks=4)], planted.H200, "NVSwitch", "used"),
        ([all_reduce(ranks=8)], L40S, "NVSwitch", "not present"),
        ([all_reduce(ranks=8)], V100, "NVSwitch", "not present"),
        ([all_reduce("symm-multimem")], planted.H200, "NVLS", "used"),
        ([all_reduce(algorithm="NVLS, simple")], planted.H200, "NVLS", "used"),
        ([all_reduce(algorithm="ring")], planted.H200, "NVLS", "not used"),
        ([all_reduce(ranks=8)], planted.H200, "NVLS", "unknown"),
        ([], planted.H200, "NVLS", "not used"),
        ([all_reduce(ranks=8)], A100, "NVLS", "not present"),
        ([all_reduce()], L40S, "NVLS", "not present"),
        ([all_reduce()], planted.H200 | {"hosts": 2}, "NIC, GPU-direct", "used"),
        ([all_reduce()], planted.H200, "NIC, GPU-direct", "not used"),
        ([all_reduce("gloo")], planted.CPU, "NIC, GPU-direct", "not present"),
        ([all_reduce(ranks=8)], GB200, "NVL72", "used"),
        ([all_reduce(ranks=4)], GB200, "NVL72", "not used"),
        ([all_reduce(ranks=8)], planted.H200, "NVL72", "not present"),
        ([all_reduce()], planted.H200 | {"variables": {"NCCL_NET_PLUGIN": "libnccl-net-uccl.so"}}, "UCCL", "used"),
        ([all_reduce()], planted.H200, "UCCL", "not used"),
        ([all_reduce("gloo")], planted.CPU, "UCCL", "not present"),
    ],
)  # fmt: skip
def test_an_axis(states, measurements, machine, axis, state):
    assert states(measurements, machine)[axis] == state


def test_without_files_there_is_no_table():
    assert report.library_tables([]) == []
