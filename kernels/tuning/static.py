"""Choosing without silicon: the static model's best few, compiled, and of those the best with real registers.

A configuration that other shapes run with already is taken where it is nearly as good: each one more costs a user the
time to compile it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

from kernels import gemm
from kernels.compile import Variant, compile_variant
from kernels.skinny import variant
from kernels.tuning.config import FEW_TOKENS, Config
from kernels.tuning.kinds import GEMM, SKINNY, kind
from kernels.tuning.model import Prediction
from kernels.tuning.rule import rank, ranked
from kernels.tuning.shapes import TOKEN_CLASSES
from kernels.tuning.table import STATIC, Row
from specs.gpus import Arch
from specs.parallel import Shard

COMPILED = {SKINNY: 4, GEMM: 1}
"""Candidates that are compiled for a shape, beyond those that spill: a GEMM's registers are mostly its sums."""
NEARLY = 1.03
"""Over the best prediction, what a configuration that is in use already may take."""


@cache
def programs_per_sm(config: Config, dtype: str, on: Arch, *, tokens: int, even: bool) -> int:
    """Programs that an SM holds, by the compiler's registers and shared memory; 0 where one spills or does not fit."""
    made = [compile_variant(form, on.name) for form in _forms(config, dtype, on, tokens, even)]
    if any(one.spill_bytes for one in made):
        return 0
    resident = kind(tokens).resident
    return min(resident(on, config, dtype, registers=one.registers, shared=one.shared_bytes) for one in made)


def _forms(config: Config, dtype: str, on: Arch, tokens: int, even: bool) -> list[Variant]:
    """What calls of so many tokens run of a configuration where rows begin at 16 bytes."""
    if tokens <= FEW_TOKENS:
        return [variant(config, dtype, even=even, dependent=dependent) for dependent in {False, on.dependent_launch}]
    return [gemm.variant(config, dtype, even=even or config.tma, swiglu=swiglu) for swiglu in (False, True)]


def static_rows(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Row]:
    """A row for each shard and class of tokens."""
    used: Counter[Config] = Counter()
    for tokens in TOKEN_CLASSES:
        for shard in shards:
            row = _static_row(on, dtype, used, tokens=tokens, n=shard.n, k=shard.k)
            used[row.config] += 1
            yield row


def _static_row(on: Arch, dtype: str, used: Counter[Config], *, tokens: int, n: int, k: int) -> Row:
    candidates = [config for config, _ in ranked(on, dtype, tokens=tokens, n=n, k=k)]
    known = kind(tokens)

    def clean(configs: Iterable[Config]) -> Iterator[tuple[Config, Prediction]]:
        for config in configs:
            if programs := programs_per_sm(config, dtype, on, tokens=tokens, even=config.even(n, k)):
                yield config, known.predict(config, on.representative, programs, dtype, tokens=tokens, n=n, k=k)

    told = dict(islice(clean(candidates), COMPILED[known])) | dict(clean(set(candidates) & set(used)))
    seconds = {config: prediction.seconds or 0.0 for config, prediction in told.items()}
    near = [(c, p) for c, p in told.items() if seconds[c] <= NEARLY * min(seconds.values())]
    most = max(used[config] for config, _ in near)
    config, _ = rank(pair for pair in near if used[pair[0]] == most)[0]
    return Row(dtype, tokens, n, k, config, round(seconds[config], 10), STATIC)
