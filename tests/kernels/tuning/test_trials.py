"""The journal of tries: what a search on the same GPU and versions may take from it."""

import json
from math import inf

import pytest

from kernels.configs.attention import SplitConfig
from kernels.configs.config import LinearConfig
from kernels.tuning.search import Trial, append_trial, read_trials
from kernels.tuning.shapes import AttentionShape, LinearShape
from specs.errors import UserError

MADE = {"gpu": "NVIDIA H200", "torch": "2.13.0", "triton": "3.7.1"}
CONFIG = LinearConfig(64, 16, 128, 3, 4, 4, tma=True)
RIGHT = Trial(MADE, LinearShape("bf16", 16, 8192, 1024), CONFIG, 5.7e-6)
WRONG = Trial(
    MADE, LinearShape("bf16", 1, 8192, 1024), CONFIG._replace(split=1), inf, "wrong result: relative error 0.5"
)
OTHER = RIGHT._replace(shape=RIGHT.shape._replace(n=4096))


def read(path, made=MADE, shape=LinearShape, config=LinearConfig):
    return list(read_trials(path, made, shape, config))


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "sm_90.trials.jsonl"
    for trial in (RIGHT, WRONG):
        append_trial(path, trial)
    return path


def test_tries_are_known_again_and_what_was_wrong_stays_wrong(journal):
    assert read(journal) == [RIGHT, WRONG]
    assert all(json.loads(line) for line in journal.read_text().splitlines())
    assert "Infinity" not in journal.read_text()


@pytest.mark.parametrize("other", [{"gpu": "NVIDIA H100 80GB HBM3"}, {"torch": "2.12.0"}, {"triton": "3.8.0"}])
def test_tries_of_another_gpu_or_version_are_not(journal, other):
    theirs = RIGHT._replace(made=MADE | other, seconds=1e-6)
    append_trial(journal, theirs)
    assert read(journal) == [RIGHT, WRONG]
    assert read(journal, MADE | other) == [theirs]


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_last_line_that_was_cut_short_is_passed_over(journal, cut):
    journal.write_text(journal.read_text()[:-cut])
    found = read(journal)
    assert found == ([RIGHT, WRONG] if cut == 1 else [RIGHT])


def test_what_follows_a_line_that_was_cut_short_is_kept(journal):
    journal.write_text(journal.read_text()[:-20])
    append_trial(journal, OTHER)
    assert read(journal) == [RIGHT, OTHER]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "7",
        '{"benchmarks": []}',
        '{"made": {}, "seconds": 1e-6, "config": []}',
        '{"made": {}, "seconds": "soon", "config": {}}',
    ],
)
def test_foreign_lines_are_passed_over(journal, line):
    journal.write_text(line + "\n" + journal.read_text())
    assert read(journal) == [RIGHT, WRONG]


def test_a_configuration_of_another_version_is_passed_over(journal):
    journal.write_text(journal.read_text().replace('"tma"', '"cluster"', 1))
    assert read(journal) == [WRONG]


def test_no_journal_is_no_tries(tmp_path):
    assert read(tmp_path / "none.jsonl") == []


def test_a_journal_that_cannot_be_written_or_read_is_told_in_a_line(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        append_trial(tmp_path, RIGHT)
    with pytest.raises(UserError, match="Is a directory"):
        read(tmp_path)


def test_tries_of_attention_are_known_again_and_are_no_linears(journal):
    attention = Trial(MADE, AttentionShape("bf16", 1, 8192, 8, 1, 128, 64), SplitConfig(64, 4, 3, 8), 2e-5)
    append_trial(journal, attention)
    assert read(journal, shape=AttentionShape, config=SplitConfig) == [attention]
    assert read(journal) == [RIGHT, WRONG]
