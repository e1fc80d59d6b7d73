"""`python -m reports`: read result files and answer questions."""

import atexit
import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from reports.importers.aiconfigurator.package import DEFAULT_DTYPES, DEFAULT_MODELS, DEFAULT_WIDTHS
from reports.output import Format
from reports.plan.query import BACKENDS, DEFAULT_BATCHES, LAUNCH_MODES, TARGET_LATENCIES, Interconnect, PlanQuery
from specs.errors import GateError, UserError
from specs.parallel import PARTITIONS

# Each command imports its own modules when it runs: together they take seconds, with pandas, SciPy and Altair.

app = typer.Typer(
    help="Read result files and answer questions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

FormatOption = Annotated[Format, typer.Option("--format", help="How to write it.")]
OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write it; else to stdout.")
]


@app.command("show")
def _show(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="Result files of the suites; else what is here.")
    ] = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
    to: OutputOption = None,
) -> None:
    """What each file measured, beside the machine's own ceilings; without a file what lies in reports/data."""
    from reports.archive.index import show_folder
    from reports.show import show

    if paths:
        show(paths, format, to)
    else:
        show_folder(format, to)


@app.command("check")
def _check(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="Result files, or folders of them; else reports/data.")
    ] = None,
) -> None:
    """Is each file sound, of a schema that can be read, and without names of users and hosts? Exit 1 if not."""
    from reports.archive.entries import check

    for line in check(paths or []):
        typer.echo(line)


@app.command("index")
def _index(
    only_check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if a page is old.")] = False,
) -> None:
    """Write the pages of reports/data: one for each result file, and one that lists them."""
    from reports.archive.index import write_index

    typer.echo(write_index(only_check=only_check))


