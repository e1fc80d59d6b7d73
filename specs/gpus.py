"""The known GPUs, one row a SKU, and the limits of NVIDIA architectures.

The rows come from the vendors' datasheets, with three traps undone. Matrix peaks of Ada, Hopper and Blackwell are
printed with 2:4 sparsity: dense is half. NVLink and PCIe are printed as the sum of both directions: one direction is
half. A consumer card's peak is printed with accumulation in fp16: in fp32 it is half.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from specs.errors import find

MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One SKU.

    Attributes:
        slug: name in options and result files; published systems keep their source's name.
        names: full names that `torch.cuda.get_device_name` returns.
        arch: sm_90, gfx942, …
        flops_per_second: dense peak by dtype, accumulating in fp32 (int8: in int32); fp32 is without matrix units.
        hbm_bytes_per_second, hbm_bytes: the device memory, GDDR too. Printed GB are read as 1e9 bytes; devices report
            up to 7 % more, since most are built in GiB.
        l2_bytes: last cache before memory that all SMs share; cold measurements must outgrow it.
        sms: streaming multiprocessors, or compute units.
        link, link_bytes_per_second: fabric to other GPUs, and the rate at which one GPU sends over it, in ONE
            direction.
        source: origin of the figures.
    """

    slug: str
    names: tuple[str, ...]
    arch: str
    flops_per_second: Mapping[str, float] = field(hash=False)
    hbm_bytes_per_second: float
    hbm_bytes: float
    l2_bytes: int | None
    sms: int | None
    link: str
    link_bytes_per_second: float
    source: str

    def __str__(self) -> str:
        return self.slug


def _teraflops(**peaks: float) -> dict[str, float]:
    """Return peaks in flops/s by dtype, from units of 1e12 flops/s."""
    return {dtype: peak * 1e12 for dtype, peak in peaks.items()}


