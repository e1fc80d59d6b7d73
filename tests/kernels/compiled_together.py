"""Variants compiled for the tests of a file, disassembled together: that is most of the time of each."""

from functools import cache

import pytest

from kernels.compile import check_disassembler, compile_variants
from kernels.configs.config import triton_version
from specs.errors import UserError


class CompiledTogether:
    """What the compiler makes of (variant, arch) pairs; an arch's are compiled when one of them is asked for."""

    def __init__(self, pairs):
        self._pairs = pairs
        self._made = cache(self._compile)

    def _compile(self, arch):
        variants = [variant for variant, on in self._pairs if on == arch]
        return dict(zip(map(id, variants), compile_variants(variants, arch), strict=True))

    def __call__(self, variant, arch):
        """One of the pairs: the same object, as variants have no hash. Skips where its code cannot be read."""
        skip_without_disassembler(arch)
        return self._made(arch)[id(variant)]


def skip_without_disassembler(arch):
    """Skip the test, with the reason, where this Triton's disassembler lacks `arch`."""
    try:
        check_disassembler(arch)
    except UserError as error:
        pytest.skip(str(error))


def usual_spill_bytes(arch):
    """Spills that this Triton makes in forms that Triton 3.7 keeps in registers: with 3.6 on Blackwell alone."""
    return 64 if str(triton_version()).startswith("3.6.") and arch in ("sm_100", "sm_120") else 0
