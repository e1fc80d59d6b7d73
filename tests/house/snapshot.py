"""Record what every command prints and writes, and compare two recordings.

    python -m tests.house.snapshot OUT [--tree PATH]     a file for each command, and each file that a command wrote
    python -m tests.house.snapshot --compare OLD NEW     a line for each file that differs or is missing, then exit 1

Before files and functions move, OLD is recorded; afterwards NEW, which has to be the same to the byte. Commands run in
a copy of the tree, so that they may write into it. Nothing of the project is imported here: the tree may be of another
commit. No command here measures, for what is measured differs each time. A recording takes about twelve minutes of one
core. Both need the same machine, interpreter and packages.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product, zip_longest
from pathlib import Path

REPLACEMENTS = (  # besides these the copy's own path becomes {tree}: it has another name each time, of the same length
    (r"=+ (.+) in [\d.]+s(?: \([\d:]+\))? =+", r"= \1 in {seconds} ="),  # how long pytest took, in a line that it fills
    (r"(?m)^(\S+)-\d{4}-\d\d-\d\d$", r"\1-{today}"),  # `suites name` ends with the date
    (r"_\d{8}_\d{6}(?=['.])", "_{now}"),  # `pytest --help` has names of pytest-benchmark's files, with the time in them
    (r"[\d.]+ GiB free *", "{free} GiB free"),  # `suites doctor` tells the memory that is free at the moment
)
IMPORTED = (r'"datetime": "[^"]*"', '"datetime": "2026-01-31T12:34:56+00:00"')  # in an import's file: when it was made
DIGEST = (rb'"kernel": "[0-9a-f]{12}"', b'"kernel": "{digest}"')  # in a table by `kernels tune`: of files of kernels
CACHE = "build/cache/"  # its files are called after a hash of the code, and hold what imports write elsewhere too
DATA = {"linears": "3813dab", "layers": "756f983", "steps": "74a7782", "xeon": "d9c5406"}
MADE = ("gpu", "slower", "named", "empty", "broken", "h100", "a100", "nccl", "nsys", "ncu", "recovered", "small", "odd")
LINEAR = "suites/bench_linears.py::bench_decode[llama-3.2-1b-tp1-pp1-qkv-1tok-bf16-cold-eager-torch]"

# What follows on a command stands between bars; the files named above in braces. The first ones run one by one: what
# they make the others read, or it is there the second time.
FIRST = """
reports import aiconfigurator | --system h100_sxm -o {h100} | --system a100_sxm -o {a100}
  | --system h100_sxm --model llama-3-8b --tp 1,16 --dtype fp8 -o {small}
  | --system h100_sxm --model llama-3-8b --tp 1,16 --dtype fp8 -o {small}
reports import nccl-tests | build/nccl.txt -o {nccl}
reports import nsys | build/nsys.sqlite -o {nsys} --run {gpu}
reports import ncu | build/ncu.csv -o {ncu} --run {gpu} | build/ncu.csv -o {odd} --format json
reports recover | build/run.jsonl -o {recovered} | build/run.jsonl -o {layers}
reports index | --check | | --check
"""
COMMANDS = """
reports | | nothing | import
reports import aiconfigurator | | --system h9000 -o build/x.json | --system h100_sxm --tp 0 -o build/x.json
  | --system h100_sxm --dtype int3 -o build/x.json | --system h100_sxm --model nobody-1b -o build/x.json
reports import nccl-tests | build/nccl.txt --op all_gather -o build/x.json | {empty} -o build/x.json
reports import nsys | build/nsys.sqlite -o build/n.json --format json | build/nsys.sqlite -o build/x.json --run {xeon}
  | build/nsys.sqlite -o build/m.json --run {gpu} --format markdown | build/ncu.csv -o build/x.json
reports import ncu | build/ncu.csv -o build/x.json --run {gpu} --gpu h100_sxm | build/nccl.txt -o build/x.json
reports recover | build/none.jsonl -o build/x.json | build/nccl.txt -o build/x.json
reports show | | --format json | --format markdown | build/none.json | {empty} | {broken} | {xeon} --format yaml
  | {xeon} -o {xeon} | {xeon} -o build/none/x | {linears} {steps} -o build/two.txt | {h100} | {h100} --format json
  | {a100} --format markdown -o build/a100.md | {nccl} {nsys} {ncu} {recovered} {odd} | {small} {nccl} --format json
