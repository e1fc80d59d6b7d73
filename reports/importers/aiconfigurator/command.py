"""`import aiconfigurator`: write one system's published tables as a result file."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from reports import output, results
from reports.importers import result_file
from reports.importers.aiconfigurator import package
from reports.importers.aiconfigurator.package import (
    DEFAULT_DTYPES,
    DEFAULT_MODELS,
    DEFAULT_WIDTHS,
    TABLE_FORMATS,
    TablePackage,
)
from reports.importers.aiconfigurator.points import ImportedPoints
from reports.text_cache import ROOT, fetch_cached
from specs.errors import UserError, find
from specs.gpus import Gpu
from specs.measurement import SCHEMA
from specs.models import find_model
from specs.parallel import Split

# Cache of imports: the same package, options and code give the same file.

CODE_PATTERNS = ("reports/importers/aiconfigurator/*.py", "reports/importers/result_file.py", "specs/*.py")


def folder_state(folder: Path) -> str:
    """Fingerprint of a folder's files: names, sizes and times."""
    files = ((path, path.stat()) for path in sorted(folder.rglob("*.parquet")))
    return "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in files)


def _code() -> str:
    """Hash of the importing code: a changed rule invalidates the cache."""
    found = hashlib.sha256()
    for pattern in CODE_PATTERNS:
        for path in sorted(ROOT.glob(pattern)):
            found.update(path.read_bytes())
    return found.hexdigest()


# Import of one system's published tables as a result file.


@dataclass(frozen=True)
class ImportOptions:
    """Selection from the tables: shards of `models` under TP `widths`, in `dtypes`.

    Models are given by any name that `find_model` takes, and kept by slug.

    Raises:
        UserError: an unknown model or format, or a width that divides none of the models.
    """

    models: Sequence[str] = DEFAULT_MODELS
    widths: Sequence[int] = DEFAULT_WIDTHS
    dtypes: Sequence[str] = DEFAULT_DTYPES

    def __post_init__(self) -> None:
        for dtype in self.dtypes:
            find(TABLE_FORMATS, dtype, "number format")
        object.__setattr__(self, "models", tuple(dict.fromkeys(find_model(name).slug for name in self.models)))
        self.splits()

    def splits(self) -> list[Split]:
        """Every model at every width that divides it.

        Raises:
            UserError: a width divides none of the models.
        """
        found = []
        for tp in self.widths:
            errors = []
            for slug in self.models:
                try:
                    found.append(Split(find_model(slug), tp))
                except UserError as error:
                    errors.append(error)
            if len(errors) == len(self.models):
                raise errors[0]
        return found


def plan_options(models: Iterable[str], widths: Iterable[int], dtype: str) -> ImportOptions:
    """Options of an import for plans of `models` at `widths`.

    An LM head that no table has at a width is scaled from another width, and gate and up can be two calls of half. So
    the usual widths are always imported, and a figure depends on no other query. Widths that divide no model are left
    out.
    """
    slugs = tuple(models)
    dividing = tuple(tp for tp in sorted({*DEFAULT_WIDTHS, *widths}) if _divides_any(slugs, tp))
    return ImportOptions(slugs, dividing, (dtype,))


def _divides_any(models: Iterable[str], tp: int) -> bool:
    for name in models:
        with contextlib.suppress(UserError):
            Split(find_model(name), tp)
            return True
    return False


def result_text(package: TablePackage, system: str, options: ImportOptions) -> tuple[str, str]:
    """Text of a system's result file, and a summary for the user.

    Raises:
        UserError: the system is unknown, or its tables cannot be used.
    """
    folder, gpu = package.system(system)
    system = gpu.slug
    imported = import_points(folder, gpu, options)
    if not any(one.case.op != "all_reduce" and one.case.dtype in options.dtypes for one in imported.measurements):
        raise UserError(
            f"{system}: none of its tables holds {', '.join(options.models)} in {', '.join(options.dtypes)}, or shapes "
            "to interpolate between; choose another model, number format or GPU"
        )
    content = _content(package, system, gpu, options, imported)
    return json.dumps(content, allow_nan=False) + "\n", _summary(package, system, imported)


def cached_result_text(
    found: TablePackage, system: str, options: ImportOptions, make: Callable[[], tuple[str, str]] | None = None
) -> tuple[str, str, bool]:
    """Return `result_text` of a system, and True where the cache held it.

    Args:
        found: the installed package.
        system: name of the system in the package.
        options: what to import.
        make: gives the text where the cache does not hold it; None for `result_text` alone.

    Raises:
        UserError: as `result_text`, or a package that reads the tables is not installed.
    """
    shapes = [find_model(slug) for slug in options.models]
    key = f"{found.name}\n{folder_state(found.data / system)}\n{system}\n{options}\n{shapes}{_code()}"

    def both() -> str:
        content, summary = make() if make else result_text(found, system, options)
        return f"{summary}\0{content}"

    try:
        text, kept = fetch_cached(key, both)
    except ImportError as error:
        raise UserError(f"published silicon: {error.name} is not installed; {package.INSTALL_COMMAND}") from error
    summary, content = text.split("\0", 1)
    return content, summary, kept


