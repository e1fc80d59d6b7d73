"""What launchers tell a process by its environment."""

import pytest

from specs.errors import UserError
from suites.workers.launcher import DEFAULT_PORT, LaunchedRank, find_launched_rank, first_host

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "gpu003",
    "MASTER_PORT": "29400",
}
SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "11",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[003-010,12],login",
    "SLURM_JOB_ID": "45678",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
MPICH = {"PMI_RANK": "6", "PMI_SIZE": "8", "MPI_LOCALRANKID": "2", "MPI_LOCALNRANKS": "4", "MASTER_ADDR": "node1"}


def without(environment, *names):
    return {name: value for name, value in environment.items() if name not in names}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        (TORCHRUN, LaunchedRank(3, 8, 1, 2, "torchrun", "gpu003", 29_400)),
        (SRUN, LaunchedRank(5, 11, 1, 4, "srun", "gpu003", 25_678)),  # 20,000 + 45,678 mod 20,000
        (OPEN_MPI, LaunchedRank(1, 2, 1, 2, "mpirun", "127.0.0.1", DEFAULT_PORT)),
        (MPICH, LaunchedRank(6, 8, 2, 4, "mpirun", "node1", DEFAULT_PORT)),
    ],
    ids=["torchrun", "srun", "Open MPI", "MPICH"],
)
def test_each_launcher_is_understood(environment, place):
    assert find_launched_rank(environment) == place


def test_torchrun_started_by_srun_is_torchrun():
    assert find_launched_rank(SRUN | TORCHRUN).launcher == "torchrun"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[003-010,12],login", "gpu003"),
        ("gpu[12,003-010]", "gpu12"),
        ("login,gpu[003-010]", "login"),
        ("node7", "node7"),
        ("rack[1-2]-gpu[04-08]-ib,login", "rack1-gpu04-ib"),
    ],
)
def test_the_first_host_of_a_slurm_list_is_found(nodes, first):
    assert first_host(nodes) == first


def test_a_list_without_hosts_is_refused():
    with pytest.raises(UserError, match=r"'\[003', which names no host"):
        first_host("[003")


def test_hosts_that_slurm_counts_unevenly_are_several():
    """One task on the first host and three on the second: rank 0 is not alone, so the loopback would not do."""
    uneven = SRUN | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "1,3"}
    assert find_launched_rank(uneven).address == "gpu003"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        without(SRUN, "SLURM_STEP_ID"),
        SRUN | {"SLURM_STEP_ID": "4294967291"},
        SRUN | {"SLURM_STEP_ID": "interactive"},
    ],
    ids=["nothing", "torchrun of one", "srun of one", "salloc's shell", "batch script", "interactive step"],
)
def test_who_was_not_started_as_one_of_several_is_alone(environment):
    assert find_launched_rank(environment) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
            "mpirun does not say where rank 0 is; set MASTER_ADDR to its host, on every rank",
        ),
        (
            without(MPICH, "MASTER_ADDR"),
            "mpirun does not say where rank 0 is; set MASTER_ADDR to its host, on every rank",
        ),
        (without(SRUN, "SLURM_STEP_NODELIST"), "srun does not say where rank 0 is; *"),
        (TORCHRUN | {"RANK": "8"}, "RANK is 8 where WORLD_SIZE is 8; ranks go from 0 to 7"),
        (TORCHRUN | {"RANK": "three"}, "RANK is 'three', not a whole number; *"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "-2"}, "LOCAL_WORLD_SIZE is '-2', not a whole number; *"),
        (TORCHRUN | {"MASTER_PORT": "http"}, "MASTER_PORT is 'http', not a whole number; *"),
        (TORCHRUN | {"MASTER_PORT": "65536"}, "MASTER_PORT is 65536; ports go from 1 to 65535"),
        (TORCHRUN | {"MASTER_PORT": "0"}, "MASTER_PORT is 0; ports go from 1 to 65535"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(environment, message):
    with pytest.raises(UserError) as found:
        find_launched_rank(environment)
    said = str(found.value)
    assert said.startswith(message.rstrip("*"))
    assert "\n" not in said