COLUMNS=80 reports show | {xeon} | {gpu}
reports check | | reports/data {gpu} {h100} {nccl} {nsys} {ncu} {recovered} | {named} {empty} {broken} build/none.json
  | build/none | kernels
reports ledger | {layers} {xeon} --format json -o build/ledgers.json | {h100} | {gpu} {xeon} | {nsys}
reports kernels | {linears} {layers} {gpu} | {gpu} --grid | {gpu} --grid --format markdown | {gpu} --model nobody-1b
  | {gpu} {linears} --grid --model llama-3.2-1b | {data} --grid --format markdown | {h100} {a100} --grid | {h100}
reports claims | | --all | --format json | {data} --all | {h100} | {a100} --format markdown | --gate kv-formula
  | {h100} {a100} {xeon} {steps} --all | {h100} {a100} {xeon} {steps} --format json -o build/claims.json
  | {xeon} --gate tokens-125-vs-1000=REFUTED,tokens-1-vs-125=HOLDS | {xeon} --gate tokens-125-vs-1000/moe=HOLDS
  | --gate nobody | --gate kv-formula=MAYBE | {empty}
reports compare | | {linears} | {linears} {layers} | {linears} {layers} --all | {linears} {layers} --format json
  | {linears} {layers} {xeon} --format markdown | {layers} {steps} {xeon} -o build/compared.txt | {steps} {steps}
  | {gpu} {slower} --gate 5% | {slower} {gpu} --gate 5% --threshold 3% | {gpu} {slower} --gate 50% --all | {data}
  | {xeon} {steps} --gate 5% | {a100} {h100} | {a100} {h100} --format markdown --all | {h100} {nccl} | {gpu} {nsys}
  | {h100} {a100} --threshold 20% | {gpu} {ncu} {nsys} --format json | {h100} {gpu} {xeon} | {layers} {empty}
  | {gpu} {slower} --threshold much | {gpu} {slower} --gate -2%
reports plan | | {h100} | {h100} --format json | {h100} --format markdown -o build/plan.md | {h100} {a100}
  | {a100} --batch 1,64,256 --context 256 | {h100} --gpus 4 --backend nccl --launch eager --batch 1,8,64
  | {h100} --backend custom --partition balanced --draft-tokens 3 --prefill-chunk 512 --batch 8,256
  | {h100} --layers 20 --latency 0.01,0.05 --context 8192 | {h100} --nodes 2 --gpus-per-node 4 --format json
  | {h100} --batch 1,64 --link-bandwidth 32e9 --link-latency 10e-6 --link-share 0.5
  | {xeon} --model llama-3.2-1b --gpus 2 --context 512 | {xeon} --model llama-3.2-1b --gpus 2 | {h100} {nccl}
  | {gpu} --model llama-3.2-1b --gpus 2 --context 512 --batch 1,16 | {h100} --dtype fp8
  | {h100} --gpus 16 --nodes 2 --gpus-per-node 8 | {h100} --model qwen3-235b-a22b | {h100} --model nobody-1b
  | {h100} --gpus 7 | {h100} --batch 1,x | {h100} --backend rings | {h100} --partition odd
  | {h100} --context -1 | {h100} --link-share 2 | {h100} --latency x
reports html | {data} -o build/data.html | {data} {h100} {a100} -o build/all.html | {h100} -o build/h100.html
  | {gpu} {nccl} {a100} -o build/gpu.html | {data} {h100} | {data} {a100} --format json -o build/html.json
  | {linears} | {layers} --format markdown | {steps} | {xeon} --format markdown | {gpu} --format table
  | {gpu} {steps} --format json | {empty} -o build/x.html | {xeon} -o {xeon}
suites | | name | name --device cpu | name --device tpu | doctor | doctor --format json | doctor --format xml
suites.gate | | --list --profile smoke | --list --profile safety | --profile nothing | --only nothing
suites gate | --list --only facts,suite
kernels | | nothing
kernels inspect | --arch sm_90 | --arch sm_90 --kernel swiglu --format json | --arch sm_100 --kernel rmsnorm
  | --arch sm_80 --kernel skinny --format json | --arch sm_120 --kernel attention --dtype fp16 | --arch sm_70
  | --arch sm_90 --dtype int4 | --arch sm_90 --kernel nothing | --arch sm_90 --format xml
  | --arch sm_90 --model nobody-1b
