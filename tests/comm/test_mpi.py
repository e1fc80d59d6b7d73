"""Ranks as the suites start them: mpirun starts a parent for each, and the parent's child speaks MPI."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from comm.backend import World
from comm.backends import mpi
from comm.collective import Role, fill_buffer, message_values, relative_error
from comm.collectives import COLLECTIVES
from specs.errors import UserError

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 60
PARENT = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
MESSAGES = ((2 * 1031, 1031), (2 * 98_000, 1000))  # a prime to a part, and more than comm.collective's table is long
OPS = [op for op, row in COLLECTIVES.items() if row.method in mpi.MPI.methods]


def world(rank=0, ranks=2, launcher="mpirun"):
    return World(rank, ranks, rank, ranks, "cpu", launcher)


def calls(communicator, op, dtype, elements, row, fault):
    """Relative errors of two calls with different values on the same buffers."""
    collective, here = COLLECTIVES[op], communicator.world
    in_place = collective.method in mpi.MPI.in_place
    role = Role(here.rank, here.ranks, elements, row, in_place)
    parts = collective.buffers(role)
    buffers = {name: communicator.buffer(part.elements, dtype) for name, part in parts.items()}
    for turn in (0, 1):
        value = message_values(here.ranks, turn)
        for name, part in parts.items():
            if not (fault == "stale" and turn == 1 and name == collective.result(role)):
                fill_buffer(buffers[name], value, part.value_id)
        communicator.barrier()
        if not (fault == "stale" and turn == 1):
            collective.run(communicator, buffers, role)
        if fault == "one element" and (name := collective.result(role)):
            buffers[name][-1] += 1
        yield relative_error(collective, buffers, value, role)


def rank_program(folder, fault, ranks_told):
    rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
    here = world(rank, int(ranks_told))
    try:
        communicator = mpi.connect_mpi(here)
    except UserError as error:
        told = str(error)
    else:
        told = {
            f"{op} {dtype} {elements}": list(calls(communicator, op, dtype, elements, row, fault))
            for op in OPS
            for dtype in (("fp32",) if "reduce" in op else ("fp32", "bf16", "fp16"))
            for elements, row in MESSAGES
        }
        communicator.close()
    Path(folder, f"{rank}.json").write_text(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)  # as the suites' ranks do


needs_mpi = pytest.mark.skipif(
    not (shutil.which("mpirun") and importlib.util.find_spec("mpi4py")),
    reason=f"mpirun or mpi4py is missing; {mpi.INSTALL_HINT}",
)


def run(tmp_path, fault="none", ranks_told=2):
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "-c", PARENT]
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    place |= {"OMP_NUM_THREADS": "1"}
    given = [*command, sys.executable, __file__, str(tmp_path), fault, str(ranks_told)]
    done = subprocess.run(given, env=place, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    return [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]


def right(errors, case):
    op, dtype, _ = case.split(" ")
    return all(error is None or error <= COLLECTIVES[op].rtol[dtype] for error in errors)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks found where nothing is wrong."""
    return run(tmp_path_factory.mktemp("ranks"))


@needs_mpi
def test_every_result_is_the_reference_on_both_ranks(ranks):
    assert {case.split(" ")[0] for case in ranks[0]} == set(OPS)
    assert len(OPS) == 9  # all but the copy into another's memory
    for told in ranks:
        assert not {case: errors for case, errors in told.items() if not right(errors, case)}


@needs_mpi
def test_ranks_that_are_given_nothing_are_not_compared(ranks):
    source, target = ranks
    assert source["send_recv fp32 2062"] == [None, None]
    assert target["send_recv fp32 2062"] == [0.0, 0.0]


@needs_mpi
@pytest.mark.parametrize("fault", ["one element", "stale"])
def test_a_wrong_result_is_found_in_every_collective(tmp_path, fault):
    for told in run(tmp_path, fault):
        passed = {case for case, errors in told.items() if right(errors[1:], case) and errors[1] is not None}
        # a root broadcasts what it has: nothing is left from the call before
        assert passed <= {case for case in told if fault == "stale" and case.startswith("broadcast")}, passed


@needs_mpi
def test_ranks_that_mpi_counts_otherwise_are_refused(tmp_path):
    for rank, told in enumerate(run(tmp_path, ranks_told=4)):
        assert told.startswith(f"MPI calls this rank {rank} of 2, its launcher rank {rank} of 4; start it with ")


def test_without_mpi4py_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(mpi, "find_spec", lambda name: {"mpi4py": None}[name])
    assert mpi.why_no_mpi(world()).startswith("mpi4py is not installed; pip install mpi4py")


@pytest.mark.parametrize(
    ("launcher", "starts"), [("own", False), ("torchrun", False), ("mpirun", True), ("srun", True)]
)
def test_it_starts_under_mpirun_and_srun(monkeypatch, launcher, starts):
    monkeypatch.setattr(mpi, "find_spec", lambda _: object())
    said = mpi.why_no_mpi(world(launcher=launcher))
    assert (said is None) == starts
    if said:
        assert said == (
            f"MPI ranks are started by mpirun or srun, and these by {launcher}; "
            "mpirun -n 2 python -m pytest suites/bench_collectives.py --impl mpi"
        )


def test_it_adds_up_fp32_alone_and_moves_bytes_of_any_format():
    assert mpi.MPI.dtypes == ("fp32",)
    assert mpi._byte_array(torch.zeros(3, dtype=torch.bfloat16)).nbytes == 6


if __name__ == "__main__":
    rank_program(*sys.argv[1:])
