"""A case: what is measured, known before anything runs."""

from dataclasses import dataclass

from specs.work import Work


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel or collective at one shape, on one rank.

    Attributes:
        name: pytest node id; `pytest-benchmark compare` matches on it.
        question: decode, prefill, sweep, ceilings, … : the table it belongs to.
        op: linear, moe, attention, read, copy, launch, all_reduce, …
        implementation: torch, triton, cuda, nccl, gloo, … ; of published points the framework: vllm, trtllm, sglang.
        kernel: name of the kernel within the implementation.
        dtype: fp32, bf16, fp16, fp8, fp8-block.
        flops, hbm_bytes, wire_bytes_sent_per_rank: the work of one call, see `specs.work.Work`.
        model, layer, tp, pp: what it was cut from; None for ceilings.
        tokens, n, k: rows of x, rows of W and the length they share, y[tokens, n] = x[tokens, k] · W[n, k]ᵀ.
        cache: cold, hot, rotated-6 or unknown: whether the caches could hold the weights from one call to the next.
        launch: graph, eager or unknown.
        ranks: how many ranks ran it; message_bytes: size of the message, where there is one, as specs/bus.py means it.
        gap_seconds: idle time before each call; 0 where calls follow one another.
        pair: ranks that send and receive, `0-1`, where a call is between two of several.
        context: tokens that each query attends to, where there is attention.
        batch: sequences that the tokens belong to, where there is attention: as many as tokens in decode.
        per_layer: how often a layer makes this call, where it is a part of one.
        replicas, schedule, micro_batches, partition: with tp and pp how a whole model was run, see
            `specs.deployment.Deployment`; tokens are rows of a forward pass of the whole batch, a prompt's for each
            sequence in prefill.
        layers, vocab: of that model, fewer than it has where it was cut down.
        backend: what carried its messages.
        distribution: how tokens were dealt to experts: balanced, power_law_1.2, …
    """

    name: str
    question: str
    op: str
    implementation: str
    kernel: str
    dtype: str
    flops: int
    hbm_bytes: int
    wire_bytes_sent_per_rank: int = 0
    model: str | None = None
    layer: str | None = None
    tp: int | None = None
    pp: int | None = None
    tokens: int | None = None
    n: int | None = None
    k: int | None = None
    cache: str = "cold"
    launch: str = "eager"
    ranks: int = 1
    message_bytes: int | None = None
    gap_seconds: float = 0.0
    pair: str | None = None
    context: int | None = None
    batch: int | None = None
    per_layer: int | None = None
    replicas: int | None = None
    schedule: str | None = None
    micro_batches: int | None = None
    partition: str | None = None
    layers: int | None = None
    vocab: int | None = None
    backend: str | None = None
    distribution: str | None = None

    @property
    def work(self) -> Work:
        """The work of one call."""
        return Work(self.flops, self.hbm_bytes, self.wire_bytes_sent_per_rank)
