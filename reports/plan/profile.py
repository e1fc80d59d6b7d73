"""Measurements of one kind of GPU, as cost curves of parts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from reports import machine
from reports.communication.points import SIXTEEN_BIT
from reports.machine import gpu_name
from reports.plan.estimate import Cost, CostCurve, fastest_curve, measured_cost
from reports.results import ResultFile
from specs.errors import UserError
from specs.gpus import Gpu
from specs.layer import ATTENTION, HEAD_SHARE, WHOLE_LAYER
from specs.measurement import Measurement
from specs.traffic import TRAFFIC
from specs.units import ITEMSIZE, STORED_ITEMSIZE, AttentionFormat, NumberFormat, find_number_format

Key = TypeVar("Key")


@dataclass(frozen=True)
class HardwareProfile:
    """One kind of GPU, or a CPU whose ranks share it.

    Attributes:
        name: slug of the GPU, or name of the machine.
        gpu: datasheet row of the GPU.
        files: result files of this hardware.
        dtype: number format of the parts.
        imported: True where the installed package gave the figures for `--gpu`, and no file of the user.
    """

    name: str
    gpu: Gpu | None
    files: Sequence[ResultFile]
    dtype: str
    imported: bool = False
    _curves: dict[tuple[object, ...], CostCurve | None] = field(default_factory=dict, compare=False)
    _attention: dict[tuple[object, ...], Mapping[int, Sequence[Measurement]]] = field(
        default_factory=dict, compare=False
    )
    _decode_formats: dict[tuple[str, int, int], AttentionFormat] = field(default_factory=dict, compare=False)

    @property
    def paths(self) -> list[Path]:
        """Paths of the result files."""
        return [one.path for one in self.files]

    @cached_property
    def number_format(self) -> NumberFormat:
        """Formats of the model's parts."""
        return find_number_format(self.dtype)

    @cached_property
    def linear_itemsize(self) -> float:
        """Bytes of an element of the linears' weights in a layer, scales included."""
        return STORED_ITEMSIZE[self.number_format.weights]

    @cached_property
    def residual_itemsize(self) -> int:
        """Bytes of an element of the embedding, LM head, residual stream and messages."""
        return ITEMSIZE[self.number_format.residual]

    def kv_itemsize(self, model: str, tp: int, context: int) -> int:
        """Bytes of an element of the KV cache."""
        return ITEMSIZE[self.decode_format(model, tp, context).kv_cache]

    @cached_property
    def read_bytes_per_second(self) -> float | None:
        """Bandwidth of device memory in bytes/s: measured, else the datasheet's."""
        found = [one for file in self.files if (one := machine.measured_ceilings(file).read_bytes_per_second)]
        return max(found, default=self.gpu.hbm_bytes_per_second if self.gpu else None)

    @cached_property
    def memory_bytes(self) -> float | None:
        """Memory of one GPU, or of a CPU all memory that its ranks share."""
        if self.gpu:
            return self.gpu.hbm_bytes
        found = [one for file in self.files if isinstance(one := file.machine.get("memory_bytes"), int) and one > 0]
        return float(min(found)) if found else None

    @property
    def has_shared_memory(self) -> bool:
        """True where all ranks share one memory."""
        return self.gpu is None

    @cached_property
    def measurements_by_op(self) -> Mapping[str, Sequence[Measurement]]:
        """Measurements that plans use, by operation.

        Computations from a hot cache are left out.
        """
        return _group_by(self._usable, attrgetter("case.op"))

    @cached_property
    def measurements_by_layer(self) -> Mapping[tuple[str, str | None, str | None, str], Sequence[Measurement]]:
        """Linears and layers in the formats of the parts by (operation, model, layer, implementation)."""
        every = (*self.measurements_by_op.get("linear", ()), *self.measurements_by_op.get(WHOLE_LAYER, ()))
        of_format = [one for one in every if one.case.dtype == self._part_format(one)]
        return _group_by(of_format, attrgetter("case.op", "case.model", "case.layer", "case.implementation"))

    @cached_property
    def all_reduces(self) -> Mapping[tuple[int, str, str | None], Sequence[Measurement]]:
        """All-reduces of equally wide elements by ranks, launch mode, and the linear before each call.

        The linear is None for calls back to back. Calls with a rank delayed on purpose are left out.
        """
        dtype = self.number_format.residual
        alike = SIXTEEN_BIT if dtype in SIXTEEN_BIT else {dtype}
        every = (one for one in self.measurements_by_op.get("all_reduce", ()) if one.case.dtype in alike)
        found = (one for one in every if one.case.is_back_to_back or (one.case.late_seconds == 0 and one.case.layer))
        return _group_by(found, _all_reduce_kind)

    @cached_property
    def has_late_all_reduces(self) -> bool:
        """True where all-reduces were timed behind linears."""
        return any(one.case.late_seconds is not None for one in self.measurements_by_op.get("all_reduce", ()))

    def head_format(self, model: str | None) -> str:
        """Format of a model's LM head: that of the residual stream, else that of the linears."""
        return self.number_format.residual if model in self._models_with_residual_head else self.dtype

    @cached_property
    def _models_with_residual_head(self) -> set[str | None]:
        heads = (one.case for one in self._usable if one.case.layer == HEAD_SHARE)
        return {case.model for case in heads if case.dtype == self.number_format.residual}

    def _part_format(self, one: Measurement) -> str:
        return self.head_format(one.case.model) if one.case.layer == HEAD_SHARE else self.dtype

    def attention(
        self, model: str, tp: int, phase: str, formats: AttentionFormat
    ) -> Mapping[int, Sequence[Measurement]]:
        """Attention of one rank in a phase and in these formats, by context."""
        key = model, tp, phase, formats
        if key not in self._attention:
            self._attention[key] = _group_by(self._attention_by_kind.get(key, ()), attrgetter("case.context"))
        return self._attention[key]

    @cached_property
    def _attention_by_kind(self) -> Mapping[tuple[str | None, int | None, str, AttentionFormat], Sequence[Measurement]]:
        every = self.measurements_by_op.get("attention", ())
        found = (one for one in every if one.case.ranks == 1 and one.case.context and one.case.tokens)
        return _group_by(found, _attention_kind)

    def decode_format(self, model: str, tp: int, context: int) -> AttentionFormat:
        """Formats of decode attention: the first preferred ones that were measured around the context.

        Formats without the context come next. Without any measurement the preferred ones stand.
        """
        key = model, tp, context
        if key not in self._decode_formats:
            pairs = self.number_format.attention
            contexts = {pair: self.attention(model, tp, "decode", pair) for pair in pairs}
            around = [pair for pair in pairs if (at := contexts[pair]) and min(at) <= context <= max(at)]
            self._decode_formats[key] = (*around, *(pair for pair in pairs if contexts[pair]), *pairs)[0]
        return self._decode_formats[key]

    @cached_property
    def linear_implementations(self) -> Sequence[str]:
        """Implementations whose linears were measured, sorted."""
        return sorted({one.case.implementation for one in self.measurements_by_op.get("linear", ())})

    @cached_property
    def _usable(self) -> Sequence[Measurement]:
        every = (one for file in self.files for one in file.measurements)
        return [one for one in every if one.case.cache != "hot" or one.case.op in TRAFFIC]

    def curve(
        self,
        key: tuple[object, ...],
        found: Callable[[], Iterable[tuple[int, Measurement]]],
        cost: Callable[[Measurement], Cost] | None = None,
    ) -> CostCurve | None:
        """Curve of measurements by size under a key, built once; None without any.

        Args:
            key: name of the curve.
            found: gives sizes and measurements.
            cost: gives the cost of a measurement; else `self.cost`.
        """
        if key not in self._curves:
            self._curves[key] = fastest_curve((size, (cost or self.cost)(one)) for size, one in found())
        return self._curves[key]

    def cost(self, one: Measurement, factor: float = 1.0) -> Cost:
        """Cost of a measurement; its range spans the help that a cache may have given."""
        return measured_cost(one, self._streaming_seconds(one) if one.maybe_hot else 0.0, factor)

    def mean_rank_cost(self, one: Measurement) -> Cost:
        """Cost on the mean rank: the slowest rank's, less half of what it is behind the fastest."""
        cost, ahead = self.cost(one), (one.skew_seconds or 0.0) / 2
        return replace(cost, seconds=cost.seconds - ahead, low=cost.low - ahead, high=cost.high - ahead)

    def _streaming_seconds(self, one: Measurement) -> float:
        """Seconds to read from memory the weights that the last cache may have held.

        Calls rotate through copies, so the cache holds at most its size's share of them.
        """
        case = one.case
        if not (self.gpu and self.gpu.l2_bytes and case.n and case.k):
            return 0.0
        weights = case.n * case.k * STORED_ITEMSIZE[case.dtype]
        held = min(1.0, self.gpu.l2_bytes / (max(1, one.copies) * weights))
        return held * weights / self.gpu.hbm_bytes_per_second


