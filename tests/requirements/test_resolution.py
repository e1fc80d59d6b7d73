"""The requirements resolve as a stranger's pip resolves them: from the package index alone, nothing of this machine.

`make resolve` runs this file. pip only reads the metadata of wheels here: `--dry-run` installs nothing and
`--use-feature=fast-deps` fetches the end of a wheel, where an index does not give its metadata apart.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONSTRAINTS = ROOT / "constraints.txt"

PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = {
    # A set that resolves proves each of its subsets.
    "all": ("dev", "silicon", "cu13", "clock", "cublaslt"),
    # Its torch is a build for CUDA 12, which the package index does not have: it is left out.
    "cu12": ("silicon", "cu12", "clock", "cublaslt"),
}
OF_ANOTHER_INDEX = {"cu12": ("torch", "triton")}

KEPT_VARIABLES = ("PIP_INDEX_URL", "PIP_CERT", "PIP_PROXY", "PIP_DEFAULT_TIMEOUT", "PIP_CACHE_DIR")
"""How to reach the package index; whatever else is set for pip on this machine is not a stranger's."""

UNREACHABLE = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ProxyError")
AT_ONCE = 4


class Case(NamedTuple):
    """One resolution: a Python, a machine, and a name in EXTRAS."""

    python: str
    machine: str
    extras: str

    def __str__(self) -> str:
        return "-".join(self)


CASES = tuple(
    Case(python, machine, extras)
    for machine, extras in (("x86_64", "all"), ("x86_64", "cu12"), ("aarch64", "all"))
    for python in PYTHONS
)


class Outcome(NamedTuple):
    """pip's exit code, and all that it said."""

    code: int
    said: str


def requirements(extras: str, machine: str) -> list[str]:
    """What a set of extras asks for on Linux, without markers: pip evaluates those for the machine that it runs on."""
    listed = [*PROJECT["dependencies"]]
    for extra in EXTRAS[extras]:
        listed += PROJECT["optional-dependencies"][extra]
    here = {"platform_machine": machine, "platform_system": "Linux", "sys_platform": "linux", "python_version": "3.13"}
    wanted = [one for one in map(Requirement, listed) if one.marker is None or one.marker.evaluate(here)]
    return [f"{one.name}{one.specifier}" for one in wanted if one.name not in OF_ANOTHER_INDEX.get(extras, ())]


def resolve(interpreter: str, case: Case, constraints: Path) -> Outcome:
    """Have pip resolve a case with nothing but the package index."""
    command = [sys.executable, "-m", "pip", "--python", interpreter, "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--use-feature=fast-deps", "--disable-pip-version-check", "--constraint", str(constraints)]
    command += ["--report", os.devnull]
    if case.machine != "x86_64":
        # Where the platform is not its own, pip wants wheels alone and a target; of glibc each tag counts by itself.
        command += ["--only-binary=:all:", "--target", "unused"]
        tags = ["manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 35))]
        command += [word for tag in tags for word in ("--platform", f"{tag}_{case.machine}")]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PIP_") or name in KEPT_VARIABLES
    }
    environment["PIP_CONFIG_FILE"] = os.devnull
    done = subprocess.run(
        [*command, *requirements(case.extras, case.machine)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
    )
    return Outcome(done.returncode, done.stdout + done.stderr)


def interpreter_of(python: str) -> str | None:
    """An interpreter of this version: the one that runs, pyenv's, or one on the PATH; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    candidates = [sys.executable, *map(str, sorted(pyenv.glob(f"{python}.*/bin/python")))]
    candidates += filter(None, [shutil.which(f"python{python}")])
    for path in candidates:
        told = subprocess.run([path, "-V"], check=False, capture_output=True, text=True)  # a shim of pyenv may refuse
        if told.stdout.startswith(f"Python {python}."):
            return path
    return None


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[Case, Future[Outcome]]]:
    """All resolutions, some at once: pip waits for the index most of the time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = {python: interpreter_of(python) for python in PYTHONS}
        yield {case: pool.submit(resolve, path, case, CONSTRAINTS) for case in CASES if (path := found[case.python])}


def told(outcome: Outcome) -> Outcome:
    """An outcome of an index that answered; skips where none did."""
    if outcome.code and any(word in outcome.said for word in UNREACHABLE):
        pytest.skip("the package index does not answer")
    return outcome


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_requirements_resolve_from_the_package_index(outcomes, case):
    if case not in outcomes:
        pytest.skip(f"no Python {case.python} here, neither in pyenv nor on the PATH")
    outcome = told(outcomes[case].result())
    assert outcome.code == 0, outcome.said


def test_a_pin_beside_what_torchs_own_toolkit_asks_for_is_a_conflict(tmp_path):
    planted = tmp_path / "constraints.txt"
    planted.write_text(f"{CONSTRAINTS.read_text('utf-8')}nvidia-cuda-nvrtc==13.5.37\n", "utf-8")
    version = "{}.{}".format(*sys.version_info)
    outcome = told(resolve(sys.executable, Case(version, "x86_64", "all"), planted))
    assert outcome.code != 0
    assert "conflicting dependencies" in outcome.said


def test_every_extra_is_resolved_in_some_set():
    assert set(PROJECT["optional-dependencies"]) == {extra for extras in EXTRAS.values() for extra in extras}


def test_a_machine_without_wheels_of_published_times_goes_on_without_them():
    assert not any(name.startswith("aiconfigurator") for name in requirements("all", "riscv64"))
    assert any(name.startswith("aiconfigurator") for name in requirements("all", "aarch64"))
