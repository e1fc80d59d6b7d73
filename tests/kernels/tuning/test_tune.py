"""The whole search on a GPU of the tests' own making: a planted landscape, a planted clock, a real table."""

from collections import Counter
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kernels.configs import space
from kernels.configs.config import LinearConfig
from kernels.configs.dispatch import (
    MEASURED_BASIS,
    STATIC_BASIS,
    ConfigTable,
    LinearRow,
    format_table,
    load_linear_table,
    ranked_candidates,
)
from kernels.configs.space import skinny_candidates
from kernels.timing.device import SAMPLING_LIMITS, Device
from kernels.tuning import search as tuning_search
from kernels.tuning import tune
from kernels.tuning.search import DeviceLostError, read_trials
from kernels.tuning.shapes import LinearShape
from specs.errors import UserError
from specs.gpus import ARCHS
from specs.parallel import Shard

GPU, HOPPER = "NVIDIA Planted", ARCHS["sm_90"]
OURS = MEASURED_BASIS + GPU
SHARDS = [Shard("llama-3-70b", 8, 1, "qkv", 1280, 8192), Shard("llama-3-70b", 8, 1, "o", 8192, 1024)]
TILES = (1, 16)
TRY_SECONDS = 2.0


class Machine:
    """A GPU whose every configuration has its time, and a clock that goes on by two seconds a try."""

    def __init__(self):
        self.now, self.tried, self.wrong, self.deadly, self.into = 100.0, [], set(), None, None

    def seconds(self, config, tokens, n, k):
        if config in self.wrong:
            return inf
        return 1e-6 * (1 + abs(config.split - 4) + abs(config.stages - 4) + (config.rows != 64) + config.tma)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    machine = Machine()
    machine.into = tmp_path / "tables"

    class Bench:
        problem = ""
        is_permanent = True

        def __init__(self, device, dtype, largest_bytes):
            assert largest_bytes == max(shard.n * shard.k for shard in SHARDS) * 2

        def seconds(self, shape, config):
            (table,) = machine.into.glob("*.json")
            load_linear_table(table)  # whole at any time
            machine.now += TRY_SECONDS
            _, *sizes = shape
            machine.tried.append((config, *sizes))
            if config == machine.deadly:
                raise DeviceLostError(f"the GPU is lost to this process after {config}")
            seconds = machine.seconds(config, *sizes)
            self.problem = "wrong result" if seconds == inf else ""
            return seconds

    monkeypatch.setattr(tune, "current_device", lambda: Device("cuda", "sm_90", 2**20, SAMPLING_LIMITS["cuda"]))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *which: GPU)
    monkeypatch.setattr(tune, "time", SimpleNamespace(monotonic=lambda: machine.now))
    monkeypatch.setattr(tune, "TrialRunner", Bench)
    monkeypatch.setattr(tuning_search, "SEED_CONFIGS", 1)  # a row after a single try
    monkeypatch.setattr(tune, "TOKEN_CLASSES", TILES)
    monkeypatch.setattr(tune, "TUNED_FOLDER", tmp_path / "none committed")
    return machine


def search(machine, tries, say=lambda line: None):
    """Search for as long as so many tries take; the table then."""
    (path,) = tune.tune("bf16", SHARDS, tries * TRY_SECONDS, machine.into, say, [tune.LINEARS_PART])
    return load_linear_table(path)


def shape_of(row):
    return row.tokens, row.n, row.k


def test_each_shape_gets_the_best_of_what_was_tried_with_its_seconds(machine):
    table = search(machine, 40)
    assert {shape_of(row) for row in table.rows} == {(t, s.n, s.k) for t in TILES for s in SHARDS}
    for row in table.rows:
        mine = [config for config, *shape in machine.tried if tuple(shape) == shape_of(row)]
        assert row.seconds == machine.seconds(row.config, *shape_of(row))
        assert row.seconds == min(machine.seconds(config, *shape_of(row)) for config in mine)
        assert (row.dtype, row.basis) == ("bf16", OURS)
    assert table.made[OURS]["gpu"] == GPU
    assert table.made[OURS].keys() == {"gpu", "torch", "triton", "kernel", "date"}


