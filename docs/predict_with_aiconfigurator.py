"""Predict the served runs of aiconfigurator's silicon sample with aiconfigurator's own planner.

    python -m venv build/aic && build/aic/bin/pip install aiconfigurator==0.12.0
    build/aic/bin/python docs/predict_with_aiconfigurator.py build/aic.csv [ROWS]

The CSV is one that `python -m reports score --rival` reads. It holds all dense runs, or the first ROWS of them. A run
takes a second or two. Runs that aiconfigurator refuses, most of them for lack of memory, are counted on stderr.
"""

import csv
import logging
import sys
from collections import Counter
from pathlib import Path

import aiconfigurator_core
from aiconfigurator.cli.api import EstimateResult, cli_estimate

LLAMA_8B, LLAMA_70B = "meta-llama/Meta-Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-70B"
MODELS = {
    "Qwen/Qwen3-32B": "Qwen/Qwen3-32B",
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_8B,
    "nvidia/Llama-3.1-8B-Instruct-FP8": LLAMA_8B,
    "meta-llama/Llama-3.1-70B": LLAMA_70B,
}
"""Model whose config.json the package holds, so that nothing is downloaded, by the name in the sample."""


def main(to: str, rows: str = "0") -> None:
    """Write the predictions of the first `rows` dense runs; 0 for all."""
    logging.disable(logging.CRITICAL)
    sample = Path(aiconfigurator_core.__path__[0]) / "systems" / "silicon_sample.csv"
    with sample.open(newline="") as source, Path(to).open("w", newline="") as target:
        dense = [run for run in csv.DictReader(source) if run["mode"] == "agg" and run["model_path"] in MODELS]
        writer = csv.writer(target)
        writer.writerow(["id", "tpot_ms", "ttft_ms", "aic_tpot_ms", "aic_ttft_ms"])
        refused: Counter[str] = Counter()
        for run in dense[: int(rows) or None]:
            try:
                found = predict(run)
            except (RuntimeError, ValueError, KeyError) as error:
                refused[f"{type(error).__name__}: {str(error)[:100]}"] += 1
                continue
            measured = run["silicon_tpot_ms"], run["silicon_ttft_ms"]
            writer.writerow([run["id"], *measured, round(found.tpot, 4), round(found.ttft, 3)])
            target.flush()
    for reason, count in refused.most_common():
        sys.stderr.write(f"{count} refused: {reason}\n")


def predict(run: dict[str, str]) -> EstimateResult:
    """Return the estimate of one run, from the newest tables of its engine and GPU."""
    return cli_estimate(
        MODELS[run["model_path"]],
        run["system"],
        backend_name=run["backend"],
        isl=int(run["isl"]),
        osl=int(run["osl"]),
        batch_size=int(float(run["batch_size"])),
        tp_size=int(run["tp_size"]),
        gemm_quant_mode=run["gemm_quant_mode"] or None,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
