"""Real ranks of gloo that set models up, and faults planted in them: PLANTED names the function that does it."""

import os
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch

from comm.backends.torch_distributed import TorchCommunicator
from kernels import decoder_layer
from suites.decoder import microbatch
from suites.decoder.microbatch import Microbatch
from suites.decoder.pipeline import PipelineChannels
from suites.workers import process, worker
from suites.workers.launcher import RankPlan, rank_environment
from suites.workers.pool import WorkerPool
from suites.workers.process import LocalSpawner

FAULTY_WORKER_COMMAND = (sys.executable, "-m", "tests.suites.decoder.model_workers")


@contextmanager
def start_workers(ranks, planted="", kind="cpu"):
    """So many ranks, joined."""
    right = process.WORKER_COMMAND
    environment = rank_environment(RankPlan(ranks, kind))
    if planted:
        process.WORKER_COMMAND = FAULTY_WORKER_COMMAND
        environment |= {"PLANTED": planted}
    made = WorkerPool(LocalSpawner(ranks, environment), kind, 120.0)
    try:
        made.start()
        yield made
    finally:
        process.WORKER_COMMAND = right
        made.close()


def build_model(
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
    return crew.run_command("build", told, f"setting up {deployment}")


def logit_errors(crew):
    """Of the ranks that hold logits; a result that was not written counts as infinite."""
    replies = [one["error"] for one in crew.run_command("prove", {}, "proving")]
    return [float("inf") if one == "nan" else one for one in replies if one is not None]


def no_sum():
    """An all-reduce that leaves every rank its own part."""
    TorchCommunicator.all_reduce = lambda self, message, out: None


def other_caches():
    """Every microbatch attends to the first one's sequences."""
    right = Microbatch._caches

    def wrong(self):
        self.rows = (own := self.rows)._replace(first=0)
        found = right(self)
        self.rows = own
        return found

    Microbatch._caches = wrong


def other_tokens():
    """Tokens that come back as others."""
    right = PipelineChannels.send_tokens
    PipelineChannels.send_tokens = lambda self, ids: right(self, torch.zeros_like(ids))


def tokens_of_another():
    """Tokens that come back to the other microbatch."""
    right = PipelineChannels.send_tokens
    kept = []

    def wrong(self, ids):
        kept.append(ids.clone())
        return right(self, kept[-2] if len(kept) > 1 else ids)

    PipelineChannels.send_tokens = wrong


def stale():
    """A stage that computes on what came first, whatever comes then."""
    right = PipelineChannels.receive_hidden
    seen = set()

    def wrong(self, hidden):
        again = hidden.data_ptr() in seen
        seen.add(hidden.data_ptr())
        return right(self, torch.empty_like(hidden) if again else hidden)

    PipelineChannels.receive_hidden = wrong


def no_offset():
    """Every shard calls its tokens as if it had the first rows of the vocabulary."""
    right = microbatch._local_argmax
    microbatch._local_argmax = lambda logits, first, out: right(logits, 0, out)


def worst_token():
    """The least of the shards' best wins."""
    microbatch._global_argmax = lambda every, sampled: sampled.copy_(
        every[:, 1].gather(0, every[:, 0].argmin(0, keepdim=True))[0]
    )


def not_greedy():
    """Any token."""
    right = torch.max
    torch.max = lambda logits, *given, **named: right(-logits, *given, **named)


def no_swiglu():
    """Gates that let everything through."""
    of_torch = decoder_layer.ELEMENTWISE_KERNELS["torch"]
    of_torch["swiglu"] = replace(
        of_torch["swiglu"], run=lambda gate_up, out: out.copy_(gate_up[:, gate_up.shape[1] // 2 :])
    )


def last_sequence_left_out():
    """Linears of a layer that leave the last row as it was."""
    right = decoder_layer.select_linear

    def wrong(implementation, tokens):
        kernel = right(implementation, tokens)
        return replace(kernel, run=lambda x, weight, out: kernel.run(x[:-1], weight, out[:-1]))

    decoder_layer.select_linear = wrong


def short_head():
    """The last logit is never written."""
    right = microbatch.select_linear

    def wrong(implementation, tokens):
        kernel = right(implementation, tokens)

        def run(x, weight, out):
            whole = torch.empty_like(out)
            kernel.run(x, weight, whole)
            out[:, :-1] = whole[:, :-1]

        return replace(kernel, run=run)

    microbatch.select_linear = wrong


if __name__ == "__main__":
    globals()[os.environ["PLANTED"]]()
    worker.main()