@app.command("compare")
def _compare(
    paths: Annotated[list[Path], typer.Argument(metavar="A B…", help="The baseline, and result files to judge.")],
    threshold: Annotated[
        str | None,
        typer.Option(metavar="1%|0.01", help="Change that counts; else 1.5% where files can tell it, or 5%."),
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(metavar="5%", help="Exit 1 where a case is slower by more, surely by half of it, or fails now."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All cases of long tables (JSON always has them).")] = False,
    format: FormatOption = Format.TABLE,  # noqa: A002
    to: OutputOption = None,
) -> None:
    """What changed from A to B, case by case and by question, and what could explain it?"""
    from reports.compare.command import compare
    from reports.compare.verdict import parse_threshold

    if len(paths) < 2:
        raise typer.BadParameter("one file alone: give the baseline, then one or more to judge")
    limit = parse_threshold(gate, "--gate") if gate is not None else None
    counts = parse_threshold(threshold) if threshold is not None else None
    for line in compare(paths, counts, format, to, limit=limit, every=every):
        typer.echo(line, err=True)


@app.command("kernels")
def _kernels(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Result files of the suites.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose linears; else llama-3-70b, if there.")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="GPUs alone, a cell for each shape and batch.")] = False,
    format: FormatOption = Format.TABLE,  # noqa: A002
    to: OutputOption = None,
) -> None:
    """Decode kernels beside the vendor's library and the floor, and the targets set for them."""
    from reports.kernel_report.report import kernels

    kernels(paths, model, format, to, as_grid=grid)


@app.command("ledger")
def _ledger(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Result files of the suites.")],
    format: FormatOption = Format.TABLE,  # noqa: A002
    to: OutputOption = None,
) -> None:
    """Where the time of a whole layer goes: linears, attention, norms, launches, fusion, caches."""
    from reports.ledger.report import ledger

    ledger(paths, format, to)


@app.command("plan")
def _plan(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="Result files of one GPU, own or imported.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="A,B", help="Import published figures of GPUs: h200_sxm,H100; files first.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Dense model: slug, Hugging Face id, or a config.json.")
    ] = "llama-3-70b",
    gpus: Annotated[int, typer.Option(metavar="N", help="GPUs in all: tp x pp x replicas.")] = 8,
    context: Annotated[int, typer.Option(metavar="TOKENS", help="In each sequence's cache.")] = 2048,
    batch: Annotated[str | None, typer.Option(metavar="1,8", help="Sequences over all replicas.")] = None,
    dtype: Annotated[
        str, typer.Option(metavar="NAME", help="Number format: bf16, fp16, fp8, fp8-block or nvfp4.")
    ] = "bf16",
    backend: Annotated[str, typer.Option(metavar="|".join(BACKENDS), help="Whose all-reduce.")] = "best",
    launch: Annotated[
        str, typer.Option(metavar="|".join(LAUNCH_MODES), help="Of all-reduces: graph, else eager.")
    ] = "graph",
    partition: Annotated[str, typer.Option(metavar="|".join(PARTITIONS), help="How stages get layers.")] = "even",
    draft_tokens: Annotated[int, typer.Option(metavar="N", help="Checked beside each sequence's own token.")] = 0,
    prefill_chunk: Annotated[int, typer.Option(metavar="TOKENS", help="Of prompts, taken along in a step.")] = 0,
    layers: Annotated[int | None, typer.Option(metavar="N", help="Cut the model down to so many.")] = None,
    latency: Annotated[str | None, typer.Option(metavar="0.02,0.05", help="Seconds a token to choose for.")] = None,
    nodes: Annotated[int, typer.Option(metavar="N", help="What if: hosts that the GPUs are in.")] = 1,
    gpus_per_node: Annotated[int | None, typer.Option(metavar="N", help="What if: GPUs in each host.")] = None,
    link_bandwidth: Annotated[
        float | None, typer.Option(metavar="BYTES/S", help="What if: of the link, one direction; 50e9.")
    ] = None,
    link_latency: Annotated[float | None, typer.Option(metavar="SECONDS", help="What if: of a message; 10e-6.")] = None,
    link_share: Annotated[float, typer.Option(metavar="0.5", help="What if: what others leave of the link.")] = 1.0,
    format: FormatOption = Format.TABLE,  # noqa: A002
    to: OutputOption = None,
) -> None:
    """TP, PP or a mix? Steps of a whole model for every split, put together from measured parts."""
    from reports.plan.report import parse_gpus, parse_launches, parse_numbers, parse_whole_numbers, write_plan

    fabric = Interconnect(
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        bytes_per_second=link_bandwidth,
        latency_seconds=link_latency,
        share=link_share,
    )
    query = PlanQuery(
        model=model,
        gpus=gpus,
        context=context,
        dtype=dtype,
        backend=backend,
        launches=parse_launches(launch),
        partition=partition,
        draft_tokens=draft_tokens,
        prefill_chunk=prefill_chunk,
        layers=layers,
        interconnect=fabric,
        batches=DEFAULT_BATCHES if batch is None else parse_whole_numbers(batch, "--batch"),
        latencies=TARGET_LATENCIES if latency is None else parse_numbers(latency, "--latency"),
    )
    write_plan(paths or [], query, format, to, parse_gpus(gpu))


@app.command("html")
def _html(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Result files, own or imported.")],
    format: Annotated[Format | None, typer.Option("--format", help="Text instead of the page.")] = None,  # noqa: A002
    to: OutputOption = None,
) -> None:
    """The whole report as one page (-o report.html); without -o the same in the terminal."""
    from reports.html.command import html

    if said := html(paths, format, to):
        typer.echo(said, err=to is None)


@app.command("claims")
def _claims(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="Result files, measured or imported.")
    ] = None,
    gates: Annotated[
        list[str] | None, typer.Option("--gate", metavar="ID=VERDICT", help="Exit 1 unless the verdict is this.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Single linears too (JSON always has them).")] = False,
    format: FormatOption = Format.TABLE,  # noqa: A002
    to: OutputOption = None,
) -> None:
    """Judge every claim of the ledger by arithmetic and by the files."""
    from reports.claims.registry import write_claims

    write_claims(paths or [], gates or [], format, to, every=every)


