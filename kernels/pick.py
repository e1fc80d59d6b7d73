"""Which of the kernels for one op serves a token count."""

from collections.abc import Sequence

from kernels.kernel import Kernel
from specs.errors import UserError


def pick(kernels: Sequence[Kernel], implementation: str, tokens: int) -> Kernel:
    """The one of `kernels`, all of one op, that is of `implementation` and made for `tokens` tokens.

    Raises:
        UserError: no such implementation, or none of its kernels takes that many tokens.
    """
    op, own = kernels[0].op, [kernel for kernel in kernels if kernel.implementation == implementation]
    if not own:
        known = ", ".join(dict.fromkeys(kernel.implementation for kernel in kernels))
        raise UserError(f"unknown implementation {implementation!r} of a {op}; choose one of {known}")
    fitting = next((kernel for kernel in own if tokens in kernel.tokens), None)
    if fitting is None:
        taken = "; ".join(f"{kernel.name} takes {_span(kernel.tokens)}" for kernel in own)
        raise UserError(f"no {implementation} {op} takes {tokens} tokens: {taken}")
    return fitting


def _span(tokens: range) -> str:
    return f"{tokens[0]} to {tokens[-1]}" if len(tokens) < 2**20 else f"{tokens[0]} or more"
