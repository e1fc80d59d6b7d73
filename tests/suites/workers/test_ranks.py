"""How many ranks a run has, which host they are on, and which counts are refused."""

import uuid
from itertools import count

import pytest

from specs.errors import UserError
from suites.workers.launcher import LAUNCHER_VARIABLES, RankPlan, plan_ranks
from suites.workers.worker import host_digest


@pytest.fixture(autouse=True)
def nobody_launched(monkeypatch):
    for names in LAUNCHER_VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


def test_a_cpu_has_two_ranks_unless_asked_otherwise():
    assert plan_ranks(None, "cpu") == RankPlan(2, "cpu")
    assert plan_ranks(64, "cpu") == RankPlan(64, "cpu")


@pytest.mark.parametrize("asked", [1, 65])
def test_a_count_that_cannot_talk_is_refused(asked):
    with pytest.raises(UserError, match=f"--ranks {asked}: between 2 and 64 ranks talk on a CPU"):
        plan_ranks(asked, "cpu")


def test_the_command_line_says_so_in_one_line(start):
    run = start("--ranks=65").wait()
    assert run.status == 4
    assert run.errors() == ["ERROR: --ranks 65: between 2 and 64 ranks talk on a CPU"]


def test_a_launcher_decides_the_count(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert plan_ranks(None, "cpu").count == 2
    assert plan_ranks(2, "cpu").is_leader is False
    with pytest.raises(UserError, match="--ranks 4: torchrun started 2; leave --ranks out"):
        plan_ranks(4, "cpu")


def test_processes_of_a_host_without_a_network_card_are_on_one_host(monkeypatch):
    """uuid makes up a number for each of them, and sets the bit that no card has."""
    made_up = count(1 << 40)
    monkeypatch.setattr(uuid, "getnode", lambda: next(made_up))
    assert host_digest() == host_digest()


def test_hosts_of_one_name_are_told_apart_by_their_cards(monkeypatch):
    cards = count(0x02_42_AC_11_00_02)
    monkeypatch.setattr(uuid, "getnode", lambda: next(cards))
    assert host_digest() != host_digest()
