"""A package of tables with planted times: Parquet files as aiconfigurator-core lays them out."""

from functools import partial
from pathlib import Path

import pandas as pd

from reports.importers.aiconfigurator import command
from reports.importers.aiconfigurator import package as installed
from reports.importers.aiconfigurator.package import TablePackage

TELLS = {"device": "NVIDIA H200", "kernel_source": "torch_flow"}
TOKENS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 768, 1024, 2048)


def install(monkeypatch, data: Path, kept: Path) -> None:
    """Make commands find the tables under `data`, and keep imports under `kept`."""
    monkeypatch.setattr(installed, "find_package", lambda: package(data))
    monkeypatch.setattr(command, "fetch_cached", partial(command.fetch_cached, folder=kept))


def package(data: Path) -> TablePackage:
    """What `installed` gives for planted tables."""
    return TablePackage(data, "9.9.9")


def table(folder: Path, rows, framework="VLLM", version="1.0.0", *, at=None, **told) -> Path:
    """One Parquet file; `folder` is …/<system>/<family> and `at` the version's folder where the rows say another.

    Args:
        rows: what differs from row to row, `latency` in milliseconds.
        told: a last name of the file as `name`, and columns that are the same in all rows.
    """
    name = told.pop("name")
    path = folder / framework.lower() / (at or version) / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    same = {"framework": framework, "version": version, **TELLS, **told}
    pd.DataFrame([{**same, **row} for row in rows]).to_parquet(path)
    return path


def gemm(system: Path, rows, framework="VLLM", version="1.0.0", **told) -> Path:
    """A table of GEMMs."""
    return table(system / "gemm", rows, framework, version, **{"name": "gemm_perf", "gemm_dtype": "bfloat16", **told})


def shape(n, k, milliseconds, tokens=TOKENS):
    """Rows of one shape over tokens; `milliseconds` is a function of m, n and k."""
    return [{"m": m, "n": n, "k": k, "latency": milliseconds(m, n, k)} for m in tokens]


def affine(m, n, k):
    """A time that is straight in each of the sizes, and far too slow for any memory."""
    return (1024 + n) * (1024 + k) * (64 + m) * 2.0**-37


def all_reduce(system: Path, rows, framework="VLLM", version="1.0.0", **told) -> Path:
    """A table of the all-reduces of a serving engine."""
    usual = {"name": "custom_allreduce_perf", "op_name": "all_reduce", "allreduce_dtype": "bfloat16", "num_gpus": 8}
    return table(system / "comm", rows, framework, version, **{**usual, **told})


def nccl(system: Path, rows, version="2.29.2", **told) -> Path:
    """A table of NCCL's collectives."""
    usual = {"name": "nccl_perf", "op_name": "all_reduce", "nccl_dtype": "half", "num_gpus": 8, "kernel_source": "NCCL"}
    return table(system / "comm", rows, "TRTLLM", version, **{**usual, **told})


def experts(system: Path, rows, framework="VLLM", version="1.0.0", **told) -> Path:
    """A table of Qwen3-235B's experts."""
    sizes = {"hidden_size": 4096, "inter_size": 1536, "topk": 8, "num_experts": 128}
    split = {"moe_tp_size": 2, "moe_ep_size": 1, "moe_dtype": "bfloat16", "distribution": "balanced"}
    return table(system / "moe", rows, framework, version, **{"name": "moe_perf", **sizes, **split, **told})


def attention(system: Path, phase: str, rows, framework="VLLM", version="1.0.0", **told) -> Path:
    """A table of attention: `phase` is generation or context; the heads are Llama-3-70B's under TP8."""
    heads = {"num_heads": 8, "num_key_value_heads": 1, "head_dim": 128, "window_size": 0, "beam_width": 1}
    kinds = {"attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16"}
    usual = {"name": f"{phase}_attention_perf", **heads, **kinds}
    return table(system / "attention", rows, framework, version, **{**usual, **told})


def whole(system: Path) -> None:
    """A system with a table of every family."""
    rows = [row for n in (1024, 2048, 7168, 8192) for row in shape(n, 8192, affine)]
    gemm(system, rows)
    experts(system, [{"num_tokens": m, "latency": 1.0 + m} for m in TOKENS])
    attention(system, "generation", [{"batch_size": 4, "isl": 1, "step": 1023, "latency": 0.5}])
    attention(system, "context", [{"batch_size": 2, "isl": 512, "step": 0, "latency": 0.5}])
    all_reduce(system, [{"message_size": 8192, "latency": 0.01}], kernel_source="vLLM_custom_graph")
    nccl(system, [{"message_size": 8192, "latency": 0.02}])
