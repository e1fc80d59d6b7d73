"""Served runs made from known constants: what a fit has to find again."""

from dataclasses import replace

from reports.plan.serving import ServedLoad, StepFeatures, tpot_seconds, ttft_seconds
from reports.plan.serving_constants import ServingConstants
from reports.score.runs import ComputedRun, Run
from specs.models import find_model

TRUE = {
    ("vllm", "h100_sxm", "bf16"): ServingConstants(
        host=1.1e-3, host_per_sequence=43e-6, skew=1e-6, prompt_launch=0.0, prompt_factor=0.9, linear_factor=1.0,
        first=30e-3, first_prompts=1.2, first_waiting=1.5,
    ),
    ("trtllm", "b200_sxm", "nvfp4"): ServingConstants(
        host=0.2e-3, host_per_sequence=5e-6, skew=8e-6, prompt_launch=60e-6, prompt_factor=1.1, linear_factor=0.7,
        first=10e-3, first_prompts=2.0, first_waiting=0.8, first_slot=0.3, stream_steps=20.0,
    ),
}  # fmt: skip


def run(group, tp, isl, osl, concurrency, **facts):
    engine, gpu, dtype = group
    name = "-".join(map(str, (*group, tp, isl, osl, concurrency)))
    load = ServedLoad(isl, osl, concurrency)
    return Run(name, engine, gpu, "llama-3-70b", find_model("llama-3-70b"), dtype, tp, load, 1.0, 1.0, **facts)


def features(load, tp):
    """A step of 80 layers whose parts are lines in the load, divided over tp ranks."""
    return StepFeatures(
        decode=2e-3 + 20e-6 * load.concurrency / tp,
        linears=16e-3 / tp,
        prompt=60e-6 * load.isl / tp,
        prompts=load.concurrency / load.osl,
        waiting=load.concurrency / 20,
        slot=load.osl / load.concurrency * (1 - 1 / load.concurrency),
        layers=80,
        all_reduces=160 * (1 - 1 / tp),
        sequences=load.concurrency,
    )


def computed_runs():
    """Runs of both groups whose times are what the true constants give.

    Calibration runs on a part of a host stream several tokens at once.
    """
    found = []
    for group, constants in TRUE.items():
        for tp in (1, 2, 4, 8):
            for isl, osl in ((1024, 128), (1024, 1024), (4096, 512)):
                for concurrency in (8, 32, 128):
                    one = run(group, tp, isl, osl, concurrency)
                    step, streamed = features(one.load, tp), float(one.calibrates and tp < 8)
                    times = {
                        "tpot_ms": 1e3 * tpot_seconds(step, constants),
                        "ttft_ms": 1e3 * ttft_seconds(step._replace(streamed=streamed), constants),
                    }
                    found.append(ComputedRun(replace(one, **times), step))
    return found
