"""`import aiconfigurator`: published tables of one system as a result file."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from reports import resultfile
from reports.silicon.formats import FORMATS
from reports.silicon.imported import Imported
from reports.silicon.package import Package
from specs.errors import UserError, find
from specs.gpus import Gpu
from specs.measurement import SCHEMA
from specs.models import model
from specs.parallel import Split

DTYPES = ("bf16",)
MODELS = ("llama-3-70b", "qwen3-235b-a22b", "deepseek-v3")
WIDTHS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Wanted:
    """What to take from the tables: the shards of these models under TP of these widths, in these formats.

    Raises:
        UserError: an unknown model or format, or a width that splits none of the models.
    """

    models: Sequence[str] = MODELS
    widths: Sequence[int] = WIDTHS
    dtypes: Sequence[str] = DTYPES

    def __post_init__(self) -> None:
        for dtype in self.dtypes:
            find(FORMATS, dtype, "number format")
        self.splits()

    def splits(self) -> list[Split]:
        """Every model by every width that divides it.

        Raises:
            UserError: a width divides none of them.
        """
        found = []
        for tp in self.widths:
            errors = []
            for slug in self.models:
                try:
                    found.append(Split(model(slug), tp))
                except UserError as error:
                    errors.append(error)
            if len(errors) == len(self.models):
                raise errors[0]
        return found


def text(package: Package, system: str, wanted: Wanted) -> tuple[str, str]:
    """The result file of a system, and what to tell the user about it.

    Raises:
        UserError: the system is unknown, or its tables cannot be used.
    """
    folder, gpu = package.system(system)
    imported = gather(folder, gpu, wanted)
    if all(one.case.op == "all_reduce" for one in imported.measurements):
        raise UserError(f"{system}: none of its tables holds {', '.join(wanted.models)} in {', '.join(wanted.dtypes)}")
    content = _content(package, system, gpu, wanted, imported)
    return json.dumps(content, allow_nan=False) + "\n", _summary(package, system, imported)


def gather(folder: Path, gpu: Gpu, wanted: Wanted) -> Imported:
    """All families of one system: linears and attention of dense models, the routed experts of the others.

    Raises:
        UserError: there is no table of GEMMs that can be used.
    """
    from reports.silicon import (
        attention,
        collectives,
        experts,
        linears,  # pandas: not where the cache has it all
    )

    splits = [split for split in wanted.splits() if not split.model.experts]
    shards = [shard for split in splits for shard in split.linears.values()]
    imported = Imported()
    imported.extend(
        [
            linears.read(folder, gpu, shards, wanted.dtypes),
            experts.read(folder, gpu, [model(slug) for slug in wanted.models], wanted.widths, wanted.dtypes),
            attention.read(folder, gpu, splits, wanted.dtypes),
            collectives.read(folder),
        ]
    )
    return imported


def _content(package: Package, system: str, gpu: Gpu, wanted: Wanted, imported: Imported) -> resultfile.Record:
    machine = {
        "shardbench_schema": SCHEMA,
        "device": "cuda",
        "gpu": imported.device,
        "system": system,
        "arch": gpu.arch,
        "sms": gpu.sms,
        "l2_bytes": gpu.l2_bytes,
        "gpu_memory_bytes": int(gpu.hbm_bytes),
        "source": f"{package.name} (Apache-2.0), published by NVIDIA; not measured here",
    }
    left_out = resultfile.reasons(imported.not_run | imported.refused)
    return {
        "machine_info": machine,
        "commit_info": {},
        "benchmarks": [resultfile.entry(one) for one in imported.measurements],
        "datetime": datetime.now(UTC).isoformat(),
        "version": package.version,
        "shardbench": resultfile.block(
            not_run=left_out, failed=[], options=asdict(wanted), notes=list(dict.fromkeys(imported.notes))
        ),
    }


def _summary(package: Package, system: str, imported: Imported) -> str:
    """What was imported, in lines."""
    ops = Counter(one.case.op for one in imported.measurements)
    how = Counter(one.provenance for one in imported.measurements)
    hot = sum(1 for one in imported.measurements if one.maybe_hot)
    odd = sum(1 for one in imported.measurements if one.doubts)
    lines = [
        f"{system}: {len(imported.measurements)} points of {imported.device} from {package.name}: "
        + ", ".join(f"{count} {op}" for op, count in ops.items()),
        f"{how['published']} published, {how['interpolated']} interpolated; {hot} maybe hot, "
        f"{odd} slower than with more tokens",
        f"refused {len(imported.refused)} that no memory could serve; {len(imported.not_run)} series missing",
        *imported.notes,
    ]
    return "\n".join(lines)
