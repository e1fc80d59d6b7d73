"""`python -m reports`: read result files and answer questions."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from reports.compare import compare
from reports.output import Format
from reports.recover import recover
from reports.show import show
from reports.verdict import parse_threshold
from specs.errors import UserError

app = typer.Typer(
    help="Read result files and answer questions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

As = Annotated[Format, typer.Option("--format", help="How to write it.")]
To = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write it; else to stdout.")]


@app.command("show")
def _show(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Result files of the suites.")],
    format: As = Format.TABLE,  # noqa: A002
    to: To = None,
) -> None:
    """What each file measured, beside the machine's own ceilings."""
    show(paths, format, to)


@app.command("compare")
def _compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Result file to compare with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Result file that is judged.")],
    threshold: Annotated[str, typer.Option(metavar="5%|0.05", help="Change that counts.")] = "5%",
    format: As = Format.TABLE,  # noqa: A002
    to: To = None,
) -> None:
    """Is B faster than A, case by case?"""
    compare((a, b), parse_threshold(threshold), format, to)


@app.command("recover")
def _recover(
    journal: Annotated[Path, typer.Argument(metavar="JOURNAL", help="<result>.json.journal.jsonl of the run.")],
    to: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Result file to write.")],
) -> None:
    """Make the result file of a run that was cut off from its journal."""
    typer.echo(recover(journal, to))


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a `UserError` is one line on stderr and exit code 2."""
    try:
        app(args=arguments, prog_name="python -m reports")
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
