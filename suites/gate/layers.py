"""Whole layers and their parts, attention, and the GEMM of prefill: the cases that matter most, and their ceilings."""

import sys
import time
from collections.abc import Sequence

from specs import layer
from specs.layer import MODEL
from suites.gate.program import leave, options
from suites.gate.step import MEASURING, RECOVER, Step
from suites.gate.suite import Axes, measure, result_path

ENDING = "-layers"
SUITES = ("layer", "attention", "linears", "ceilings")
CHOSEN = (
    "ceilings",
    "bench_prefill and tp8 and not attention",
    "(bench_layer or bench_part) and tp8 and (1tok or 32tok)",
    "bench_decode_attention and (1tok or 32tok)",
)
"""512 and 2048 tokens are the GEMM's alone; attention has its target at tp 1."""
CASES = (*(f"suites/bench_{name}.py" for name in SUITES), "-k", " or ".join(f"({one})" for one in CHOSEN))
AXES: Axes = {
    "--model": (MODEL,),
    "--tp": (1, 8),
    "--tokens": (1, 32, 512, 2048),
    "--context": (8192,),
    "--impl": ("torch", "cublaslt", "triton", *layer.ATTENTION_IMPLEMENTATIONS[2:]),
    "--passes": (3,),
}
"""Without torch.compile, which would take the step's time to compile."""

STEP = Step(
    name="layers",
    purpose="pytest suites/: a layer of Llama-3-70B at TP8 and its parts, decode attention, prefill GEMM",
    seconds=70,
    least_seconds=45,
    command=lambda place, seconds: place.module("layers", "--seconds", f"{seconds:.0f}"),
    packages=MEASURING,
    optional=RECOVER,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Into a file of its own beside the suite's."""
    began, asked = time.monotonic(), options(__doc__, argv, seconds=True)
    return leave(measure(asked, began, result_path(asked.out, ENDING), CASES, AXES), asked.verdict)


if __name__ == "__main__":
    sys.exit(main())
