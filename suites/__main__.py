"""`python -m suites`: what can be measured here. The measuring itself is `pytest suites/`."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kernels.timing.device import cpu_device, current_device
from specs.errors import UserError
from specs.units import parse_bytes
from suites.doctor import find_capabilities
from suites.environment import result_name
from suites.gate import command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def doctor(
    form: Annotated[str, typer.Option("--format", help="table or json")] = "table",
) -> None:
    """Show what this machine can measure, what it cannot and why."""
    try:
        device = current_device()
    except UserError:  # the first line gives the reason
        device = cpu_device()
    lines = list(find_capabilities(device))
    if form == "json":
        typer.echo(json.dumps([line._asdict() for line in lines], indent=2))
        return
    if form != "table":
        raise typer.BadParameter(f"{form!r} is unknown; choose table or json", param_hint="--format")
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found", "how to get it"):
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row("yes" if line.works else "no", line.subject, line.found, "" if line.works else line.remedy)
    Console(width=None if sys.stdout.isatty() else 140, markup=False).print(table)


@app.command()
def name(device: Annotated[str, typer.Option(help="cpu: although there is a GPU")] = "") -> None:
    """Print <machine>-<date>, the name of a result file made here today."""
    if device not in ("", "cpu"):
        raise typer.BadParameter(f"{device!r} is unknown; write cpu, or leave it out", param_hint="--device")
    try:
        typer.echo(result_name(cpu_device() if device else current_device()))
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def overhead(
    message: Annotated[str, typer.Option(help="Message, as 16MiB.")] = "16MiB",
    ranks: Annotated[int, typer.Option(help="Ranks on this CPU.")] = 2,
    blocks: Annotated[int, typer.Option(help="ABBA blocks.", min=2)] = 12,
) -> None:
    """What the probes add to a bare loop of the same gloo all-reduce."""
    from suites.overhead import measure_overhead  # imports torch.distributed, which other commands do not need

    try:
        found = measure_overhead(ranks, parse_bytes(message), blocks)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(
        f"gloo all_reduce {message}, {ranks} ranks, {blocks} ABBA blocks: bare {found.bare * 1e3:.3f} ms, "
        f"ours {found.ours * 1e3:.3f} ms, ratio {found.ratio:.3f} (95 %: {found.low:.3f} to {found.high:.3f})"
    )


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def gate(context: typer.Context) -> None:
    """Run the GPU gate, as `make gpu` does: correctness, the suites, counters, clocks; other profiles by name."""
    raise typer.Exit(command.main(context.args))  # the gate parses its own options: it must run without typer


if __name__ == "__main__":
    app()
