"""Records of Triton launches, to compile kernels before they run, without a GPU.

A record holds what a launch is specialised on, independent of Triton's version. pointer: type of its elements, and
whether it is aligned to 16 bytes. integer: whether it is 1, whether it is a multiple of 16, and its bits. constant: its
value. A record gives the same key of Triton's cache as the launch itself.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

RECORDS_FOLDER = Path(__file__).parent / "launches"
ELEMENT_DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "i1": torch.bool,
}
ELEMENT_NAMES = {dtype: name for name, dtype in ELEMENT_DTYPES.items()}
ALIGNED_BYTES = 16
NON_OPTIONS = ("grid", "warmup", "debug", "instrumentation_mode")
"""Keywords of a launch that are no arguments and no compiler options of a caller."""
WIDE_INTEGER = 2**32
"""Multiple of 16 that takes 64 bits."""

Record = dict[str, Any]


@dataclass(frozen=True)
class PointerStandIn:
    """Stand-in for a tensor at compilation: type of its elements, and alignment."""

    dtype: torch.dtype
    aligned: bool = True

    def data_ptr(self) -> int:
        """Address, aligned to 16 bytes or off by one element."""
        return ALIGNED_BYTES * 64 + (0 if self.aligned else self.dtype.itemsize)

    def element_size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize


def describe_launch(fn: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Record:
    """Record of a launch.

    Args:
        fn: the `@triton.jit` function.
        args: positional arguments, as `JITFunction.run` gets them.
        kwargs: keyword arguments; options of the compiler may be among them.

    Raises:
        TypeError: an argument of a kind that no kernel here takes.
    """
    parameters = {one.name: one for one in fn.params}
    bound = fn.signature.bind(*args, **{name: value for name, value in kwargs.items() if name in parameters})
    bound.apply_defaults()
    arguments = {name: _describe_argument(parameters[name], value) for name, value in bound.arguments.items()}
    options = {
        name: value for name, value in sorted(kwargs.items()) if name not in parameters and name not in NON_OPTIONS
    }
    return {"kernel": f"{_module_name(fn)}:{fn.fn.__qualname__}", "arguments": arguments, "options": options}


def _module_name(fn: Any) -> str:
    """Module from which a kernel can be imported, even if it is the running program."""
    name = str(fn.fn.__module__)
    own = getattr(sys.modules["__main__"], "__spec__", None)
    return own.name if name == "__main__" and own else name


def _describe_argument(parameter: Any, value: Any) -> dict[str, Any]:
    if parameter.is_constexpr or value is None or isinstance(value, bool):
        return {"value": value}
    if isinstance(value, int):
        bits = 32 if -(2**31) <= value < 2**31 else 64
        if parameter.do_not_specialize:
            return {"integer": {"bits": bits}}
        return {"integer": {"one": value == 1, "divisible": value % ALIGNED_BYTES == 0, "bits": bits}}
    if isinstance(value, float):
        return {"float": True}
    if isinstance(value, TensorDescriptor):
        return {"descriptor": {"dtype": ELEMENT_NAMES[value.base.dtype], "block": list(value.block_shape)}}
    if hasattr(value, "data_ptr"):
        return {"pointer": ELEMENT_NAMES[value.dtype], "aligned": value.data_ptr() % ALIGNED_BYTES == 0}
    raise TypeError(f"{parameter.name}: a {type(value).__name__} is not written down yet")


def compile_launch(record: Record) -> Any:
    """Compile a record into Triton's cache; return the compiled kernel.

    The target is that of Triton's active driver.

    Raises:
        Exception: any error of the compiler.
    """
    fn = find_jit_function(record)
    arguments = {name: make_stand_in(told) for name, told in record["arguments"].items()}
    return fn.warmup(grid=(1,), **arguments, **record["options"])


def find_jit_function(record: Record) -> Any:
    """Function of a record, decorated with `@triton.jit`."""
    module, name = record["kernel"].split(":")
    return getattr(import_module(module), name)


def make_stand_in(told: Mapping[str, Any]) -> Any:
    """Argument on which Triton specialises as on the recorded argument."""
    if "value" in told:
        return told["value"]
    if "integer" in told:
        return _integer_stand_in(**told["integer"])
    if "float" in told:
        return 0.5
    if "pointer" in told:
        return PointerStandIn(ELEMENT_DTYPES[told["pointer"]], told["aligned"])
    block = told["descriptor"]["block"]
    strides = [ALIGNED_BYTES * 64] * (len(block) - 1) + [1]
    return TensorDescriptor(
        PointerStandIn(ELEMENT_DTYPES[told["descriptor"]["dtype"]]), list(block), strides, list(block)
    )


def _integer_stand_in(bits: int, *, one: bool = False, divisible: bool = True) -> int:
    if one:
        return 1
    return (WIDE_INTEGER if bits == 64 else ALIGNED_BYTES) + (0 if divisible else 3)


def read_records(arch: str, folder: Path = RECORDS_FOLDER) -> list[Record]:
    """Records of an architecture; empty where there are none."""
    path = folder / f"{arch}.json"
    if not path.exists():
        return []
    records: list[Record] = json.loads(path.read_text())["launches"]
    return records


def write_records(arch: str, records: Iterable[Record], folder: Path = RECORDS_FOLDER) -> Path:
    """Write the distinct records, one per line in a stable order; return the path."""
    lines = sorted({json.dumps(one, sort_keys=True) for one in records})
    folder.mkdir(exist_ok=True)
    path = folder / f"{arch}.json"
    path.write_text('{"arch": "%s", "launches": [\n%s\n]}\n' % (arch, ",\n".join(lines)))  # noqa: UP031 - braces
    return path