def published_file(
    found: TablePackage, system: str, options: ImportOptions, *, progress: bool = False
) -> results.ResultFile:
    """Return a system's published figures for a plan, from the cache or imported now.

    Args:
        found: the installed package.
        system: name of the system in the package.
        options: what to import.
        progress: say on stderr that an import runs and how long it took; figures from the cache take no time.

    Raises:
        UserError: as `cached_result_text`, or no table has linears in the formats.
    """

    def make() -> tuple[str, str]:
        _require_linears(found, system, options.dtypes)
        what = f"{', '.join(options.models)} in {', '.join(options.dtypes)}"
        if progress:
            output.announce(f"{system}: importing {what} from {found.name}, some seconds", only_terminal=True)
        started = perf_counter()
        made = result_text(found, system, options)
        if progress:
            output.announce(f"{system}: imported {what} in {perf_counter() - started:.1f} s")
        return made

    text, *_ = cached_result_text(found, system, options, make)
    return results.parse(Path(f"{found.name} {system}"), json.loads(text))


def _require_linears(found: TablePackage, system: str, dtypes: Sequence[str]) -> None:
    """Refuse formats that none of the system's tables has linears in.

    Raises:
        UserError: the message names the formats that there are.
    """
    from reports.importers.aiconfigurator import readers

    there = readers.linear_formats(found.data / system)
    if there and not {*dtypes} & {*there}:
        raise UserError(
            f"{system}: {found.name} has no linears in {', '.join(dtypes)}; choose --dtype {', '.join(there)}, or "
            "another GPU"
        )


def import_points(folder: Path, gpu: Gpu, options: ImportOptions) -> ImportedPoints:
    """Import all families of one system.

    Dense models give linears and attention, MoE models routed experts; all-reduces need no model.

    Raises:
        UserError: no table of GEMMs can be used.
    """
    from reports.importers.aiconfigurator import readers

    splits = [split for split in options.splits() if not split.model.experts]
    shards = [shard for split in splits for shard in split.linears.values()]
    imported = ImportedPoints()
    imported.extend(
        [
            readers.read_linears(folder, gpu, shards, options.dtypes),
            readers.read_experts(
                folder, gpu, [find_model(slug) for slug in options.models], options.widths, options.dtypes
            ),
            readers.read_attention(folder, gpu, splits, options.dtypes),
            readers.read_collectives(folder),
        ]
    )
    return imported


def _content(
    package: TablePackage, system: str, gpu: Gpu, options: ImportOptions, imported: ImportedPoints
) -> result_file.Record:
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
    left_out = result_file.reason_rows(imported.not_run | imported.refused)
    return {
        "machine_info": machine,
        "commit_info": {},
        "benchmarks": [result_file.benchmark_entry(one) for one in imported.measurements],
        "datetime": datetime.now(UTC).isoformat(),
        "version": package.version,
        "shardbench": result_file.shardbench_block(
            not_run=left_out, failed=[], options=asdict(options), notes=list(dict.fromkeys(imported.notes))
        ),
    }


def _summary(package: TablePackage, system: str, imported: ImportedPoints) -> str:
    """Summary of the import, in lines."""
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


def import_aiconfigurator(system: str, to: Path, models: str, widths: str, dtypes: str) -> str:
    """Write the result file of a system; return a message for the user.

    Args:
        system: name of the system in the package, or of its GPU.
        to: result file to write.
        models: comma list of names that `find_model` takes.
        widths: comma list of TP.
        dtypes: comma list of number formats.

    Raises:
        UserError: the package, the system or an option is unknown, or the file cannot be written.
    """
    found = package.find_package()
    system = found.system(system)[1].slug
    for option, given in (("--model", models), ("--tp", widths), ("--dtype", dtypes)):
        if not _list(given):
            raise UserError(f"{option} {given!r}: names none; leave the option out for the usual ones")
    wanted = ImportOptions(_list(models), tuple(_width(text) for text in _list(widths)), _list(dtypes))
    content, summary, kept = cached_result_text(found, system, wanted)
    output.write_file(to, content)
    return f"{summary}\n{to}: written{' from the cache' if kept else ''}"


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def _width(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise UserError(f"--tp {text!r}: not a width of 1 or more; write as in --tp 1,2,4,8")
    return int(text)
