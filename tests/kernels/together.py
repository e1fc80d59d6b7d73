"""Variants compiled for the tests of a file, disassembled together: that is most of the time of each."""

from functools import cache

from kernels.compile import compile_variants


class Together:
    """What the compiler makes of (variant, arch) pairs; an arch's are compiled when one of them is asked for."""

    def __init__(self, pairs):
        self._pairs = pairs
        self._made = cache(self._compile)

    def _compile(self, arch):
        variants = [variant for variant, on in self._pairs if on == arch]
        return dict(zip(map(id, variants), compile_variants(variants, arch), strict=True))

    def __call__(self, variant, arch):
        """One of the pairs: the same object, as variants have no hash."""
        return self._made(arch)[id(variant)]