@app.command("score")
def _score(
    path: Annotated[
        Path | None, typer.Argument(metavar="CSV", help="Served runs; else those of aiconfigurator-core.")
    ] = None,
    rival: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Another planner's predictions: id, aic_tpot_ms, aic_ttft_ms.")
    ] = None,
    fail_above: Annotated[
        str | None, typer.Option(metavar="6%", help="Exit 1 where the median TPOT error of held-out runs is larger.")
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Fit the constants on calibration runs; write them.")] = False,
    format: FormatOption = Format.TABLE,  # noqa: A002
    to: OutputOption = None,
) -> None:
    """Compare the planner's TPOT and TTFT with those of real served runs."""
    from reports.compare.verdict import parse_threshold
    from reports.score.report import score

    limit = parse_threshold(fail_above, "--fail-above") if fail_above is not None else None
    score(path, rival, format, to, fail_above=limit, refit=refit)


@app.command("recover")
def _recover(
    journal: Annotated[Path, typer.Argument(metavar="JOURNAL", help="<result>.json.journal.jsonl of the run.")],
    to: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Result file to write.")],
) -> None:
    """Make the result file of a run that was cut off from its journal."""
    from reports.importers.result_file import recover

    typer.echo(recover(journal, to))


importers = typer.Typer(help="Turn what others measured into a result file.", no_args_is_help=True)
app.add_typer(importers, name="import")


@importers.command("aiconfigurator")
def _aiconfigurator(
    system: Annotated[str, typer.Option(metavar="NAME", help="As the package names it, or its GPU: h200_sxm, B200, …")],
    to: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Result file to write.")],
    model: Annotated[str, typer.Option(metavar="A,B", help="Models, as for plan.")] = ",".join(DEFAULT_MODELS),
    tp: Annotated[str, typer.Option(metavar="1,2", help="Widths of tensor parallelism.")] = ",".join(
        map(str, DEFAULT_WIDTHS)
    ),
    dtype: Annotated[str, typer.Option(metavar="A,B", help="Number formats.")] = ",".join(DEFAULT_DTYPES),
) -> None:
    """Published tables of real GPUs, from the package aiconfigurator-core (extra `silicon`)."""
    from reports.importers.aiconfigurator.command import import_aiconfigurator

    typer.echo(import_aiconfigurator(system, to, model, tp, dtype))


@importers.command("nccl-tests")
def _nccl_tests(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE…", help="What *_perf printed, or what its -J wrote.")],
    to: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Result file to write.")],
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="The GPU, where they give no known name.")] = None,
    op: Annotated[str | None, typer.Option(metavar="NAME", help="Operation, where they do not name it.")] = None,
) -> None:
    """Times that nccl-tests or rccl-tests took: all_reduce_perf, all_gather_perf, sendrecv_perf and the like."""
    from reports.importers.nccl_tests import import_nccl_tests

    typer.echo(import_nccl_tests(paths, to, gpu, op))


@importers.command("nsys")
def _nsys(
    path: Annotated[Path, typer.Argument(metavar="SQLITE", help="What `nsys export --type sqlite` wrote.")],
    to: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Result file to write.")],
    run: Annotated[Path | None, typer.Option(metavar="FILE", help="Result file of the traced run.")] = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Device time a case and a layer's part, from a trace of the suites by Nsight Systems, beside our own clock."""
    from reports.importers.profiler.report import import_nsys

    import_nsys(path, to, run, format)


@importers.command("ncu")
def _ncu(
    path: Annotated[Path, typer.Argument(metavar="CSV", help="What ncu printed with --nvtx --csv.")],
    to: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Result file to write.")],
    run: Annotated[Path | None, typer.Option(metavar="FILE", help="Result file of the profiled run.")] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="The GPU, where the table does not name it.")] = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Durations and DRAM bytes of kernels, from a table of Nsight Compute with our ranges in it."""
    from reports.importers.profiler.report import import_ncu

    import_ncu(path, to, run, gpu, format)


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit 2 with one line on stderr on `UserError`, 1 on `GateError`.

    The cycle collector is off meanwhile: a fifth of the time went into looking through records that have no cycles.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        app(args=arguments, prog_name="python -m reports")
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except GateError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)
    finally:
        if collects:
            gc.enable()


if __name__ == "__main__":
    atexit.register(gc.freeze)  # else Python searches all records for cycles as it ends, a second or two for six files
    main()