def test_the_gemm_is_searched_for_among_its_own_configurations(machine, monkeypatch):
    monkeypatch.setattr(tune, "TOKEN_CLASSES", (16, 256))
    first = search(machine, 12)
    table = search(machine, 60)
    assert len(machine.tried) == len(set(machine.tried)) == 72
    for shard in SHARDS:
        shape = {"tokens": 256, "n": shard.n, "k": shard.k}
        mine = [config for config, *sizes in machine.tried if sizes == [*shape.values()]]
        assert set(mine) <= set(space.gemm_candidates(HOPPER, "bf16", **shape))
        (row,) = [row for row in table.rows if shape_of(row) == (*shape.values(),)]
        assert row.seconds == min(machine.seconds(config, **shape) for config in mine)
        assert table.nearest("bf16", 129, shard.n, shard.k) == row
        assert row.seconds <= next(one.seconds for one in first.rows if shape_of(one) == shape_of(row))


def test_the_budget_ends_the_search_between_two_tries(machine):
    for tries in (1, 5, 8):
        before = len(machine.tried)
        search(machine, tries)
        assert len(machine.tried) - before == tries
    search(machine, 0)
    assert len(machine.tried) == 14


def test_a_search_that_goes_on_repeats_nothing_and_improves(machine):
    said = []
    first = search(machine, 12, said.append)
    second = search(machine, 60, said.append)
    assert len(machine.tried) == len(set(machine.tried)) == 72
    assert any("12 tries known" in line for line in said)
    before, after = ({shape_of(row): row.seconds for row in table.rows} for table in (first, second))
    assert all(after[shape] <= before[shape] for shape in before)
    assert sum(after.values()) < sum(before.values())


def test_wrong_configurations_are_tried_once_and_never_chosen(machine):
    found = list(skinny_candidates(HOPPER, "bf16", tokens=16, n=8192, k=8192))
    machine.wrong = {config for config in found if config.split == 4}  # the best of the landscape are among them
    table = search(machine, 100)
    assert any(config in machine.wrong for config, *_ in machine.tried)
    assert len(machine.tried) == len(set(machine.tried))
    assert all(row.config not in machine.wrong for row in table.rows)


def test_a_shape_for_which_all_fail_keeps_the_row_it_had(machine):
    machine.wrong = {
        config for tile in TILES for config in skinny_candidates(HOPPER, "bf16", tokens=tile, n=8192, k=8192)
    }
    machine.wrong |= set(skinny_candidates(HOPPER, "bf16", tokens=16, n=8192, k=1024))
    machine.wrong |= set(skinny_candidates(HOPPER, "bf16", tokens=1, n=8192, k=1024))
    row = LinearRow("bf16", 16, 1280, 8192, LinearConfig(64, 16, 64, 4, 4, 4), 9e-6, STATIC_BASIS)
    machine.wrong.add(row.config)
    machine.into.mkdir()
    (machine.into / "sm_90.json").write_text(format_table(ConfigTable("sm_90", rows=(row,))))
    assert search(machine, 20).rows == (row,)


def test_what_the_table_has_is_tried_first_and_stays_where_nothing_is_faster(machine):
    best = LinearConfig(64, 16, 64, 4, 4, 4)  # a cost of 1 us, the least there is
    machine.into.mkdir()
    rows = tuple(LinearRow("bf16", 16, s.n, s.k, best, 9e-6, STATIC_BASIS) for s in SHARDS)
    (machine.into / "sm_90.json").write_text(format_table(ConfigTable("sm_90", rows=rows)))
    table = search(machine, 4)
    assert Counter(config for config, *_ in machine.tried)[best] == 2
    assert [row.config for row in table.rows if row.tokens == 16] == [best, best]
    assert {row.seconds for row in table.rows if row.tokens == 16} == {1e-6}


def test_the_committed_table_is_where_a_search_into_another_folder_begins(machine, monkeypatch, tmp_path):
    committed = tmp_path / "committed"
    committed.mkdir()
    other = LinearRow("fp16", 1, 5, 5, LinearConfig(4, 1, 1024, 1, 4, 1, matrix=False), 1e-6, STATIC_BASIS)
    (committed / "sm_90.json").write_text(
        format_table(ConfigTable("sm_90", {STATIC_BASIS: {"gpu": "h200_sxm"}}, (other,)))
    )
    monkeypatch.setattr(tune, "TUNED_FOLDER", committed)
    table = search(machine, 4)
    assert other in table.rows
    assert table.made.keys() == {STATIC_BASIS, OURS}
    assert load_linear_table(committed / "sm_90.json").rows == (other,)


