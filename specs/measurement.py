"""The one record of a measured case, and its form inside a pytest-benchmark result file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any

from specs import statistics, step
from specs.case import Case
from specs.errors import UserError

SCHEMA = 1
"""`shardbench_schema` of the files written now; readers accept it and older ones."""
MOST_SECONDS = 1e6
"""A call that takes longer, eleven days, is no measurement."""
CASE_FIELDS = tuple(f.name for f in fields(Case))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Every sample of one case in seconds a call, pass by pass, and how far to trust it.

    Attributes:
        case: what ran.
        seconds: one tuple of samples for each pass.
        clock: how a sample was taken: perf_counter or cuda_event; published where a source gives its own figure.
        relative_error: ‖out − reference‖ / ‖reference‖ against float64; None where a source gives none.
        copies: distinct copies of the streamed inputs that calls rotate through.
        calls: calls that one sample spans.
        stopped_by: precision, passes, budget, interrupted, or `error: …` with what ended it.
        throttled: whether the clocks were held back under load; None where nothing tells.
        telemetry: clocks in MHz, power in W and the like during load, by name; of a GPU the SM clock before and after
            the samples of the last visit, and how many visits it moved in.
        configuration: what the kernel chose for this case, and on what grounds; None for one that has no choice.
        skew_seconds: by how much the slowest rank was behind the fastest at the end of a sample, the median over
            samples, each of which is the slowest's time; None for one rank.
        algorithm: ring, tree, nvls, … and the protocol, where the library tells; None where nothing does.
        transport: the one kind of link that all ranks talk over: nvlink, pcie, loopback, …; None for several and for
            unknown.
        ledgers: of a step of a whole model, where its time went: for each pass and in it for each stage the share of
            each of `specs.step.ITEMS`, which add up to 1.
        timeline: of one sample of it, what each rank did: see `specs.step.Block`.
        provenance: measured, published, interpolated, assumed or modelled.
        framework, version, kernel_source: what a published point was measured in, as its source names it.
        maybe_hot: whether a cache may have held weights that should have come from memory; None where nothing tells.
        interpolated_over: what was interpolated over, and between which neighbours: `n 16384–51200`.
        interpolation_error: relative error of that method where a neighbour is left out and predicted.
        doubts: what a linter found odd about the point.
    """

    case: Case
    seconds: tuple[tuple[float, ...], ...]
    clock: str
    relative_error: float | None = None
    copies: int = 1
    calls: int = 1
    stopped_by: str = "passes"
    throttled: bool | None = None
    telemetry: Mapping[str, float] | None = None
    configuration: str | None = None
    skew_seconds: float | None = None
    algorithm: str | None = None
    transport: str | None = None
    ledgers: Sequence[Sequence[Mapping[str, float]]] | None = None
    timeline: Mapping[str, Any] | None = None
    provenance: str = "measured"
    framework: str | None = None
    version: str | None = None
    kernel_source: str | None = None
    maybe_hot: bool | None = None
    interpolated_over: str | None = None
    interpolation_error: float | None = None
    doubts: Sequence[str] = ()

    @cached_property
    def samples(self) -> tuple[float, ...]:
        """All samples in seconds, in the order they were taken."""
        return tuple(sample for one in self.seconds for sample in one)

    @cached_property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.pooled_median(self.seconds)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval on the median in seconds, clustered by pass; None for a single pass."""
        return statistics.median_interval(self.seconds)

    @property
    def bytes_per_second(self) -> float:
        """Achieved device-memory bandwidth by the bytes that had to move."""
        return self.case.hbm_bytes / self.median

    @property
    def flops_per_second(self) -> float:
        """Achieved arithmetic rate."""
        return self.case.flops / self.median

    def extra_info(self) -> dict[str, Any]:
        """All but the samples, for pytest-benchmark's `extra_info`: JSON types only, never NaN."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("case", "seconds")}
        for name in ("configuration", "skew_seconds", "algorithm", "transport", "ledgers", "timeline"):
            if own[name] is None:
                del own[name]
        derived = {
            "passes": len(self.seconds),
            "pass_rounds": [len(one) for one in self.seconds],
            "interval_seconds": list(self.interval) if self.interval else None,
            "noise": statistics.noise(self.seconds) if len(self.samples) > 1 else None,
        }
        return {**asdict(self.case), **own, "doubts": list(self.doubts), **derived, **step.derived(self)}

    @classmethod
    def from_benchmark(cls, entry: Mapping[str, Any]) -> "Measurement":
        """Read one member of `benchmarks` in a result file.

        Raises:
            UserError: it is not a shardbench entry, or its samples do not add up to its passes.
        """
        info, name = entry.get("extra_info") or {}, entry.get("fullname", "?")
        try:
            case = Case(**{name: info[name] for name in CASE_FIELDS if name in info})
            data = [float(sample) for sample in entry["stats"]["data"]]
            rounds = [int(size) for size in info.get("pass_rounds") or [len(data)]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{name}: not a shardbench case ({error}); was this file made by `pytest suites/`?"
            ) from error
        if sum(rounds) != len(data) or min(rounds) < 1:
            raise UserError(f"{name}: {len(data)} samples do not fill passes of {rounds}; the file was edited or cut")
        if not all(0 < sample < MOST_SECONDS for sample in data):
            raise UserError(f"{name}: a sample is not a positive number of seconds; the file was edited or cut")
        edges = [0]
        for size in rounds:
            edges.append(edges[-1] + size)
        own = {f: info[f] for f in cls.__dataclass_fields__ if f in info}
        own.setdefault("clock", "unknown")
        own["doubts"] = tuple(map(str, info.get("doubts") or ()))
        return cls(case=case, seconds=tuple(tuple(data[a:b]) for a, b in pairwise(edges)), **own)
