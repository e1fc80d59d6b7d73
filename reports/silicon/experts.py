"""MoE tables as the routed experts of a layer: gate, up and down of every expert that the tokens visit, in one call.

The collectors keep a single copy of the experts. All together outgrow any L2, but the few that a few tokens visit may
not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from reports.silicon import formats, lint, tables
from reports.silicon.imported import Imported
from reports.silicon.interpolate import between
from reports.silicon.points import ASKED, Source, name, point
from specs.errors import UserError
from specs.gpus import Gpu
from specs.measurement import Case, Measurement
from specs.models import Model
from specs.units import ITEMSIZE

SHAPE = ("hidden_size", "inter_size", "topk", "num_experts")
SERIES = ("moe_dtype", "distribution", "moe_tp_size", *SHAPE)
KEY = ("num_tokens", "moe_ep_size", *SERIES)


@dataclass(frozen=True)
class Series:
    """One framework's times over tokens for the experts of a model, every rank of tp holding a slice of each."""

    model: Model
    gpu: Gpu
    tp: int
    dtype: str
    distribution: str
    source: Source
    several: bool
    seconds: Mapping[int, float]

    def add_to(self, imported: Imported) -> None:
        """Add the tabulated points that may be, and those for the tokens that a claim asks for."""
        refused = {
            tokens: why for tokens, seconds in self.seconds.items() if (why := self._impossible(tokens, seconds))
        }
        imported.refused |= {self._name(tokens): why for tokens, why in refused.items()}
        kept = {tokens: seconds for tokens, seconds in self.seconds.items() if tokens not in refused}
        imported.measurements += replace(self, seconds=kept)._measurements()

    def _measurements(self) -> Iterator[Measurement]:
        doubts = lint.dips(self.seconds)
        for tokens, seconds in self.seconds.items():
            yield self._point(tokens, seconds, doubts=doubts.get(tokens, ()))
        for tokens in ASKED:
            if tokens not in self.seconds and (line := between(self.seconds, tokens)):
                over = {"interpolated_over": f"tokens {line.low}–{line.high}", "interpolation_error": line.error}
                odd = lint.inherited(doubts, line.low, line.high)
                yield self._point(tokens, line.seconds, provenance="interpolated", doubts=odd, **over)

    @property
    def _expert(self) -> int:
        """Weights of one expert's slice."""
        return (self.model.up_width + self.model.intermediate) // self.tp * self.model.hidden

    def _read(self, tokens: int) -> int:
        """Bytes of the experts that so many tokens visit at most: as many if routing is balanced."""
        return min(self.model.experts, tokens * self.model.top_k) * self._expert * ITEMSIZE[self.dtype]

    def _impossible(self, tokens: int, seconds: float) -> str:
        """Why a point cannot be true; of unbalanced routing the bytes are not known."""
        return lint.streamed(seconds, self._read(tokens), self.gpu)[1] if self.distribution == "balanced" else ""

    def _name(self, tokens: int) -> str:
        kernel = self.source.kernel_source if self.several else None
        labels = (self.model, f"tp{self.tp}", tokens, self.dtype, self.distribution, self.source.framework, kernel)
        return name("moe", *labels)

    def _point(self, tokens: int, seconds: float, **facts: Any) -> Measurement:
        hot = lint.maybe_hot(self._read(tokens), self.gpu, copies=1)
        return point(self._case(tokens), seconds, self.source, maybe_hot=hot, **facts)

    def _case(self, tokens: int) -> Case:
        """Reads each visited expert once, x once, writes y; who visits whom is known for balanced routing alone."""
        model, size = self.model, ITEMSIZE[self.dtype]
        activations = tokens * model.hidden * (size + max(2, size))
        return Case(
            name=self._name(tokens),
            question="moe",
            op="moe",
            implementation=self.source.framework,
            kernel=self.source.kernel_source,
            dtype=self.dtype,
            flops=2 * tokens * model.top_k * self._expert,
            hbm_bytes=self._read(tokens) + activations if self.distribution == "balanced" else 0,
            model=model.slug,
            layer="experts",
            tp=self.tp,
            pp=1,
            tokens=tokens,
            cache="unknown",
            launch="unknown",
            distribution=self.distribution,
        )


def read(system: Path, gpu: Gpu, models: Sequence[Model], widths: Sequence[int], dtypes: Sequence[str]) -> Imported:
    """The experts of those of `models` that have any, cut over each of `widths` ranks."""
    ours, imported = formats.known(dtypes), Imported()
    models = [one for one in models if one.experts]
    if not models:
        return imported
    try:
        found = tables.read(system, "moe", "moe_perf", KEY)
    except UserError as error:
        imported.not_run[name("moe", "experts")] = str(error)
        return imported
    imported.notes += found.notes
    rows = found.rows[(found.rows["moe_ep_size"] == 1) & found.rows["moe_dtype"].isin(ours)]
    for model in models:
        shape = [model.hidden, model.intermediate, model.top_k, model.experts]
        alike = (rows[list(SHAPE)] == shape).all(axis=1) & rows["moe_tp_size"].isin(widths)
        wanted = tables.newest(rows[alike], SERIES)
        if wanted.empty:
            imported.not_run[name("moe", model, "experts")] = "no table holds experts of these shapes in these formats"
        for series in _split(model, gpu, wanted, ours):
            series.add_to(imported)
    return imported


def _split(model: Model, gpu: Gpu, rows: pd.DataFrame, ours: Mapping[str, str]) -> Iterator[Series]:
    """A series for each framework, format, width and distribution, and for each kernel where one table has several."""
    by = ["framework", "moe_dtype", "distribution", "moe_tp_size"]
    for (_, theirs, distribution, tp), group in rows.groupby(by):
        several = bool(group["num_tokens"].duplicated().any())
        for _, one in group.groupby("kernel_source") if several else [("", group)]:
            seconds = dict(zip(one["num_tokens"].tolist(), one["seconds"].tolist(), strict=True))
            facts = (Source.of(one), several, dict(sorted(seconds.items())))
            yield Series(model, gpu, int(tp), ours[theirs], distribution, *facts)