kernels tune | | --static | --static --arch sm_90 --only attention | --arch sm_90 | --tp one | --budget -1
  | --static --arch sm_90 --model tiny --tp 1 --into build/tuned
pytest suites/ --list | | --device cpu --ranks 4 --model tiny --layers 8 | --model llama-3-70b --tp 1,8 --pp 1,2
  | --model llama-3-70b --tokens 1,125,1000 --impl torch,triton,gloo --dtype bf16,fp16 | --layer qkv,attention
  | --impl triton-pdl,cublaslt,cuda,flashinfer,triton-one-shot --tokens 1 --context 128
  | --pp 2 --schedule async --micro-batches 2,4 --batch 16 --partition even,balanced --layers 4
  | --message 16KiB --gap 0,1 --prompts 4x512 --replicas 1,2 --cache hot --launch graph,eager
  | --impl rings | --model nobody-1b | --tp 0 | --tokens 1,,2 | --message 3Fives | --device tpu
pytest suites/bench_linears.py --list | --impl cuda --tokens 1000
"""
HELPED = """reports, reports show, reports check, reports index, reports compare, reports kernels, reports ledger,
reports plan, reports html, reports claims, reports recover, reports import, reports import aiconfigurator,
reports import nccl-tests, reports import nsys, reports import ncu, suites, suites name, suites doctor, suites overhead,
suites gate, suites.gate, kernels, kernels inspect, kernels tune, pytest"""
EACH = ("show", "ledger", "kernels", "claims"), (*DATA, "gpu"), ("table", "json", "markdown")
NCCL = """\
# nccl-tests version 2.17.6 nccl-headers=22807 nccl-library=22807
# Collective test starting: all_reduce_perf
# nThread 1 nGpus 2 minBytes 16384 maxBytes 1048576 step: 64(factor) warmup iters: 5 iters: 20 agg iters: 1 graph: 0
# Using devices
#  Rank  0 Group  0 Pid   4711 on    node-17 device  0 [0000:1b:00] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   4711 on    node-17 device  1 [0000:43:00] NVIDIA H100 80GB HBM3
#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)
       16384          4096     float     sum      -1    18.30    0.90    0.90       0    17.90    0.92    0.92       0
     1048576        262144     float     sum      -1    35.20   29.79   29.79       0    34.80   30.13   30.13       0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 15.4
"""
RANGE = '""shardbench:{0}:int64:3:none:none:registered:{0}""'
RANGES = " ".join(RANGE.format(name) for name in (LINEAR, "warm-up", "call"))
NCU = f"""\
"ID","Process ID","Process Name","Host Name",\
"thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg","Kernel Name",\
"Device","CC","dram__bytes_read.sum","gpu__time_duration.sum"
"","","","","","","","","Mbyte","us"
"0","7","python3","node-17","13416  {RANGES} ","gemm","0","9.0","12.6","5.2"
"1","7","python3","node-17","","outside","0","9.0","1.0","1.0"
"""
NSYS = f"""
CREATE TABLE StringIds (id, value);
INSERT INTO StringIds VALUES (1, 'shardbench'), (2, 'decode'), (3, '{LINEAR}'), (4, 'warm-up'), (5, 'call'),
  (6, 'timed'), (7, 'calls'), (8, 'seconds a call'), (9, 'gemm'), (10, 'sum');
CREATE TABLE META_DATA_EXPORT (name, value);
INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_PRODUCT_VERSION', '2024.6.2.225');
CREATE TABLE TARGET_INFO_SYSTEM_ENV (name, value);
CREATE TABLE TARGET_INFO_GPU (id, name, totalMemory, smCount, l2CacheSize, computeMajor, computeMinor, cuDevice);
INSERT INTO TARGET_INFO_GPU VALUES (0, 'NVIDIA H200', 150000000000, 132, 62914560, 9, 0, 0);
CREATE TABLE NVTX_EVENTS (eventType, start, end, textId, category, int64Value, doubleValue, globalTid, domainId);
INSERT INTO NVTX_EVENTS VALUES (75, 0, NULL, 1, NULL, NULL, NULL, 1, 1), (33, 0, NULL, 2, 1, NULL, NULL, 1, 1),
  (59, 0, 9000, 3, 1, 0, NULL, 1, 1), (59, 90, 990, 4, 1, 0, NULL, 1, 1), (59, 100, 900, 5, 1, 0, NULL, 1, 1),
  (59, 2000, 8000, 6, 1, 0, NULL, 1, 1), (34, 8500, NULL, 7, 1, 2, NULL, 1, 1),
  (34, 8500, NULL, 8, 1, NULL, 6e-7, 1, 1);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId);
INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (110, 120, 1, 1), (2100, 2110, 1, 2), (2200, 2210, 1, 3),
  (3000, 3010, 1, 4);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, globalPid, shortName);
INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (150, 500, 0, 7, 1, 1, 9), (2150, 2500, 0, 7, 2, 1, 9),
  (2500, 2600, 0, 7, 3, 1, 10), (3050, 3450, 0, 7, 4, 1, 9);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, help="a new folder")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[2], help="of the project; else this one")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    given = parser.parse_args()
    if given.compare:
        found = compare(*given.compare)
        sys.stdout.write("".join(f"{line}\n" for line in found))
        sys.exit(bool(found))
    if given.out is None or given.out.exists():
        parser.error("give a folder that is not there yet, or --compare OLD NEW")
    with tempfile.TemporaryDirectory(prefix="snapshot-") as scratch:
        tree = Path(scratch).resolve() / "tree"
        shutil.copytree(given.tree, tree, ignore=shutil.ignore_patterns(".*", "build", "__pycache__"))
        record(tree, given.out)


def compare(old: Path, new: Path) -> list[str]:
    """A line for each file that is not the same in both."""
    kept = [{str(path.relative_to(one)): path for path in one.rglob("*") if path.is_file()} for one in (old, new)]
    if not all(kept):
        return [f"{one}: nothing is recorded there" for one, files in zip((old, new), kept, strict=True) if not files]
    found = []
    for name in sorted(kept[0].keys() | kept[1].keys()):
        if lacking := [one for one, files in zip((old, new), kept, strict=True) if name not in files]:
            found.append(f"{name}: not in {lacking[0]}")
        elif (pair := [files[name].read_bytes() for files in kept])[0] != pair[1]:
            lines = enumerate(zip_longest(*(text.splitlines(keepends=True) for text in pair)), start=1)
            found.append(f"{name}: differs from line {next(line for line, (a, b) in lines if a != b)} on")
    return found


def record(tree: Path, out: Path) -> None:
    """Run all commands in the tree; keep what they say, and the files that are new or changed after them."""
    data = {name: next((tree / "reports/data").glob(f"*-{commit}.json")) for name, commit in DATA.items()}
    prepare(tree, json.loads(data["linears"].read_text()), json.loads(data["layers"].read_text()))
    files = {name: str(path.relative_to(tree)) for name, path in data.items()}
    files |= {name: f"build/{name}.json" for name in MADE} | {"data": " ".join(files.values())}
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    out.mkdir(parents=True)

    def keep(command: str, before_it: str = "") -> None:
        name = re.sub(r"[^\w.,=]+", "-", command).strip("-")
        said = run(tree, shlex.split(command.format(**files)))
        with (out / f"{before_it}{name}.txt").open("xb") as kept:  # two commands of one name would hide one another
            kept.write(said.encode(errors="surrogateescape"))

    for number, command in enumerate(commands(FIRST)):
        keep(command, f"{number:02}-")
    each = [f"reports {verb} {{{file}}} --format {form}" for verb, file, form in product(*EACH)]
    helped = [f"{command.strip()} --help" for command in HELPED.split(",")]
    with ThreadPoolExecutor(2) as two:
        list(two.map(keep, [*commands(COMMANDS), *each, *helped]))
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_file() and not name.startswith(CACHE) and before.get(path) != path.read_bytes():
            (out / "written" / name).parent.mkdir(parents=True, exist_ok=True)
            (out / "written" / name).write_bytes(re.sub(*DIGEST, path.read_bytes()))


def commands(table: str) -> list[str]:
    """Its commands, each with its files still in braces."""
    rows = [row.split("|") for row in table.strip().replace("\n  |", " |").splitlines()]
    return [f"{row[0].strip()} {more.strip()}".strip() for row in rows for more in row[1:] or [""]]


