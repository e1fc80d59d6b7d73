"""Runs Triton kernels on CPU tensors, in the same process as ahead-of-time compilation."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import triton
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder, TensorHandle
from triton.runtime.jit import JITFunction

needs_interpreter = pytest.mark.skipif(
    triton.__version__.startswith("3.6.") and np.lib.NumpyVersion(np.__version__) >= "2.4.0",
    reason="the interpreter of triton 3.6 fails on loops over scalar arguments with numpy 2.4; triton 3.7 is cured",
)


def widened_dot(
    self: InterpreterBuilder, a: TensorHandle, b: TensorHandle, total: TensorHandle, *precision: Any
) -> TensorHandle:
    """Dot product that takes bf16, held as uint16, for the float32 with the same upper half."""
    return stock_dot(self, widen(a), widen(b), total, *precision)


def widen(operand: TensorHandle) -> TensorHandle:
    """Turn bf16 into float32 bit by bit; anything else stays."""
    if operand.dtype.scalar != tl.bfloat16:
        return operand
    return TensorHandle((operand.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


stock_dot = InterpreterBuilder.create_dot


class LibraryFunction(InterpretedFunction):
    """A function of Triton's own library, such as tl.zeros, which stock Triton leaves in interpreted form for good."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        scope = interpreter._patch_lang(self.fn)
        try:
            return self.rewrite()(*args, **kwargs)
        finally:
            scope.restore()


@contextmanager
def interpreted(*modules: ModuleType, create_dot: Any = widened_dot) -> Iterator[None]:
    """Run the Triton functions of `modules` in the interpreter for a while.

    The environment variable TRITON_INTERPRET would do so for the whole process and break compilation.
    """
    with ExitStack() as swaps, warnings.catch_warnings():
        # triton 3.6 turns arrays into loop bounds, which numpy refuses from 2.4 and until then warns of
        warnings.filterwarnings("ignore", "Conversion of an array with ndim > 0", DeprecationWarning)
        swaps.enter_context(np.errstate(over="ignore"))  # exp of a far gate is infinite, on a GPU without a word
        swaps.enter_context(patch.object(InterpreterBuilder, "create_dot", create_dot))
        for module, form in [(tl, LibraryFunction), *((module, InterpretedFunction) for module in modules)]:
            for name, function in list(vars(module).items()):
                if isinstance(function, JITFunction):
                    swaps.enter_context(patch.object(module, name, form(function.fn)))
        yield