def test_the_table_is_on_the_disk_after_each_round(machine):
    lines = []

    def say(line):
        if line.startswith("round"):
            lines.append(len(load_linear_table(machine.into / "sm_90.json").rows))

    search(machine, 9, say)  # two rounds of four shapes, and one try
    assert lines == [4, 4]


def test_the_first_round_is_called_the_first(machine):
    said = []
    search(machine, 4, said.append)
    assert [line for line in said if line.startswith("round")] == ["round 1: 4 tries"]


def test_a_search_that_is_cut_off_loses_no_try(machine, monkeypatch):
    tried = []

    def interrupts(self, config, *sizes):
        tried.append(config)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return 1e-6

    monkeypatch.setattr(Machine, "seconds", interrupts)
    with pytest.raises(KeyboardInterrupt):
        search(machine, 10)
    monkeypatch.undo()
    made = tune.software_versions(tune.LINEARS_PART) | {"gpu": GPU}
    assert len(list(read_trials(machine.into / "sm_90.trials.jsonl", made, LinearShape, LinearConfig))) == 2
    load_linear_table(machine.into / "sm_90.json")


def test_what_took_the_gpu_down_is_not_tried_again(machine):
    machine.deadly = ranked_candidates(HOPPER, "bf16", tokens=1, n=1280, k=8192)[0][0]
    with pytest.raises(UserError, match=r"lost.*run it again"):
        search(machine, 10)
    search(machine, 10)


def test_rows_of_another_gpu_of_the_arch_keep_its_name(machine, monkeypatch):
    search(machine, 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *which: "NVIDIA Other")
    search(machine, 1)  # one of four shapes has its turn
    assert GPU in (machine.into / "sm_90.json").read_text()


@pytest.mark.parametrize("capability", [(8, 7), (12, 1), (7, 5)])
def test_a_gpu_fills_no_table_but_its_own(machine, monkeypatch, capability):
    own = "sm_{}{}".format(*capability)
    monkeypatch.setattr(tune, "current_device", lambda: Device("cuda", own, 2**20, SAMPLING_LIMITS["cuda"]))
    with pytest.raises(UserError, match=own):
        search(machine, 1)


def test_without_a_gpu_it_says_so_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "current_device", lambda: Device("cpu", "cpu", 2**20, SAMPLING_LIMITS["cpu"]))
    with pytest.raises(UserError, match=r"^no CUDA GPU.*--static --arch sm_90.*$"):
        tune.tune("bf16", SHARDS, 1.0, tmp_path, print)


def test_a_folder_that_cannot_be_written_is_told_in_a_line(machine, tmp_path):
    (tmp_path / "file").touch()
    machine.into = tmp_path / "file"
    with pytest.raises(UserError, match=r"--into \S*/file: .*choose a folder"):
        search(machine, 1)
    machine.into = tmp_path / "file" / "below"
    with pytest.raises(UserError, match=r"--into \S*/file/below: Not a directory; choose a folder"):
        search(machine, 1)


def test_a_full_disk_is_told_and_leaves_the_old_table(machine, monkeypatch):
    before = search(machine, 4)

    def full(path, text):
        path.write_bytes(text[:10].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"sm_90.json: No space left on device; .*--into"):
        tuning_search.write_table(machine.into / "sm_90.json", ConfigTable("sm_90"))
    assert load_linear_table(machine.into / "sm_90.json") == before


def test_a_damaged_table_can_be_cured_as_its_message_says(machine):
    machine.into.mkdir()
    path = machine.into / "sm_90.json"
    path.write_text(format_table(ConfigTable("sm_90")).replace('"schema": 2', '"schema": 0'))
    with pytest.raises(UserError, match="delete it and run"):
        search(machine, 1)
    path.unlink()
    search(machine, 1)


def test_a_search_that_has_hardly_begun_fills_no_row(machine, monkeypatch):
    monkeypatch.setattr(tuning_search, "SEED_CONFIGS", 4)
    assert search(machine, 12).rows == ()  # three tries for each of four shapes
    assert len(search(machine, 4).rows) == 4


def test_what_passes_is_not_kept_for_good(machine, monkeypatch):
    monkeypatch.setattr(tune.TrialRunner, "is_permanent", False)
    search(machine, 4)
    assert not (machine.into / "sm_90.trials.jsonl").exists()
