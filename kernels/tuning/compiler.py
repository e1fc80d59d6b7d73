"""Configurations that the installed Triton compiles badly, and which are therefore neither tried nor run.

Before 3.7 Triton lays multiply-adds without a pipeline out anew in each iteration: through shared memory, with up to 64
barriers, and some of them spill. From 3.7 on their loop has no barrier. Forms with a pipeline are alike on both.
"""

import re
from functools import cache

from kernels.tuning.config import Config

ONE_STAGE_SINCE = (3, 7)
"""The version of Triton from which multiply-adds without a pipeline stay in registers."""


def compiles_well(config: Config) -> bool:
    """Whether the installed Triton makes a loop of `config` without needless barriers."""
    return compiles_well_with(triton_version(), config)


def compiles_well_with(version: str | None, config: Config) -> bool:
    """Whether a version of Triton, such as 3.6.0, does so; None where there is none to say no."""
    if version is None or config.matrix or config.stages > 1:
        return True
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2]) >= ONE_STAGE_SINCE


@cache
def triton_version() -> str | None:
    """The installed Triton's version; None where there is none."""
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)