def _attention_kind(one: Measurement) -> tuple[str | None, int | None, str, AttentionFormat]:
    case = one.case
    decode = case.layer == "decode" or (case.layer == ATTENTION and case.batch == case.tokens)
    formats = AttentionFormat(case.dtype, case.kv_dtype or case.dtype)
    return case.model, case.tp, "decode" if decode else "prefill", formats


def _all_reduce_kind(one: Measurement) -> tuple[int, str, str | None]:
    case = one.case
    return case.ranks, case.launch, None if case.is_back_to_back else case.layer


def _group_by(found: Iterable[Measurement], by: Callable[[Measurement], Key]) -> dict[Key, list[Measurement]]:
    groups: dict[Key, list[Measurement]] = {}
    for one in found:
        groups.setdefault(by(one), []).append(one)
    return groups


def build_profile(files: Sequence[ResultFile], dtype: str, *, imported: bool = False) -> HardwareProfile:
    """Build the profile of the one kind of GPU that all files are of.

    Args:
        files: result files of the GPU.
        dtype: number format of the parts.
        imported: True where the installed package gave the figures, and no file of the user.

    Raises:
        UserError: there is no file, the files are of several GPUs, or a file has no linear in this format.
    """
    names = {gpu_name(file): file for file in files}
    if not names:
        raise UserError(
            "plan: no file and no GPU; give result files of one GPU, own or imported, or --gpu h200_sxm for published "
            "figures"
        )
    if len(names) > 1:
        which = ", ".join(f"{name} ({file.path})" for name, file in names.items())
        raise UserError(f"plan: files of {len(names)} GPUs, {which}: a plan is for one; give files of one GPU")
    for file in files:
        formats = {one.case.dtype for one in file.measurements if one.case.op in ("linear", "layer") and one.case.layer}
        if formats and dtype not in formats:
            has = ", ".join(sorted(formats))
            raise UserError(f"{file.path}: linears in {has}, none in {dtype}; choose --dtype {sorted(formats)[0]}")
    name = next(iter(names))
    return HardwareProfile(name, machine.known_gpu(files[0]), files, dtype, imported)
