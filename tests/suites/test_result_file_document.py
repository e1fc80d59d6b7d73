"""docs/result-file.md names the keys that a result file has, all of them and no others."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from kernels.timing.device import current_device
from reports import results
from specs.errors import UserError
from specs.measurement import SCHEMA, Case, Measurement
from suites.environment import machine_info
from tests.reports import planted
from tests.reports.tp_vs_pp import planted_steps
from tests.suites.conftest import GOOD

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "result-file.md").read_text()


def rows(table):
    """By key whether it is required, of the table behind a marker."""
    below = DOCUMENT.split(f"<!-- {table} -->\n\n")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in below]
    return {re.fullmatch(r"`(\w+)`", row[0])[1]: row[1] == "yes" for row in cells}


def test_a_case_has_these_keys_and_those_without_a_default_are_required():
    assert rows("case") == {f.name: f.default is MISSING for f in fields(Case)}


def test_a_measurement_has_these_keys():
    assert [*rows("measurement")] == [f.name for f in fields(Measurement) if f.name not in ("case", "seconds")]


def test_what_is_derived_has_these_keys():
    assert {*planted_steps.step().extra_info()} - {*rows("case")} - {*rows("measurement")} == {*rows("derived")}


@pytest.mark.parametrize("key", [key for key, required in rows("case").items() if required])
def test_a_case_without_a_required_key_is_refused(tmp_path, key):
    content = planted.content([planted.measured(planted.case(), 1.0)])
    del content["benchmarks"][0]["extra_info"][key]
    with pytest.raises(UserError, match="not a shardbench case"):
        results.parse(tmp_path / "x.json", content)


@pytest.mark.parametrize("key", [key for key, required in rows("case").items() if not required])
def test_a_case_without_another_key_is_read(tmp_path, key):
    content = planted.content([planted.measured(planted.case(), 1.0)])
    content["benchmarks"][0]["extra_info"].pop(key, None)
    assert results.parse(tmp_path / "x.json", content).measurements


def test_a_machine_has_these_keys():
    """Those of a GPU stand in the code alone, where there is none."""
    code = "".join(
        (ROOT / "suites" / name).read_text() for name in ("environment.py", "workers/launcher.py", "session.py")
    )
    known = rows("machine")
    assert {*machine_info(current_device())} <= {*known}
    assert not [key for key in known if f'"{key}"' not in code]
    written = {*re.findall(r'^ +"(\w+)": ', (ROOT / "suites" / "environment.py").read_text(), re.MULTILINE)}
    assert written <= {*known}


def test_the_block_has_these_keys(bench):
    bench.write(GOOD)
    bench.run("--passes", "1")
    assert {*bench.result()["shardbench"]} == {*rows("block")}
    assert {*bench.result()["machine_info"]} >= {"shardbench_schema"}


def test_it_names_what_tells_a_profile():
    told = DOCUMENT.split("## machine_info")[1].split("## shardbench")[0]
    assert "`profiler`" in told
    (clocks,) = re.findall(r"^\| `clock` \| \| (.*?) \|", DOCUMENT, re.MULTILINE)
    assert {"perf_counter", "cuda_event", "published", "nsys", "ncu"} == {*clocks.split(", ")}


def test_it_says_which_schema_is_written_now():
    assert f"now **{SCHEMA}**" in DOCUMENT
