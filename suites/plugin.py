"""Pytest plugin: options, checks, the passes, and their replay.

pytest runs its items once; a measurement needs passes over all of them. Before pytest's own loop, `suites.collect`
plans the case of every bench function and `suites.runner` measures all cases in passes. Then pytest's loop runs each
item once. Its `measure` fixture replays the samples into pytest-benchmark, skips a case that cannot run here with the
reason, or fails it.

torch is imported only if there is something to measure: unit tests load the plugin too.
"""

from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from specs import layer, traffic
from specs.errors import UserError
from specs.layer import LINEAR_IMPLEMENTATIONS
from specs.measurement import SCHEMA
from specs.privacy import current_identity
from suites.commit import commit_info
from suites.options import LINEAR_NAMES, add_options, read_options
from suites.workers.launcher import find_launched_rank

if TYPE_CHECKING:
    from specs.parallel import Split
    from suites.case import CaseState
    from suites.session import Session  # noqa: F401  # named in a string below

SUITES_FOLDER = Path(__file__).parent
SESSION_KEY = pytest.StashKey["Session"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the suites' options."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)  # pytest-benchmark reads its timer in its own configuration
def pytest_configure(config: pytest.Config) -> None:
    """Install the replay timer, and check at the start that results can be written."""
    if read_options(config).device == "cpu":
        from kernels.timing.device import hide_gpus

        hide_gpus()
    if not config.pluginmanager.hasplugin("benchmark"):
        return
    config.option.benchmark_timer = "suites.clock.device_clock"
    config.option.benchmark_columns = config.option.benchmark_columns or ["median", "iqr", "rounds"]
    if _is_follower():
        config.option.benchmark_json = None  # rank 0 writes
        config.option.verbose, config.option.no_header, config.option.no_summary = -2, True, True
    if path := json_path(config):
        _make_writable(path)
    _check_splits_and_ranks(config)


def _is_follower() -> bool:
    """Return whether a launcher started this process as a rank other than 0."""
    try:
        launched = find_launched_rank()
    except UserError as error:
        raise pytest.UsageError(str(error)) from error
    return launched is not None and launched.rank > 0


def json_path(config: pytest.Config) -> Path | None:
    """Path of the JSON file; pytest-benchmark before 5.3 gives an open file."""
    asked = config.option.benchmark_json
    if asked is not None and str(asked) == ".":
        raise pytest.UsageError("--benchmark-json is empty; name a file")
    return asked if isinstance(asked, Path | None) else Path(asked.name)


def _check_splits_and_ranks(config: pytest.Config) -> None:
    options = read_options(config)
    if options.ranks is not None:
        from kernels.timing.device import current_device
        from suites.workers.launcher import plan_ranks

        try:
            plan_ranks(options.ranks, current_device().kind)
        except UserError as error:
            raise pytest.UsageError(str(error)) from error
    if options.model or options.tp or options.pp or options.layer:
        from kernels.timing.device import current_device
        from suites.axes import DEFAULT_SPLITS, requested_splits

        try:
            kind = current_device().kind
            for split in requested_splits(options, DEFAULT_SPLITS[kind], kind):
                for name in options.layer or ():
                    _check_layer(split, name)
        except UserError as error:
            raise pytest.UsageError(str(error)) from error


def _check_layer(split: "Split", name: str) -> None:
    """Refuse a part that the model lacks, or that the suites cannot make for it."""
    if name == layer.ATTENTION:
        layer.attention_shard(split)
    elif name in (*layer.LAYER_PARTS, layer.FUSED_GATE_UP) and name not in LINEAR_NAMES:
        layer.layer_shape(split)
    else:
        split.linear(name)


def _make_writable(path: Path) -> None:
    if path.is_dir():
        raise pytest.UsageError(f"--benchmark-json {path}: is a folder; name a file in it")
    existed = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        if not existed:
            path.unlink(missing_ok=True)  # another process may have created it at the same moment
    except OSError as error:
        raise pytest.UsageError(
            f"--benchmark-json {path}: cannot be written ({error.strerror}); choose a folder that can"
        ) from error


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Refuse a GPU that torch cannot use before each suite fails separately."""
    paths = [(session.config.invocation_params.dir / str(one).split("::")[0]).resolve() for one in session.config.args]
    if any(path.is_relative_to(SUITES_FOLDER) or SUITES_FOLDER.is_relative_to(path) for path in paths):
        from kernels.timing.device import current_device

        try:
            kind = current_device().kind
        except UserError as error:
            raise pytest.UsageError(str(error)) from error
        if read_options(session.config).device not in (None, kind):
            raise pytest.UsageError("--device cuda: torch sees no GPU; python -m suites doctor says why")


def bench_items(session: pytest.Session) -> list[pytest.Function]:
    """Collected bench functions."""
    return [item for item in session.items if isinstance(item, pytest.Function) and "measure" in item.fixturenames]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Measure everything in passes; pytest's own loop then replays the samples."""
    items, config = bench_items(session), session.config
    if not items or session.testsfailed or config.option.collectonly:
        return None
    if not config.pluginmanager.hasplugin("benchmark") or config.option.benchmark_skip:
        return None
    from suites.session import Session

    _refuse_xdist(config)
    try:
        ours = config.stash[SESSION_KEY] = Session(config, items, json_path(config))
        if read_options(config).list:
            ours.print_cases()
            return True
        if not ours.ranks.is_leader:
            ours.follow_leader()
            return True
        ours.measure()
    except UserError as error:
        raise pytest.UsageError(str(error)) from error
    return None


def _refuse_xdist(config: pytest.Config) -> None:
    """Refuse pytest-xdist: processes would time each other and write the same files."""
    if hasattr(config, "workerinput") or config.getoption("dist", "no") != "no":
        raise pytest.UsageError("pytest-xdist: workers would time each other; run the suites without -n")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect axes without values, and implementations without a fitting kernel."""
    benches = [item for item in items if "measure" in getattr(item, "fixturenames", ())]
    out = {item for item in benches if "NOTSET" in item.name}
    out |= _items_without_kernel([item for item in benches if item not in out])
    if out and len(out) == len(benches) and (asked := read_options(config).impl):
        raise pytest.UsageError(
            f"nothing to measure: these suites have nothing by {', '.join(asked)}; linears are by "
            f"{', '.join(LINEAR_IMPLEMENTATIONS)}, attention by {', '.join(layer.ATTENTION_IMPLEMENTATIONS)}, "
            f"whole layers by {', '.join(layer.LAYER_IMPLEMENTATIONS)}, messages by "
            f"{', '.join(traffic.COMM_IMPLEMENTATIONS)}"
        )
    if out:
        config.hook.pytest_deselected(items=[item for item in items if item in out])
        items[:] = [item for item in items if item not in out]


def _items_without_kernel(benches: list[pytest.Item]) -> set[pytest.Item]:
    """Linears whose implementation has no kernel for their tokens.

    Raises:
        pytest.UsageError: no linear has a kernel, so the options contradict each other.
    """
    params = {item: item.callspec.params for item in benches if hasattr(item, "callspec")}
    linears = {item: (p["how"].implementation, p["tokens"]) for item, p in params.items() if "shard" in p}
    if not linears:
        return set()
    from kernels.registry import has_linear, select_linear

    unmade = {item for item, asked in linears.items() if not has_linear(*asked)}
    if len(unmade) == len(linears):
        try:
            select_linear(*next(iter(linears.values())))
        except UserError as error:
            raise pytest.UsageError(f"nothing to measure: {error}") from error
    return unmade


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any) -> Any:
    """Replay the samples of a bench function's case into pytest-benchmark."""
    entry = request.config.stash[SESSION_KEY].entries[request.node.nodeid]

    def replay(*_: Any, **__: Any) -> None:
        benchmark.skipped = entry.failed is not None or entry.not_run is not None
        if entry.not_run is not None:
            pytest.skip(entry.not_run)
        if entry.failed is not None:
            pytest.fail(entry.failed, pytrace=False)
        request.config.stash[SESSION_KEY].replay(entry, benchmark)

    return replay


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_generate_commit_info() -> dict[str, Any] | None:
    """Commit of a tree without history; None leaves it to pytest-benchmark."""
    return commit_info()


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add facts that results depend on; remove the host's name from shared files."""
    if SESSION_KEY in config.stash:
        machine_info.pop("node", None)
        machine_info.update(config.stash[SESSION_KEY].machine_info)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add failed and omitted cases with reasons; remove user and host names."""
    if SESSION_KEY in config.stash:
        config.stash[SESSION_KEY].written = True
        output_json["shardbench"] = {"schema": SCHEMA, **config.stash[SESSION_KEY].outcome()}
        output_json.update(current_identity().scrub(output_json))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # wraps pytest-benchmark, which writes the JSON here
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    """Fail a run that measured nothing, ended a case early, or cannot write its JSON."""
    ours = session.config.stash.get(SESSION_KEY, None)
    try:
        found = yield
    except OSError as error:
        if ours is None or not ours.written:
            raise
        found, ours.written, ours.write_error = None, False, f"{ours.json} cannot be written ({error.strerror})"
        pytest_terminal_summary(session.config.pluginmanager.get_plugin("terminalreporter"), session.config)  # cut off
    short = ours and ours.finished and (not ours.measured or any(entry.error is not None for entry in ours.plan))
    if (short or (ours and ours.write_error)) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return found


def _names_by_error(entries: "Iterable[CaseState]") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        found.setdefault(entry.error or "", []).append(entry.case.name)
    return found


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the cases that did not run, with reasons, and the next command."""
    if (ours := config.stash.get(SESSION_KEY, None)) is None or read_options(config).list or not ours.ranks.is_leader:
        return
    line = terminalreporter.write_line
    for reason, count in Counter(entry.not_run for entry in ours.plan if entry.not_run).most_common():
        line(f"not run here: {count} case{'s' if count > 1 else ''}: {reason}")
    for reason, cases in _names_by_error(entry for entry in ours.plan if entry.error is not None).items():
        more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        line(f"ended early, with what was measured before: {cases[0]}{more}: {reason}")
    if not ours.has_started:
        return
    if not ours.finished:
        line(f"interrupted: what was measured is in {ours.journal}; go on with --resume, or make a result file of it:")
        line(f"  python -m reports recover {ours.journal} -o {ours.recovered_path}")
    elif not ours.measured:
        line("nothing was measured, so no JSON is written")
    elif ours.written and ours.replayed == ours.measured:
        line(f"look at it: python -m reports show {ours.json}")
    else:
        if ours.write_error:
            line(f"{ours.write_error}; all that was measured is in {ours.journal}: make room, or write elsewhere")
        line(
            f"{ours.measured - ours.replayed * ours.written} measured cases are in no JSON; make a result file of them:"
        )
        line(f"  python -m reports recover {ours.journal} -o {ours.recovered_path}")