_A100_PEAKS = _teraflops(fp32=19.5, tf32=156, bf16=312, fp16=312, int8=624)
_GH100_SXM_PEAKS = _teraflops(fp32=67, tf32=494.7, bf16=989.5, fp16=989.5, fp8=1979, int8=1979)
_A100_SHEET = (
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
    "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
_H100_SHEET = "https://resources.nvidia.com/en-us-gpu-resources/h100-datasheet-24306"
_BLACKWELL_BRIEF = "https://resources.nvidia.com/en-us-blackwell-architecture (technical brief 2.1, table 3)"

_ROWS = (
    Gpu(
        slug="v100_sxm",
        names=("Tesla V100-SXM2-32GB",),
        arch="sm_70",
        flops_per_second=_teraflops(fp32=15.7, fp16=125),
        hbm_bytes_per_second=900e9,
        hbm_bytes=32e9,
        l2_bytes=6 * MIB,
        sms=80,
        link="NVLink 2",
        link_bytes_per_second=150e9,
        source="https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf",
    ),
    Gpu(
        slug="a100_sxm",
        names=("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        arch="sm_80",
        flops_per_second=_A100_PEAKS,
        hbm_bytes_per_second=2039e9,
        hbm_bytes=80e9,
        l2_bytes=40 * MIB,
        sms=108,
        link="NVLink 3",
        link_bytes_per_second=300e9,
        source=_A100_SHEET,
    ),
    Gpu(
        slug="a100_sxm_40gb",
        names=("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        arch="sm_80",
        flops_per_second=_A100_PEAKS,
        hbm_bytes_per_second=1555e9,
        hbm_bytes=40e9,
        l2_bytes=40 * MIB,
        sms=108,
        link="NVLink 3",
        link_bytes_per_second=300e9,
        source="https://images.nvidia.com/aem-dam/en-zz/Solutions/data-center/"
        "nvidia-ampere-architecture-whitepaper.pdf",
    ),
    Gpu(
        slug="a100_pcie",
        names=("NVIDIA A100 80GB PCIe",),
        arch="sm_80",
        flops_per_second=_A100_PEAKS,
        hbm_bytes_per_second=1935e9,
        hbm_bytes=80e9,
        l2_bytes=40 * MIB,
        sms=108,
        link="PCIe 4 x16",  # an NVLink bridge is an option and joins two cards only
        link_bytes_per_second=32e9,
        source=_A100_SHEET,
    ),
    Gpu(
        slug="h100_sxm",
        names=("NVIDIA H100 80GB HBM3",),
        arch="sm_90",
        flops_per_second=_GH100_SXM_PEAKS,
        hbm_bytes_per_second=3.35e12,
        hbm_bytes=80e9,
        l2_bytes=50 * MIB,
        sms=132,
        link="NVLink 4",
        link_bytes_per_second=450e9,
        source=_H100_SHEET,
    ),
    Gpu(
        slug="h100_pcie",
        names=("NVIDIA H100 PCIe",),
        arch="sm_90",
        flops_per_second=_teraflops(fp32=51, tf32=378, bf16=756, fp16=756, fp8=1513, int8=1513),
        hbm_bytes_per_second=2e12,
        hbm_bytes=80e9,
        l2_bytes=50 * MIB,
        sms=114,
        link="PCIe 5 x16",  # an NVLink bridge is an option and joins two cards only
        link_bytes_per_second=64e9,
        source=_H100_SHEET,
    ),
    Gpu(
        slug="h200_sxm",
        names=("NVIDIA H200",),
        arch="sm_90",
        flops_per_second=_GH100_SXM_PEAKS,
        hbm_bytes_per_second=4.8e12,
        hbm_bytes=141e9,
        l2_bytes=60 * MIB,  # reported by the driver; the datasheet gives none
        sms=132,
        link="NVLink 4",
        link_bytes_per_second=450e9,
        source="https://resources.nvidia.com/en-us-data-center-overview-mc/en-us-data-center-overview/"
        "hpc-datasheet-sc23-h200",
    ),
    Gpu(
        slug="b200_sxm",
        names=("NVIDIA B200",),
        arch="sm_100",
        flops_per_second=_teraflops(fp32=75, tf32=1125, bf16=2250, fp16=2250, fp8=4500, int8=4500, fp4=9000),
        hbm_bytes_per_second=7.7e12,  # as shipped in HGX B200; 8 TB/s and 192 GB were announced
        hbm_bytes=180e9,
        l2_bytes=132_644_864,  # reported by the driver; the datasheet gives none
        sms=148,
        link="NVLink 5",
        link_bytes_per_second=900e9,
        source=_BLACKWELL_BRIEF,
    ),
    Gpu(
        slug="gb200",
        names=("NVIDIA GB200",),
        arch="sm_100",
        flops_per_second=_teraflops(fp32=80, tf32=1250, bf16=2500, fp16=2500, fp8=5000, int8=5000, fp4=10000),
        hbm_bytes_per_second=8e12,
        hbm_bytes=186e9,
        l2_bytes=None,
        sms=152,
        link="NVLink 5",
        link_bytes_per_second=900e9,
        source="https://www.nvidia.com/en-us/data-center/gb200-nvl72/ (the rack's figures, a 72nd)",
    ),
    Gpu(
        slug="b300_sxm",
        names=("NVIDIA B300 SXM6 AC",),
        arch="sm_103",
        # fp4: 108 PF dense for eight GPUs; sparsity gives 4/3 of the dense peak, not twice
        flops_per_second=_teraflops(fp32=75, tf32=1125, bf16=2250, fp16=2250, fp8=4500, fp4=13500),
        hbm_bytes_per_second=7.7e12,  # as shipped in HGX B300; the full chip has 8 TB/s and 288 GB
        hbm_bytes=270e9,
        l2_bytes=132_644_864,  # reported by the driver; the datasheet gives none
        sms=148,
        link="NVLink 5",
        link_bytes_per_second=900e9,
        source=f"{_BLACKWELL_BRIEF}, fp4 from https://www.nvidia.com/en-us/data-center/hgx/",
    ),
    Gpu(
        slug="gb300",
        names=("NVIDIA GB300",),
        arch="sm_103",
        flops_per_second=_teraflops(fp32=80, tf32=1250, bf16=2500, fp16=2500, fp8=5000, fp4=15000),
        hbm_bytes_per_second=8e12,
        hbm_bytes=279e9,
        l2_bytes=None,
        sms=152,
        link="NVLink 5",
        link_bytes_per_second=900e9,
        source="https://www.nvidia.com/en-us/data-center/gb300-nvl72/ (the rack's figures, a 72nd)",
    ),
    Gpu(
        slug="l4",
        names=("NVIDIA L4",),
        arch="sm_89",
        flops_per_second=_teraflops(fp32=30.3, tf32=60, bf16=121, fp16=121, fp8=242.5, int8=242.5),
        hbm_bytes_per_second=300e9,
        hbm_bytes=24e9,
        l2_bytes=48 * MIB,
        sms=58,
        link="PCIe 4 x16",
        link_bytes_per_second=32e9,
        source="https://resources.nvidia.com/en-us-data-center-overview/l4-gpu-datasheet",
    ),
    Gpu(
        slug="l40s",
        names=("NVIDIA L40S",),
        arch="sm_89",
        flops_per_second=_teraflops(fp32=91.6, tf32=183, bf16=362.05, fp16=362.05, fp8=733, int8=733),
        hbm_bytes_per_second=864e9,
        hbm_bytes=48e9,
        l2_bytes=96 * MIB,
        sms=142,
        link="PCIe 4 x16",
        link_bytes_per_second=32e9,
        source="https://resources.nvidia.com/en-us-l40s/l40s-datasheet-28413",
    ),
    Gpu(
        slug="rtx_4090",
        names=("NVIDIA GeForce RTX 4090",),
        arch="sm_89",
        flops_per_second=_teraflops(fp32=82.6, tf32=82.6, bf16=165.2, fp16=165.2, fp8=330.3, int8=660.6),
        hbm_bytes_per_second=1008e9,
        hbm_bytes=24e9,
        l2_bytes=72 * MIB,
        sms=128,
        link="PCIe 4 x16",
        link_bytes_per_second=32e9,
        source="https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
    ),
    Gpu(
        slug="rtx_pro_6000_server",
        names=("NVIDIA RTX PRO 6000 Blackwell Server Edition",),
        arch="sm_120",
        # Rounded by the vendor; only tf32 is printed dense.
        flops_per_second=_teraflops(fp32=120, tf32=234, bf16=500, fp16=500, fp8=1000, fp4=2000),
        hbm_bytes_per_second=1597e9,  # not the 1792 of the workstation edition
        hbm_bytes=96e9,
        l2_bytes=128 * MIB,
        sms=188,
        link="PCIe 5 x16",
        link_bytes_per_second=64e9,
        source="https://www.nvidia.com/en-us/data-center/rtx-pro-6000-blackwell-server-edition/",
    ),
    Gpu(
        slug="mi300x",
        names=("AMD Instinct MI300X", "AMD Instinct MI300X OAM", "AMD Instinct MI300X VF"),
        arch="gfx942",
        flops_per_second=_teraflops(fp32=163.4, tf32=653.7, bf16=1307.4, fp16=1307.4, fp8=2614.9, int8=2614.9),
        hbm_bytes_per_second=5.3e12,
        hbm_bytes=192e9,
        l2_bytes=256 * MIB,  # the Infinity Cache; the eight L2 of 4 MiB are private to their dies
        sms=304,
        link="xGMI, 7 links",
        link_bytes_per_second=448e9,
        source="https://www.amd.com/content/dam/amd/en/documents/instinct-tech-docs/data-sheets/"
        "amd-instinct-mi300x-data-sheet.pdf",
    ),
)

GPUS: dict[str, Gpu] = {row.slug: row for row in _ROWS}
"""All GPUs by slug."""


# Names of GPUs as they are typed: slugs, device names, and names in prose.

_VENDOR_WORDS = frozenset({"nvidia", "amd", "instinct", "tesla", "geforce", "gpu"})
_FURTHER_WORDS = {"h200_sxm": {"hbm3e"}, "gb200": {"nvl72"}, "gb300": {"nvl72"}}
"""Words that datasheets add to the name of a part."""


def _words(name: str) -> list[str]:
    """Return the words of a name without the vendor's; `80 GB` is one word, and `h100sxm5` two."""
    joined = re.sub(r"(\d)\s*gi?b\b", r"\1gb", name.lower().replace("_", " "))
    apart = re.sub(r"(sxm\d?|pcie)", r" \1 ", joined)
    return [
        re.sub(r"sxm\d", "sxm", word) for word in re.split(r"[^a-z0-9]+", apart) if word and word not in _VENDOR_WORDS
    ]


def _series(row: Gpu) -> str:
    """Return the words that all parts of a series share, as one: h100, rtxpro6000."""
    return "".join(word for word in _words(row.slug) if not re.fullmatch(r"sxm|pcie|server|\d+gb", word))


def _part_words(row: Gpu) -> set[str]:
    """Return the words that may follow the series in a name of this part."""
    words = {word for name in (row.slug, *row.names) for word in _words(name)}
    return words | {f"{row.hbm_bytes / 1e9:.0f}gb"} | _FURTHER_WORDS.get(row.slug, set())


def match_gpu(name: str) -> Gpu | None:
    """Return the GPU that `name` stands for; None where a word of it belongs to no known part.

    A name may be a slug, a device name, or words such as `H100 SXM5` or `NVIDIA A100 80GB PCIe`, in any case. A name
    that several parts share stands for the first of them in `GPUS`: SXM before PCIe, and the larger memory before the
    smaller. So `H100` is h100_sxm, `A100` is a100_sxm with 80 GB, and `RTX PRO 6000` is the server edition.
    """
    if row := GPUS.get(name) or recognise_gpu(name):
        return row
    words = _words(name)
    for count in range(1, len(words) + 1):
        series, rest = "".join(words[:count]), set(words[count:])
        for row in GPUS.values():
            if series == _series(row) and rest <= _part_words(row):
                return row
    return None


def find_gpu(name: str) -> Gpu:
    """Return the GPU that `name` stands for, by the rules of `match_gpu`.

    The message suggests no GPU, because names that differ by a letter are different parts: L4 and L40S, B200 and GB200.

    Raises:
        UserError: no such GPU.
    """
    row = match_gpu(name)
    return find(GPUS, row.slug if row else name, "GPU", distinct=str)


def device_name(name: str) -> str:
    """Return the device name of the GPU that `name` stands for; a name of no known GPU stays as it is."""
    row = match_gpu(name)
    return name if row is None or name in row.names else row.names[0]


def recognise_gpu(device_name: str, memory_bytes: int | None = None) -> Gpu | None:
    """Return the row of this device; None where its peaks are unknown.

    Args:
        device_name: name from `torch.cuda.get_device_name`; it must match in full (an L40 is no L40S).
        memory_bytes: memory that the device reports; a slice of a GPU (MIG, vGPU) or a rebuilt card is not recognised.
    """
    for row in GPUS.values():
        if device_name in row.names:
            whole = memory_bytes is None or 0.85 < memory_bytes / row.hbm_bytes < 1.15
            return row if whole else None
    return None


# Capacity of one streaming multiprocessor (SM) of each NVIDIA architecture, and its occupancy.

WARP_SIZE = 32
REGISTERS_PER_SM = 65536
"""32-bit registers of an SM, the same on every architecture here."""

RESERVED_SHARED_BYTES = 1024
"""Shared memory that the system reserves for each resident block, from sm_80 on."""


@dataclass(frozen=True)
class Arch:
    """Limits of one architecture, from the CUDA C++ programming guide.

    Attributes:
        name: sm_90, …
        shared_bytes: shared memory of an SM.
        shared_bytes_per_block: the most that one block may ask for.
        warps, blocks: the most that are resident on an SM.
        matrix: bf16 matrix instruction in SASS: HMMA is issued by a warp, HGMMA by four warps, UTCHMMA by one thread
            for four warps.
        tma: True where the arch has the bulk tensor copy engine.
        dependent_launch: True where a grid may start before the previous grid has ended.
        gpu: slug of the GPU that predictions take bandwidth and SMs from; sm_86 borrows sm_89's.
    """

    name: str
    shared_bytes: int
    shared_bytes_per_block: int
    warps: int
    blocks: int
    matrix: str
    tma: bool
    dependent_launch: bool
    gpu: str

    @property
    def representative(self) -> Gpu:
        """The GPU named by `gpu`."""
        return GPUS[self.gpu]


def _nvidia_arch(name: str, shared_kib: int, warps: int, blocks: int, matrix: str, newer: bool, gpu: str) -> Arch:
    shared = shared_kib * 1024
    return Arch(name, shared, shared - RESERVED_SHARED_BYTES, warps, blocks, matrix, newer, newer, gpu)


ARCHS = {
    row.name: row
    for row in (
        _nvidia_arch("sm_80", 164, 64, 32, "HMMA", False, "a100_sxm"),
        _nvidia_arch("sm_86", 100, 48, 16, "HMMA", False, "l40s"),
        _nvidia_arch("sm_89", 100, 48, 24, "HMMA", False, "l40s"),
        _nvidia_arch("sm_90", 228, 64, 32, "HGMMA", True, "h200_sxm"),
        _nvidia_arch("sm_100", 228, 64, 32, "UTCHMMA", True, "b200_sxm"),
        _nvidia_arch("sm_103", 228, 64, 32, "UTCHMMA", True, "b300_sxm"),
        _nvidia_arch("sm_120", 100, 48, 24, "HMMA", True, "rtx_pro_6000_server"),
    )
}
DEPENDENT_LAUNCH_ARCHS = tuple(name for name, row in ARCHS.items() if row.dependent_launch)


def find_arch(name: str) -> Arch:
    """Return the architecture called `name`.

    Raises:
        UserError: the limits of this architecture are unknown.
    """
    return find(ARCHS, name, "architecture")


def blocks_per_sm(arch: Arch, *, registers: int, shared_bytes: int, warps: int) -> int:
    """Return how many blocks an SM holds at once; 0 where one block is too large.

    Args:
        arch: the architecture.
        registers: registers of a thread; warps get them in units of 256.
        shared_bytes: shared memory that a block asks for.
        warps: warps of a block.
    """
    if shared_bytes > arch.shared_bytes_per_block:
        return 0
    per_warp = -(-registers * WARP_SIZE // 256) * 256
    return min(
        arch.blocks,
        arch.warps // warps,
        REGISTERS_PER_SM // (per_warp * warps) if per_warp else arch.blocks,
        arch.shared_bytes // (shared_bytes + RESERVED_SHARED_BYTES),
    )
