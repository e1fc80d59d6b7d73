"""The one-shot all-reduce: rank processes at once over shared memory, and what it compiles to. No GPU is needed."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest

from comm import one_shot
from kernels.compile import TritonVariant, compile_variant
from tests.kernels.interpreter import needs_interpreter

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "tests/comm/shared_memory_ranks.py"
ROUNDS = 50
MOST_TRIES = 5
FAULTY_ROUNDS = 24
"""So few that epochs do not wrap: a fault shows in wrong sums, not in ranks that wait for ever."""
FAULTS = {
    "no-wait": ("while behind < 0:", "while behind < -1:"),
    "one-slot": ("(epoch & 1) * SLOT", "0 * SLOT"),
    "flags-not-by-epoch": ("flag - epoch, 0)", "flag - 1, 0)"),
    "own-message-only": ("tl.load(buffers + source).to(kind)", "tl.load(buffers + rank).to(kind)"),
    "order-by-rank": ("tl.load(buffers + source)", "tl.load(buffers + (source + rank) % RANKS)"),
}
"""Name to what is replaced in the kernel's source, and by what."""
ANOTHERS_FLAG = ("atomic_xchg(flags + rank, ", "atomic_xchg(flags + 0, ")


def play(folder, *jobs, seconds):
    """What came of each job, in memory of its own; whatever happens, no process outlives this call."""
    command = [sys.executable, str(PROGRAM), mkdtemp(dir=folder), json.dumps(jobs)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, complaint = child.communicate(timeout=seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    assert child.returncode == 0, complaint
    return json.loads(out)


def job(name, module=one_shot.__file__, **changes):
    return {"name": name, "module": str(module), "ranks": 2, "rounds": ROUNDS, "dtype": "fp32", "seconds": 40} | changes


@needs_interpreter
def test_ranks_at_once_get_the_exact_sum_in_every_round_while_epochs_wrap(tmp_path):
    jobs = [job("two-fp32"), job("three-bf16", ranks=3, dtype="bf16"), job("four-fp32", ranks=4)]
    found = play(tmp_path, *jobs, seconds=120)
    assert found == {
        "two-fp32": {"late": 0, "right": [ROUNDS] * 2, "wrong": 0},
        "three-bf16": {"late": 0, "right": [ROUNDS] * 3, "wrong": 0},
        "four-fp32": {"late": 0, "right": [ROUNDS] * 4, "wrong": 0},
    }


@needs_interpreter
def test_a_second_try_starts_afresh(tmp_path):
    again = [play(tmp_path, job("two-fp32", rounds=2), seconds=60) for _ in range(2)]
    assert again == [{"two-fp32": {"late": 0, "right": [2, 2], "wrong": 0}}] * 2


@needs_interpreter
def test_planted_faults_are_caught_by_the_same_rounds(tmp_path):
    modules = {name: planted(tmp_path, name, *fault) for name, fault in FAULTS.items()}
    stuck = job("anothers-flag", planted(tmp_path, "anothers-flag", *ANOTHERS_FLAG), rounds=2, seconds=1)
    missed, more = list(FAULTS), [stuck]
    for _ in range(MOST_TRIES):  # a race shows when one rank overtakes another, which a busy machine may prevent
        jobs = [job(name, modules[name], ranks=3, rounds=FAULTY_ROUNDS) for name in missed]
        found = play(tmp_path, *jobs, *more, seconds=120)
        if more:
            assert found["anothers-flag"]["late"] > 0  # a rank waits for a flag that nobody raises, and is ended
        missed, more = [name for name in missed if not found[name]["wrong"]], []
        if not missed:
            break
    assert missed == []


def planted(folder, name, stands, fault):
    source = Path(one_shot.__file__).read_text()
    assert source.count(stands) == 1, name
    path = folder / f"{name}.py"
    path.write_text(source.replace(stands, fault))
    return path


def variant(dtype, ranks, size):
    signature = {"message": f"*{dtype}", "out": f"*{dtype}", "buffers": "*i64", "epochs": "*i32"}
    constants = {
        "RANKS": ranks,
        "PADDED": 8,
        "SLOT": one_shot.MOST_BYTES // size,
        "FLAGS_AT": one_shot.FLAGS_OFFSET,
        "TILE": one_shot.TILE_BYTES // size,
    }
    return TritonVariant(
        one_shot._one_shot, signature | {"elements": "i32", "rank": "i32"}, constants, one_shot.WARPS, 3
    )


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize(("dtype", "ranks", "size"), [("bf16", 8, 2), ("fp32", 6, 4)])
def test_it_compiles_to_wide_loads_and_to_flags_with_system_scope(arch, dtype, ranks, size):
    made = compile_variant(variant(dtype, ranks, size), arch)
    assert made.spill_bytes == 0
    release, acquire = re.findall(r"atom\.\S+", made.ptx)
    assert {"sys", "release", "exch"} <= set(release.split("."))
    assert {"sys", "acquire", "add"} <= set(acquire.split("."))
    loads = re.findall(r"ld\.global\.cg\S*", made.ptx)
    assert loads == ["ld.global.cg.v4.b32"] * ranks  # 16 bytes from each rank, and past L1
    assert made.sass.count("LDG.E.128") == ranks + 1  # and the message


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_all_threads_have_written_before_the_flag_is_raised_and_none_reads_before_it_is_seen(arch):
    ptx = compile_variant(variant("bf16", 8, 2), arch).ptx
    marks = re.findall(r"st\.global\.v4|bar\.sync|atom\S*exch|atom\S*add|ld\.global\.cg", ptx)
    order = re.sub(r"(\S+)(?: \1)+", r"\1", " ".join(re.sub(r"atom\S*(exch|add)", r"\1", mark) for mark in marks))
    assert order.startswith("st.global.v4 bar.sync exch bar.sync add bar.sync ld.global.cg")


def test_a_buffer_holds_two_slots_and_a_flag_for_each_rank_and_tile():
    assert one_shot.buffer_bytes(8) == 2 * 1024 * 1024 + 4 * 128 * 8
    assert "torch.empty" not in inspect.getsource(one_shot.OneShotAllReduce.__call__)
