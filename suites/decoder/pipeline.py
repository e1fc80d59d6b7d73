"""The pipeline as one rank runs it: receive, compute, send on, micro-batch after micro-batch.

Decode is a closed loop: a micro-batch enters the first stage again when the last one has sent its tokens back, so m of
them are under way and no more. With one micro-batch that is the synchronous schedule, with one stage plain tensor
parallelism. A prefill runs once through, so that the stages fill and drain.
"""

from collections.abc import Sequence
from functools import partial

from comm.backend import Pending
from kernels.timing.host import without_collector
from suites.decoder.links import Links
from suites.decoder.slot import Slot
from suites.decoder.trace import START, Trace


class Pipeline:
    """One rank's part.

    Args:
        slots: the micro-batches, in the order in which they run.
        links: to the other ranks.
    """

    def __init__(self, slots: Sequence[Slot], links: Links) -> None:
        self._slots, self._links = slots, links
        self._asked: dict[int, Pending] = {}
        self._sent: dict[int, Pending] = {}
        self._alone = links.first and links.last

    def decode(self, steps: int, trace: Trace) -> None:
        """So many tokens for every sequence, from the tokens that the slots hold; the trace is told what was when."""
        with without_collector():
            self._begin(0, trace)
            for step in range(steps):
                for number in range(len(self._slots)):
                    self._turn(trace, step, number, loop=step > 0, again=step + 1 < steps)
            self._finish()

    def prefill(self, steps: int, trace: Trace) -> None:
        """Every prompt once, `steps` times over, each time from empty stages on."""
        with without_collector():
            for step in range(steps):
                self._begin(step, trace)
                for number in range(len(self._slots)):
                    self._turn(trace, step, number, loop=False, again=False)
                self._finish()

    def _begin(self, step: int, trace: Trace) -> None:
        """All ranks at once; those behind the first ask for the first message of every slot."""
        self._links.barrier()
        trace.mark(START, step, -1)
        if self._links.early and not self._links.first:
            for number in range(len(self._slots)):
                self._ask_for(number)

    def _ask_for(self, number: int) -> None:
        slot, links = self._slots[number], self._links
        self._asked[number] = links.receive_back(slot.ids) if links.first else links.receive(slot.entering)

    def _turn(self, trace: Trace, step: int, number: int, *, loop: bool, again: bool) -> None:
        """One micro-batch through this stage; `loop` says that its tokens come from the last stage."""
        slot, links, run = self._slots[number], self._links, trace.run
        if not self._alone and (loop or not links.first):
            run("recv", step, number, partial(self._arrive, number))
        for kind, call in slot.segments:
            run(kind, step, number, call)
        slot.end_step()
        if self._alone:
            return
        if not links.last or again:
            run("send", step, number, partial(self._send, number))
        if again and links.early:
            self._ask_for(number)

    def _arrive(self, number: int) -> None:
        if number not in self._asked:
            self._ask_for(number)
        self._asked.pop(number).wait()

    def _send(self, number: int) -> None:
        """Without waiting: a slot comes round again when its message has been used, so its memory is free by then."""
        slot = self._slots[number]
        if slot.leaving is not None:
            self._sent[number] = self._links.send_on(slot.leaving)
        else:
            slot.returned.copy_(slot.sampled)
            self._sent[number] = self._links.send_back(slot.returned)

    def _finish(self) -> None:
        for pending in self._sent.values():
            pending.wait()
        self._sent.clear()