def run(tree: Path, words: list[str]) -> str:
    """Return output and exit status of a command. The file of an import gets the same date each time."""
    settings = {"COLUMNS": "120", "LINES": "40", "NO_COLOR": "1", "TERM": "dumb", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    settings |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    settings |= {"PATH": os.environ["PATH"], "HOME": str(tree.parent / "home"), "CUDA_VISIBLE_DEVICES": ""}
    while "=" in words[0]:
        settings |= [words.pop(0).split("=")]
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=tree, env=settings, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if "import" in words and "-o" in words and (made := tree / words[words.index("-o") + 1]).exists():
        made.write_text(re.sub(*IMPORTED, made.read_text(encoding="utf-8")), encoding="utf-8")
    said = [stream.decode(errors="surrogateescape") for stream in (done.stdout, done.stderr)]
    text = "$ {}\nexit status {}\n--- stdout\n{}--- stderr\n{}".format(shlex.join(words), done.returncode, *said)
    text = text.replace(str(tree), "{tree}")
    for pattern, replacement in REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    return text


def prepare(tree: Path, linears: dict, layers: dict) -> None:
    """Files to read: as of a GPU, and of a slower one, damaged ones, a journal, and what other tools print."""
    forms = [("eager", "torch", 0.01), ("graph", "torch", 0.008), ("graph", "triton", 0.007)]
    forms += [("graph", "cublaslt", 0.009)]
    benchmarks = [
        scaled(entry, factor, launch, implementation)
        for entry, (launch, implementation, factor) in product(layers["benchmarks"], forms)
        if (launch, implementation) == ("eager", "torch")
        or ("eager-torch]" in entry["name"] and (implementation == "torch" or entry["extra_info"]["op"] == "linear"))
    ]
    facts = {"device": "cuda", "arch": "sm_90", "gpu": "NVIDIA H200", "sms": 132, "cuda": "13.0", "l2_bytes": 60 << 20}
    machine = layers["machine_info"] | facts | {"gpu_memory_bytes": 150_000_000_000}
    gpu = layers | {"machine_info": machine, "benchmarks": benchmarks}
    later = [scaled(one, 1 if one["group"] == "ceilings" else 1.3) for one in benchmarks]
    failed = [{"case": later.pop()["fullname"], "reason": "wrong result"}]
    slower = gpu | {"benchmarks": later[:-3], "shardbench": gpu["shardbench"] | {"failed": failed}}
    named = linears | {"machine_info": linears["machine_info"] | {"node": "somebodys-laptop"}}
    named["benchmarks"] = [one | {"stats": one["stats"] | {"median": 1.0}} for one in linears["benchmarks"][:2]]
    run = {name: linears[name] for name in ("machine_info", "commit_info", "datetime", "version")}
    run |= {"shardbench_schema": 1, "planned": ["suites/bench_linears.py::bench_decode[late]"]}
    journal = [{"run": run}, *({"benchmark": entry} for entry in linears["benchmarks"][:40])]
    journal += [*({"not_run": one} for one in linears["shardbench"]["not_run"][:9]), {"failed": failed[0]}]
    made = {"gpu.json": gpu, "slower.json": slower, "named.json": named, "empty.json": "", "broken.json": "[{"}
    made |= {"ncu.csv": NCU, "nccl.txt": NCCL, "run.jsonl": "".join(f"{json.dumps(line)}\n" for line in journal)}
    (tree / "build").mkdir()
    for name, content in made.items():
        (tree / "build" / name).write_text(content if isinstance(content, str) else json.dumps(content))
    with sqlite3.connect(tree / "build" / "nsys.sqlite") as database:
        database.executescript(NSYS)
    database.close()
    page = min((tree / "reports" / "data").glob("*-*.md"))
    page.rename(page.with_name("old.md"))  # so that `index` has a page to write and one to remove


def scaled(entry: dict, factor: float, launch: str = "", implementation: str = "torch") -> dict:
    """A case that takes so many times as long, with a tenth of the noise, and maybe in another form."""
    data = entry["stats"]["data"]
    middle = statistics.median(data)
    quiet = {"data": [factor * (middle + (sample - middle) / 10) for sample in data]}
    if launch:
        text = json.dumps(entry).replace("eager-torch]", f"{launch}-{implementation}]")
        entry = json.loads(text.replace('"torch_linear"', f'"{implementation}_linear"'))
    info = {name: fact for name, fact in entry["extra_info"].items() if name != "interval_seconds"}
    if launch == "graph":
        info |= {"launch": launch, "implementation": implementation, "clock": "cuda_event"}
    return entry | {"extra_info": info, "stats": quiet}


if __name__ == "__main__":
    main()
