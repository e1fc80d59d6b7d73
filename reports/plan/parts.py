"""What a rank computes in a step: layers and the LM head, of one implementation, from whatever was measured of them.

Best is a rank's own share of a layer as it runs beside the others, then a layer that was timed as a whole, then the sum
of its linears, its attention and its elementwise kernels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from reports.plan import assumed
from reports.plan.asked import Asked
from reports.plan.computed import Computed
from reports.plan.cost import Cost, fixed, total
from reports.plan.messages import Messages
from reports.plan.missing import MissingError
from reports.plan.system import System
from specs import memory
from specs.errors import UserError
from specs.parallel import Split

Named = Mapping[str, Cost]
"""Costs of a layer, or of an end, by what they are."""
ALL_REDUCE = "all-reduce"
LOGIT_BYTES = 8
"""A rank's best logit and its place, in fp32, that sampling gathers of each row."""


class Chunk(NamedTuple):
    """What a micro-batch takes along of a prompt: so many tokens of one that has `prompt` in all."""

    tokens: float = 0.0
    prompt: float = 0.0


NO_CHUNK = Chunk()


@dataclass(frozen=True)
class Variant:
    """Whose parts, and whether elementwise kernels count: an engine may have fused them into their neighbours."""

    implementation: str
    elementwise: bool = True


class Parts:
    """Of one variant.

    Args:
        system: what was measured.
        asked: model, context, what each sequence has in a step.
        variant: whose.
    """

    def __init__(self, system: System, asked: Asked, variant: Variant) -> None:
        self.asked, self.variant = asked, variant
        self._system = system
        self._computed = Computed(system, asked, variant.implementation)
        self.messages = Messages(system, asked, variant.implementation)
        self.itemsize = system.itemsize
        self._splits: dict[int, Split] = {}
        self._layers: dict[tuple[int, int, Chunk, int], Cost] = {}
        self._heads: dict[tuple[int, int, int], Cost] = {}

    def layer(self, tp: int, sequences: int, chunk: Chunk, busy: int) -> Cost:
        """What `layer_parts` add up to."""
        key = tp, sequences, chunk, busy
        if key not in self._layers:
            self._layers[key] = total(self.layer_parts(*key).values())
        return self._layers[key]

    def head(self, tp: int, sequences: int, busy: int) -> Cost:
        """What `head_parts` add up to."""
        key = tp, sequences, busy
        if key not in self._heads:
            self._heads[key] = total(self.head_parts(*key).values())
        return self._heads[key]

    def layer_parts(self, tp: int, sequences: int, chunk: Chunk, busy: int) -> Named:
        """One layer on a rank, in decode.

        Args:
            tp: ranks that share it.
            sequences: of the micro-batch.
            chunk: what it takes along of a prompt.
            busy: ranks that compute at the same time.

        Raises:
            MissingError: no file has what it needs.
        """
        split, rows = self._split(tp), sequences * self.asked.rows_a_sequence + chunk.tokens
        found: dict[str, Cost] = {}
        if rows == sequences and (whole := self._computed.layer(split, sequences, busy)):
            found["layer"] = whole
        else:
            found["linears"] = self._computed.linears(split, rows)
            found["attention"] = self._computed.attention(split, sequences)
            if chunk.tokens:
                whole = self._computed.prompt_attention(split, chunk.prompt)
                found["attention of prompts"] = whole.times(chunk.tokens / chunk.prompt)
            self._add_elementwise(found, split, rows)
        return self._with_all_reduces(found, split, rows)

    def prompt_parts(self, tp: int, tokens: int) -> Named:
        """One layer on a rank, in prefill of a prompt.

        Raises:
            MissingError: no file has what it needs.
        """
        split = self._split(tp)
        found = {
            "linears": self._computed.linears(split, tokens),
            "attention": self._computed.prompt_attention(split, tokens),
        }
        self._add_elementwise(found, split, tokens)
        return self._with_all_reduces(found, split, tokens)

    def head_parts(self, tp: int, sequences: int, busy: int) -> Named:
        """The LM head on a rank of the last stage, and the gather of what each rank found best.

        Raises:
            MissingError: no file has what it needs.
        """
        split, rows = self._split(tp), sequences * self.asked.rows_a_sequence
        found = {"lm_head": self._computed.head(split, rows, busy)}
        if tp > 1:
            found[ALL_REDUCE] = self.messages.all_reduce(tp, LOGIT_BYTES * rows * tp)
        return found

    def _split(self, tp: int) -> Split:
        """One stage of all layers."""
        if tp not in self._splits:
            try:
                self._splits[tp] = Split(self.asked.cut, tp)
            except UserError as error:
                raise MissingError(str(error)) from error
        return self._splits[tp]

    def _add_elementwise(self, found: dict[str, Cost], split: Split, rows: float) -> None:
        """Norms, rotary embedding, SwiGLU: their bytes at the memory's rate, and a fixed price each.

        Their range is another variant's: without them.
        """
        rate = self._system.read_bytes_per_second
        if not self.variant.elementwise:
            return
        if not rate:
            raise MissingError(f"no memory bandwidth of {self._system.name}: run suites/bench_ceilings.py")
        moved = memory.elementwise_bytes(split, 1, self._system.itemsize) * rows / rate
        found["elementwise"] = fixed(moved + assumed.KERNELS_A_LAYER * assumed.KERNEL_SECONDS.value, "assumed")

    def _with_all_reduces(self, found: dict[str, Cost], split: Split, rows: float) -> Named:
        """And the two that follow o and down."""
        if split.tp > 1:
            message = round(rows * split.model.hidden * self._system.itemsize)
            found[ALL_REDUCE] = self.messages.all_reduce(split.tp, message).times(2)
        return found
