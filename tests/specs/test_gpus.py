import pytest

from specs.errors import UserError
from specs.gpus import GPUS, device_name, find_gpu, match_gpu, recognise_gpu
from specs.units import ITEMSIZE


@pytest.mark.parametrize(
    ("device_name", "slug"),
    [
        ("Tesla V100-SXM2-32GB", "v100_sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100_sxm"),
        ("NVIDIA A100-SXM4-40GB", "a100_sxm_40gb"),
        ("NVIDIA A100 80GB PCIe", "a100_pcie"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA H200", "h200_sxm"),
        ("NVIDIA B200", "b200_sxm"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA B300 SXM6 AC", "b300_sxm"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx_4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000_server"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_a_device_is_recognised_by_its_name(device_name, slug):
    assert recognise_gpu(device_name) is find_gpu(slug)


@pytest.mark.parametrize(
    "device_name",
    [
        "NVIDIA L40",
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA H20",
        "NVIDIA GH200 480GB",
        "NVIDIA A100-PCIE-40GB",
        "NVIDIA A800-SXM4-80GB",
        "Tesla V100-SXM2-16GB",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA H200 MIG 1g.18gb",
        "AMD Instinct MI300A",
        "",
    ],
)
def test_a_neighbour_is_not_mistaken_for_a_known_gpu(device_name):
    assert recognise_gpu(device_name) is None


@pytest.mark.parametrize(
    ("device_name", "mebibytes"),
    [
        ("NVIDIA H200", 143_156),  # 150.1e9 bytes where the datasheet prints 141 GB
        ("NVIDIA L40S", 45_589),  # 47.8e9 bytes where it prints 48 GB
        ("NVIDIA B300 SXM6 AC", 275_040),
    ],
)
def test_memory_as_drivers_report_it_agrees(device_name, mebibytes):
    assert recognise_gpu(device_name, mebibytes * 1024**2) is not None


@pytest.mark.parametrize("memory_bytes", [16 * 1024**3, 282_000_000_000])
def test_a_slice_or_a_rebuilt_card_has_unknown_peaks(memory_bytes):
    assert recognise_gpu("NVIDIA H200", memory_bytes) is None


def test_no_name_belongs_to_two_rows():
    names = [name for row in GPUS.values() for name in row.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("slug", "printed_sparse", "dtype"),
    [
        ("h100_sxm", 1979e12, "bf16"),
        ("h200_sxm", 3958e12, "fp8"),
        ("b200_sxm", 4.5e15, "bf16"),
        ("b200_sxm", 18e15, "fp4"),
        ("gb200", 5e15, "bf16"),
        ("l4", 242e12, "bf16"),
        ("l40s", 1466e12, "fp8"),
        ("rtx_pro_6000_server", 1e15, "bf16"),
    ],
)
def test_peaks_are_dense_half_of_what_is_printed(slug, printed_sparse, dtype):
    assert find_gpu(slug).flops_per_second[dtype] == pytest.approx(printed_sparse / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("slug", "printed_both_directions"),
    [
        ("v100_sxm", 300e9),
        ("a100_sxm", 600e9),
        ("h100_sxm", 900e9),
        ("b200_sxm", 1.8e12),
        ("l40s", 64e9),
        ("mi300x", 7 * 128e9),
    ],
)
def test_links_are_one_direction_half_of_what_is_printed(slug, printed_both_directions):
    assert find_gpu(slug).link_bytes_per_second == printed_both_directions / 2


@pytest.mark.parametrize("row", GPUS.values(), ids=str)
def test_a_row_is_plausible(row):
    peaks = row.flops_per_second
    assert set(peaks) <= {*ITEMSIZE, "fp4"}
    assert peaks["fp32"] < peaks["fp16"]
    assert peaks.get("fp8", 2 * peaks["fp16"]) == pytest.approx(
        2 * peaks["fp16"], rel=0.02
    )  # half the bits, twice the rate
    assert ("bf16" in peaks) == (row.arch != "sm_70")
    assert 16e9 <= row.hbm_bytes <= 300e9
    assert row.link_bytes_per_second < row.hbm_bytes_per_second
    assert row.source.startswith("https://")
    assert hash(row)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("H100", "h100_sxm"),
        ("h100", "h100_sxm"),
        ("H100 SXM5", "h100_sxm"),
        ("H100-SXM", "h100_sxm"),
        ("h100sxm5", "h100_sxm"),
        ("H100-SXM5-80GB", "h100_sxm"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("H100 PCIe", "h100_pcie"),
        ("h200", "h200_sxm"),
        ("H200 141 GB HBM3e", "h200_sxm"),
        ("B200", "b200_sxm"),
        ("GB200", "gb200"),
        ("GB200 NVL72", "gb200"),
        ("L4", "l4"),
        ("L40S", "l40s"),
        ("A100", "a100_sxm"),  # 80 GB before 40 GB, SXM before PCIe
        ("A100 80GB", "a100_sxm"),
        ("A100 40 GB", "a100_sxm_40gb"),
        ("a100 pcie", "a100_pcie"),
        ("A100-SXM4-40GB", "a100_sxm_40gb"),
        ("RTX PRO 6000", "rtx_pro_6000_server"),
        ("RTX4090", "rtx_4090"),
        ("MI300X", "mi300x"),
    ],
)
def test_a_gpu_is_found_by_the_names_that_people_type(name, slug):
    assert match_gpu(name) is find_gpu(name) is GPUS[slug]


@pytest.mark.parametrize("row", GPUS.values(), ids=str)
def test_every_slug_and_device_name_finds_its_own_row_in_any_case(row):
    for name in (row.slug, row.slug.upper(), *row.names, *(name.lower() for name in row.names)):
        assert find_gpu(name) is row


@pytest.mark.parametrize(
    "name",
    [
        *("gb200_sxm", "l40", "h20", "h100_nvl", "H100 NVL", "GH200", "A100-PCIE-40GB", "V100 16GB", "H100 PCIe SXM"),
        *(
            "RTX PRO 6000 Workstation",
            "RTX 4090 D",
            "MI300A",
            "H200 MIG 1g.18gb",
            "h10_sxm",
            "b100",
            "80GB",
            "nvidia",
            "",
        ),
    ],
)
def test_another_part_is_neither_found_nor_suggested(name):
    with pytest.raises(UserError, match=r"unknown GPU '.*'; known: v100_sxm, .*mi300x$"):
        find_gpu(name)


def test_an_importer_takes_a_slug_a_short_name_or_an_unknown_device():
    assert device_name("h200_sxm") == device_name("H200") == "NVIDIA H200"
    assert device_name("A100-SXM4-80GB") == "A100-SXM4-80GB"  # as that device itself reports
    assert device_name("NVIDIA H100 NVL") == "NVIDIA H100 NVL"
