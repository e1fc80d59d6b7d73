"""Parts of Llama-3-70B on a planted H200, with times that are worked out in the head.

A linear takes 80/tp us and 0.8/tp us a token, each of the four alike; the LM head under tp 2 takes 100 us and 1 us a
token. Decode attention takes 0.4 us a sequence at context 256 and twice that at 512. An all-reduce takes 5 us and 1 us
for each 10 KiB, by the engine's own kernel in a graph; by NCCL twice as long.
"""

from pathlib import Path

from specs.models import find_model
from specs.parallel import Split
from tests.reports import planted

TOKENS = (1, 1024, 16384)
BATCHES = (1, 512)
CONTEXTS = (256, 512)
MESSAGES = (1024, 128 * 2**20)
PUBLISHED = planted.H200 | {"source": "planted tables"}
US = 1e-6


def linear(layer, tp, tokens, seconds, framework="vllm", dtype="bf16", **facts):
    """One point of a linear."""
    shard = Split(find_model("llama-3-70b"), tp).linear(layer)
    name = f"planted::linear[{layer}-tp{tp}-{tokens}-{dtype}-{framework}]"
    case = planted.case(
        name, question="sweep", layer=layer, tp=tp, n=shard.n, k=shard.k, tokens=tokens, implementation=framework,
        dtype=dtype, launch="graph", cache="rotated-6",
    )  # fmt: skip
    return _published(case, seconds, framework, copies=6, **facts)


def attention(tp, batch, context, seconds, framework="vllm", phase="decode", dtype="bf16", kv_dtype=None):
    """One point of attention."""
    tokens = batch if phase == "decode" else context
    case = planted.case(
        f"planted::attention[{phase}-tp{tp}-{batch}-{context}-{dtype}-kv{kv_dtype}-{framework}]",
        question="attention", op="attention", dtype=dtype, kv_dtype=kv_dtype,
        layer=phase, tp=tp, n=None, k=None, tokens=tokens, context=context, implementation=framework, cache="unknown",
        launch="unknown",
    )  # fmt: skip
    return _published(case, seconds, framework)


def all_reduce(ranks, message_bytes, seconds, framework="vllm", implementation="custom", launch="graph"):
    """One point of an all-reduce."""
    case = planted.case(
        f"planted::all_reduce[{implementation}-{ranks}-{message_bytes}-{framework}-{launch}]", question="communication",
        op="all_reduce", model=None, layer=None, tp=None, pp=None, n=None, k=None, tokens=None, ranks=ranks,
        message_bytes=message_bytes, implementation=implementation, launch=launch,
    )  # fmt: skip
    return _published(case, seconds, framework)


def all_parts(framework="vllm", factor=1.0, attending=0.4, **facts):
    """Everything that a plan of eight GPUs needs, by one framework, `factor` times as slow in its linears."""
    found = []
    for tp in (1, 2, 4, 8):
        for layer in ("qkv", "o", "gate_up", "down"):
            found += [linear(layer, tp, m, factor * (80 + 0.8 * m) / tp * US, framework, **facts) for m in TOKENS]
        if tp > 1:
            found += [linear("lm_head", tp, m, (100 + m) * 2 / tp * US, framework, **facts) for m in TOKENS]
        for context in CONTEXTS:
            found += [attention(tp, b, context, attending * b * context / 256 * US, framework) for b in BATCHES]
    for ranks in (2, 4, 8):
        for size in MESSAGES:
            seconds = (5 + size / 10240) * US
            found.append(all_reduce(ranks, size, seconds, framework))
            found.append(all_reduce(ranks, size, 2 * seconds, framework, "nccl", "eager"))
    return found


def write(path: Path, measurements=None, machine=PUBLISHED) -> Path:
    """A result file of it."""
    return planted.write(path, all_parts() if measurements is None else measurements, machine=machine)


def _published(case, seconds, framework, **facts):
    return planted.measured(
        case, [(seconds,)], provenance="published", framework=framework, version="1.0", kernel_source="planted", **facts
    )
