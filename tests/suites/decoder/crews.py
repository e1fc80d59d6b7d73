"""Real ranks of gloo that set models up, and faults planted in them: PLANTED names the function that does it."""

import os
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch

from comm.backends.torch_distributed import TorchCommunicator
from kernels import decoder_layer
from suites.decoder import microbatch
from suites.decoder.microbatch import Slot
from suites.decoder.pipeline import Links
from suites.workers import process, worker
from suites.workers.launcher import Ranks, rank_environment
from suites.workers.pool import Crew
from suites.workers.process import OwnRanks

WRONG_WORKER = (sys.executable, "-m", "tests.suites.decoder.crews")


@contextmanager
def crew(ranks, planted="", kind="cpu"):
    """So many ranks, joined."""
    right = process.WORKER
    environment = rank_environment(Ranks(ranks, kind))
    if planted:
        process.WORKER = WRONG_WORKER
        environment |= {"PLANTED": planted}
    made = Crew(OwnRanks(ranks, environment), kind, 120.0)
    try:
        made.start()
        yield made
    finally:
        process.WORKER = right
        made.close()


def build(
    crew,
    deployment,
    *,
    batch,
    length=1,
    context=24,
    dtype="fp32",
    model="tiny",
    layers=8,
    implementation="torch",
    backend="gloo",
):
    """Set a model up on all ranks."""
    told = {
        "deployment": asdict(deployment),
        "model": model,
        "layers": layers,
        "tokens": batch * length,
        "batch": batch,
        "context": length if length > 1 else context,
        "dtype": dtype,
        "implementation": implementation,
        "backend": backend,
        "label": {"name": str(deployment), "question": "tp_vs_pp", "number": 0},
    }
    return crew.ask("build", told, f"setting up {deployment}")


def errors(crew):
    """Of the ranks that hold logits; a result that was not written counts as infinite."""
    replies = [one["error"] for one in crew.ask("prove", {}, "proving")]
    return [float("inf") if one == "nan" else one for one in replies if one is not None]


def no_sum():
    """An all-reduce that leaves every rank its own part."""
    TorchCommunicator.all_reduce = lambda self, message, out: None


def other_caches():
    """Every micro-batch attends to the first one's sequences."""
    right = Slot._caches

    def wrong(self):
        self.rows = (own := self.rows)._replace(first=0)
        found = right(self)
        self.rows = own
        return found

    Slot._caches = wrong


def other_tokens():
    """Tokens that come back as others."""
    right = Links.send_back
    Links.send_back = lambda self, ids: right(self, torch.zeros_like(ids))


def tokens_of_another():
    """Tokens that come back to the other micro-batch."""
    right = Links.send_back
    kept = []

    def wrong(self, ids):
        kept.append(ids.clone())
        return right(self, kept[-2] if len(kept) > 1 else ids)

    Links.send_back = wrong


def stale():
    """A stage that computes on what came first, whatever comes then."""
    right = Links.receive
    seen = set()

    def wrong(self, hidden):
        again = hidden.data_ptr() in seen
        seen.add(hidden.data_ptr())
        return right(self, torch.empty_like(hidden) if again else hidden)

    Links.receive = wrong


def no_offset():
    """Every shard calls its tokens as if it had the first rows of the vocabulary."""
    right = microbatch._best
    microbatch._best = lambda logits, first, out: right(logits, 0, out)


def worst_token():
    """The least of the shards' best wins."""
    microbatch._choose = lambda every, sampled: sampled.copy_(
        every[:, 1].gather(0, every[:, 0].argmin(0, keepdim=True))[0]
    )


def not_greedy():
    """Any token."""
    right = torch.max
    torch.max = lambda logits, *given, **named: right(-logits, *given, **named)


def no_swiglu():
    """Gates that let everything through."""
    of_torch = decoder_layer.ELEMENTWISE["torch"]
    of_torch["swiglu"] = replace(
        of_torch["swiglu"], run=lambda gate_up, out: out.copy_(gate_up[:, gate_up.shape[1] // 2 :])
    )


def last_sequence_left_out():
    """Linears of a layer that leave the last row as it was."""
    right = decoder_layer.linear

    def wrong(implementation, tokens):
        kernel = right(implementation, tokens)
        return replace(kernel, run=lambda x, weight, out: kernel.run(x[:-1], weight, out[:-1]))

    decoder_layer.linear = wrong


def short_head():
    """The last logit is never written."""
    right = microbatch.linear

    def wrong(implementation, tokens):
        kernel = right(implementation, tokens)

        def run(x, weight, out):
            whole = torch.empty_like(out)
            kernel.run(x, weight, whole)
            out[:, :-1] = whole[:, :-1]

        return replace(kernel, run=run)

    microbatch.linear = wrong


if __name__ == "__main__":
    globals()[os.environ["PLANTED"]]()
    worker.main()
