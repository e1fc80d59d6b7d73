"""The layer through torch.compile: the same torch kernels, fused by its compiler where it can."""

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from types import FunctionType

import torch

from kernels.kernel import Kernel
from kernels.layer.whole import Parts, layer, layer_parts, room, run
from kernels.triton_utils import missing_triton_launch
from specs.layer import LayerShape


def compiled_layer(widths: LayerShape, *, tokens: int, batch: int, context: int) -> Kernel:
    """The torch layer for a shape, compiled for it when it is first called."""
    return replace(
        layer("torch", widths, tokens=tokens, batch=batch, context=context),
        name="torch_compile_layer",
        implementation="torch-compile",
        run=partial(_run, widths, tokens, batch, context),
        steps=None,
        missing=missing,
    )


def _run(widths: LayerShape, tokens: int, batch: int, context: int, **tensors: torch.Tensor) -> None:
    compiled, own = _compiled(widths, tokens, batch, context)
    compiled(**{name: tensor for name, tensor in tensors.items() if name not in own})


@cache
def _compiled(widths: LayerShape, tokens: int, batch: int, context: int) -> tuple[Callable[..., object], Iterable[str]]:
    """The layer, and the names of the tensors that it has of its own.

    Each shape has a code object of its own, since torch gives up on one that it has compiled for eight.
    """
    parts = layer_parts("torch", widths, tokens=tokens, batch=batch, context=context)
    rotary = parts["rotary"]
    traceable = {**parts, "rotary": rotary._replace(kernel=replace(rotary.kernel, run=rotate))}
    between = room(parts, widths, tokens)
    name = f"layer_{tokens}_{batch}_{context}"
    own = FunctionType(_in_own_room.__code__.replace(co_name=name), _in_own_room.__globals__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch.utils.mkldnn  # the compiler would import it, and warn of torch's own use of torch.jit
    # In this process: torch's pool of compilers would go on beside what is measured.
    options: dict[str, str | int | bool | Callable[..., object]] = {"compile_threads": 1}
    made = torch.compile(partial(own, traceable, between), dynamic=False, fullgraph=True, options=options)
    return made, between


def _in_own_room(parts: Parts, shapes: Mapping[str, tuple[int, ...]], **given: torch.Tensor) -> None:
    """What lies between the parts is the compiler's: room that it is given it would have to fill, fused or not."""
    run(parts, **given, **{name: given["x"].new_empty(shape) for name, shape in shapes.items()})


def rotate(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> None:
    """The rotary embedding without results that are written in halves, which torch.compile does not trace."""
    rows = qkv.unflatten(1, (-1, out.shape[2]))
    query, keys, values = rows.split((out.shape[1], key.shape[1], value.shape[1]), dim=1)
    along, across = cos[:, None], sin[:, None]
    for target, part in ((out, query), (key, keys)):
        first, second = part.chunk(2, dim=2)
        target.copy_(torch.cat((first * along - second * across, second * along + first * across), dim=2))
    value.copy_(values)


def missing() -> str | None:
    """What torch.compile needs besides torch."""
    if torch.cuda.is_available():
        return missing_triton_launch()
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return "torch.compile writes C++ for a CPU, and there is neither g++ nor clang++: apt-get install g++"
    return None
