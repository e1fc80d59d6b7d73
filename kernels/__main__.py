"""`python -m kernels`: what the compiler makes of the kernels, and the search for their configurations."""

import json
import sys
from math import inf
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kernels.configs.config import layer_shards
from kernels.configs.dispatch import TUNED_FOLDER
from kernels.inspection.report import render_table, variant_record
from kernels.inspection.variants import inspected_variants
from kernels.triton_utils import missing_triton
from kernels.tuning.tune import ATTENTION_PART, TUNING_PARTS, tune_static
from kernels.tuning.tune import tune as search_on_gpu
from specs.errors import UserError
from specs.gpus import find_arch
from specs.layer import DEFAULT_MODEL, TP_DEGREES

DTYPES = ("bf16", "fp16", "fp32")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def main() -> None:
    """What the compiler makes of the kernels, and the search for their configurations."""


@app.command()
def inspect(
    arch: Annotated[str, typer.Option(help="sm_80, sm_89, sm_90, sm_100, sm_120, …")],
    form: Annotated[str, typer.Option("--format", help="table or json")] = "table",
    model: Annotated[str, typer.Option(help="whose sharded linears are inspected")] = DEFAULT_MODEL,
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32")] = "bf16",
    kernel: Annotated[str, typer.Option(help="only kernels with this in their name: skinny, rmsnorm, …")] = "",
) -> None:
    """Registers, spills, shared memory, occupancy, bytes in flight, instructions, predicted time; needs no GPU."""
    on = find_arch(arch)
    _require_choice("--format", form, ("table", "json"))
    _require_choice("--dtype", dtype, DTYPES)
    _require_triton()
    made = list(inspected_variants(on, dtype, layer_shards(model, TP_DEGREES)))
    chosen = [one for one in made if kernel in one.kernel.name]
    if not chosen:
        known = ", ".join(dict.fromkeys(one.kernel.name for one in made))
        raise UserError(f"--kernel {kernel}: none has that in its name; known: {known}")
    rows = [variant_record(one, on) for one in chosen]
    if form == "json":
        typer.echo(json.dumps(rows, indent=2))
        return
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(*render_table(rows, on), sep="\n")


@app.command()
def tune(
    budget: Annotated[float, typer.Option(help="seconds to search for, on a GPU")] = 120.0,
    into: Annotated[
        Path, typer.Option(help="folder of the tables, and of the journal of what was tried")
    ] = TUNED_FOLDER,
    model: Annotated[str, typer.Option(help="whose shards are tuned")] = DEFAULT_MODEL,
    tp: Annotated[str, typer.Option(metavar="A,B", help="degrees of tensor parallelism")] = ",".join(
        map(str, TP_DEGREES)
    ),
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32")] = "bf16",
    only: Annotated[str, typer.Option(help="linears or attention; without it both")] = "",
    static: Annotated[bool, typer.Option("--static", help="choose by the static model, without a GPU")] = False,
    arch: Annotated[str, typer.Option(help="with --static: for which architecture")] = "",
) -> None:
    """Search configurations on the GPU at hand and write them to kernels/tuned/; goes on where it ended."""
    _require_choice("--dtype", dtype, DTYPES)
    if not 0 <= budget < inf:
        raise UserError(f"--budget {budget} is no number of seconds; write 120")
    if only:
        _require_choice("--only", only, tuple(TUNING_PARTS))
    found = layer_shards(model, _parse_degrees(tp))
    if not static:
        if arch:
            raise UserError(f"--arch {arch} without --static: a search runs on the GPU at hand")
        paths = search_on_gpu(dtype, found, budget, into, typer.echo, (only,) if only else tuple(TUNING_PARTS))
    elif not arch:
        raise UserError("--static needs --arch: sm_80, sm_89, sm_90, sm_100, sm_120, …")
    elif only == ATTENTION_PART:
        raise UserError("--static --only attention: without a measurement attention is cut by its rule, with no table")
    else:
        _require_triton()
        paths = [tune_static(find_arch(arch), dtype, found, into, typer.echo)]
    for path in paths:
        typer.echo(f"wrote {path}")


def _require_triton() -> None:
    if reason := missing_triton():
        raise UserError(reason)


def _parse_degrees(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"--tp {text!r} is no list of whole numbers; write 1,2,4,8") from None


def _require_choice(option: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise UserError(f"{option} {word!r} is unknown; choose one of {', '.join(known)}")


def run_cli() -> None:
    """Run the commands; report a wrong input in one line, with exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    run_cli()
