"""Removal of names of people and machines from result files, which are shared.

The home folder becomes `~`, the user's name `<user>`, the host's `<host>`, an address with its port `<address>`. A name
of four letters or more is replaced in any case, wherever no letter or digit adjoins it. Shorter names would match
units, and names that are words (`COMMON_WORDS`) would match sentences. Both are replaced only in a path or a branch, as
a part or within a part (`job-ann-12`), after `~`, before `@`, or in place of a host. Impersonal names (root, ubuntu)
and names that suites and libraries use (cuda, torch, main) stay. A variable that names a person or a host, USER or
SLURM_NODELIST, loses its whole value. `EXEMPT_KEYS` are keys whose values come from our tables or from the hardware:
kernels, models and GPUs keep their names.
"""

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from specs.measurement import Case

# Words of the sentences in a result file: reasons, warnings of libraries, descriptions of a machine.
#
# A user may have such a name. It is then replaced only in paths and hosts, since it would match many sentences.

_COMMON_WORDS_TEXT = """
a100 aarch64 abba able about above absent accept accepted access accumulators acquire activated activation
activations active added addopts addr addresses adds affinity after again against agent agree agrees ahead
aiconfigurator algo algorithm algorithms aligned alike allgather allocate allocation allocators allow allreduce
alone already also although always among ampere anew angles another answer answering anybody anything apart
application april arch architecture args argument argv arithmetic around arrival arrivals arrive arrived arxiv aside
asked asking asks async atonce attempt attended attention attn attribute august available average avoid away b200
b300 back backend balanced bandwidth bare barrier barriers base basis batch batches beat became because become been
before began begin begins behind being belong belongs below beside besides best better between beyond bf16 bfloat
biases binary bindings bits bkgd blackwell blob block blocks bold both bounds brake brand break brief bring
broadcast broken bubble buffer buffers built bulk busiest busy byte bytes cache cached cacheprovider caches caching
call calls callspec came cancelled candidate candidates cannot capture captured care carries case cases cause caused
ceilings celsius center certain cgroup chain change channel check checked checking checks choose chooses chosen
chunk claim clang class clean clear clock clocks clone close closed closest code collect collective collectives
collnet collnetchain collnetdirect colons color columns come comes command commands commas commit common
communication compare compared comparison compilation compile compiled compiler compiling complete completed compute
computes concurrent condition config configuration configurations confirm conftest connect connected connection
considered constexpr constraints contact contains content context contiguous continue continued control convert
copies copy core cores correct correctness corrupt cost costs could count counter counters counting counts cpuinfo
cpus cpython crash created critical cross csrc ctas cu12 cu13 cubed cubin cublas cublascomputetype cublaslt
cublasoperation cudadatatype cupy current damaged datasheet date datetime days dead deadline deadlock deals dealt
death debug december decide decides decoder decodes deep deepseek default degrees delay delays delete deleted denied
dense dependent deployment deprecated depth described descriptor desired desk destroyed detail details detected
device devices died differ differences digit dimensions direct directory disabled disk display dist distance divide
divides divisibility division docs documentation documents does doing domain done double doublings doubts down dozen
dram draw draws driver drop drops dtype dtypes dumps duration durations during dynamic each earlier early edge edit
edited edition effect eight either element elements eleven else elsewhere embed embedding empty enable enabled
encoding encountered ended ending ends engine engineering enough ensure entering entry environment epilogue equal
errno errors estimate even event events every evict exact exactly example exceeded exceeding exceeds except
exception exchange exercise exhausted exist exists exit expect expected experts expired explicit exponential export
extension extern external extra factor factors facts fail failed fails failure fast fastest fatal fault faults
feature february fewer ffma field figures file files fill filled fills final finally find finding finds fine finish
finished finite first fits fixed fixturenames flags flash flashattention flashinfer flight float floor fold folder
follow foreign fork format formats forward found four fp16 fp32 fp64 fp8e4nv fragments framework free fresh friday
from frozen full fullname function functional functions funneled further furthest fused fusion future gain games
gaps gate gather gave gb200 gbyte geforce gemm gemv general generated generation gets getting gflop gfx942 gh200
give given gives global goes gomp gone good gpus grace granite grants graphs great green grid group grouped h100
h200 half halves hand hang hangs hard hardware hash have having head header heads height hello here heuristics hgmma
hidden high higher highest hint hits hmma hold holds hopper hostname hosts hour however huggingface human hundred
ideal idle ieee ifname ignore illegal image images immediately impl implementation implementations import imported
importerror importlib imports impossible inactive included incompatible incomplete incorrect index inference info
initialize inner input inputs insert inside inspected install installed instance instead instinct instruction
instructions instrument insufficient int4 int8 integer integers interactive interface intermediate internal
interpreter interrupt interval into invalid invoke iowait isolated isolation issue item items iterable itself
january jobs join joining joins joint journal json jsonl judged july june just kbyte keep keeper keeps kept kernel
keys keyword kill killed kind kinds know known l40s label labelled labels lack lane lanes language laptop large
larger largest last late latency later launch launcher launches layer layers lazy lead leaders leaf least leave
leaves ledger ledgers left legal length less lets level levels libopenmpi libraries library librarynotloaded lies
light likewise limit line linear linears lines link linked links list listed listen listens lists little lives llama
load loading loads local localid localnranks localrankid lock locked logic logit logname long longer look looked
loop loses lost lovelace lower machine made magic make makes manager manual many march mark marks masked match
matched matmul matrix matters maximum maybe mbyte mean means meant measure measurement measuring median medium
member memcheck memory memoryerror message messages meta method metric metrics mi300x micro microsecond middle
milliseconds minimum minor minutes mirror mismatch miss missing mistral mixed mixtral mode model models module
moment monday more most mostly move moved moves mpich msecond much multi multicast multimem multiple multiplies
multiply multiplying must name named names nanoseconds narrow near nearly necessary need needed needs negative
neighbours neither never next nine nnodes node nodelist nodename nodes noise noisy norm normal normals normed norms
note noted notes nothing noticed notset november nproc nsecond nsight nsys ntasks numa number numbers numpy nvbench
nvcc nvgpuctrperm nvidia nvlinks nvls nvmath nvml nvswitch nvtx object occurred october offset often okay older ompi
once onednn ones only open opened openmpi operand operands operation operator operators optional options order
original other others otherwise ours outcome outer outofmemoryerror output outputs outside over overflows overhead
overlap overlapping override overview owner packages packed page paged pages pair pairs parallel parallelism param
parameters params parent parse part partial partials partition parts pass passed past path paused peak peer peers
pending percent perf performance permission persistent physical piece pieces ping pinned pipe pipeline place plain
plan planned plans planted platform please point pointer poisoned pong pool popen port ports positive possible
posting power powers predicted prediction prefetch present prevent previous price primary prime primes print printed
private probably problem process processes processor procid produce product products profile profiled profiler
profiling program programmatic programs projected promise prompt prompts proper properly proposals proto protocol
prove provenance provide provided psutil public pull push pythonpath pythonunbuffered pytorch quadrature quantized
queries query question queue queueing queues quick quickly quiet quota qwen race racecheck rack ragged raise raised
random range ranges rank ranking ranks rare rate rather ratio reach reached reaches read readers reading readings
reads ready real reason reasons received recover recv reduce reduces reducescatter refer reference refused region
register registers regs regular reject relative release released remote remove removed repeat replace replica
replicas reply report request required requires reserve reset resident residual resource resources respond rest
restart restore restricted result results resume resumed retry return reverse rich right ring rivals rmsnorm rocm
room rotary rotate rotated rotates round rounded rounding roundings rounds rows rubin rule runs runtime safe said
same sample sampled samples sampling sanitizer sanity saturday says scalar scale scales scan scatter schedule
scheduler schedules schema scipy scope score script search second seconds sections seed seem seen sees segment
segmentation segments select selected self send sending sends sent separate separated september sequence sequences
serial series serve server serves service session sets setting setup several sglang shape shapes shard sharded
shards share sharecase shared shares sharpens sheet sheets shell shift shipment shipped short shorter shot should
show shown shows side sigkill signal signed significand silence silent silu similar simple simply since single site
size sizes skew skinny skip skipped skipping sleeping slot slots slow slowdown slower slowest slowly slug slurm
slurmd sm100 sm120 sm80 sm89 sm90 small smaller smallest socket software solid solutions some something sort source
space span spare spawn spec special specific specified speed spill spills split splitlines square stable stack stage
stages standard stands start started starting starts stat state states static stats status stay stays stderr stdout
steal step steps still stop stopped stops storage store stored stores storing straight stream streams stretch strict
stride strides string strong style subject subprocess subsys succeeded success successfully such suite summaries
summary summation summing sums sunday support supported surface survey swap sweep swiglu switch symbol symm
symmetric sync synchronize syntax system systems table tables take taken takes talk target task tasks tbyte tech
technical technologies telemetry tell tells temp temperature temporary tensor tensordesc tensorrt tensors
terminalreporter terminated tesla text tflops than thank that their them themselves then there thermal these they
thing think third thirds this those though thread threadidx threads three throttled throttling through thrown
thursday tick tile tiles time timed timeline timelines timeout times timing tiny title today together token tokens
told tolerance took tool toolkit torchelastic total toward trace traced tracing track train transfer translate
transport tree trials tried tries trips trouble truth tuesday tune tuned tuner tuning tuple turing turn turns twice
tying type typer uccl unable undefined under understand unequal unexpected ungated unified union unique unit units
unknown unless unnamed unread unseen unsupported until update upper usage usecond used useful username uses using
util utmaldg vain valid value values variable variables various vector venv verdict verify version versions versus
very view virtual visible visit visited visits vllm vocabulary void volatile volta wait waited waiting waits wakes
walk walked walks want wanted wants warm warmed warn warning warnings warns warp warps watch watts wednesday week
weight weights well were what when where whether which while whitepaper whoever whole whose wide widens widest width
will window wish with within without word words work worked worker workerinput workers works workspace workspaces
world worse worst would wrapper write writes writing written wrong wrote x86_64 xdist xgmi year yellow your zero
zeros
"""
COMMON_WORDS = frozenset(_COMMON_WORDS_TEXT.split())


MIN_NAME_LETTERS = 4
"""Least letters of a name that is replaced as a word of its own."""
MIN_PATH_LETTERS = 2
"""Least letters of a name that is replaced within a part of a path."""
MIN_PATH_PARTS = 3
"""Least parts of a path in which a name that is a common word is replaced."""
IMPERSONAL_NAMES = frozenset((
    "root", "user", "users", "address", "admin", "administrator", "ubuntu", "debian", "fedora", "centos", "nobody",
    "runner", "docker", "vagrant", "jovyan", "ec2-user", "home", "localhost", "host", "linux", "windows", "main",
    "master", "bench", "benchmark", "benchmarks", "test", "tests", "build", "cuda", "torch", "triton", "nccl", "rccl",
    "gloo", "mpi", "pytest", "python", "shardbench", "suites", "reports", "kernels", "specs", "comm", "data", "true",
    "false", "none", "null", "precision", "passes", "budget", "interrupted", "error", "measured", "published",
    "interpolated", "modelled", "assumed", "decode", "prefill", "graph", "eager", "cold", "loopback", "network",
    "nvlink", "pcie", "torchrun", "srun", "mpirun", "nvidia", "intel", "xeon", "amd", "epyc", "slurm", "work",
))  # fmt: skip
"""Names that identify no person or machine, and words of the files themselves."""
EXEMPT_KEYS = frozenset(f.name for f in fields(Case)) | frozenset((
    "fullname", "group", "param", "params", "case", "planned", "stats", "timeline", "ledgers", "telemetry", "clock",
    "provenance", "transport", "framework", "version", "kernel_source", "cpu", "gpu", "arch", "device", "processor",
    "machine", "system", "packages", "impl", "launcher", "links",
))  # fmt: skip
"""Keys whose values are our labels, or names of hardware and packages."""
BRANCH_KEYS = frozenset(("branch", "project"))
"""Keys whose values are paths, even without a slash."""
UNIT_NAMES = frozenset(
    ("ns", "us", "ms", "sec", "min", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib", "hz", "mhz", "ghz")
)
"""Units that may follow a slash, and are then no folder."""
REPOSITORY_FOLDERS = ("suites", "kernels", "comm", "specs", "reports", "tests", "docs", "build")
"""Folders of this repository; their paths hold no names of people."""
USER_KEYWORDS = r"(?:USER|USERNAME|LOGNAME)"
HOST_KEYWORDS = r"(?:HOST|HOSTNAME|NODELIST)"
IDENTITY_VARIABLE = re.compile(rf"(?:[A-Z0-9]\w*_)?(?:(?P<user>{USER_KEYWORDS})|{HOST_KEYWORDS})", re.IGNORECASE)
IDENTITY_ASSIGNMENT = re.compile(
    rf"(?<!\w)((?:[A-Z][A-Z0-9_]*_)?(?:(?P<user>{USER_KEYWORDS})|{HOST_KEYWORDS})=)(?:'[^']*'|\"[^\"]*\"|[^\s'\"]+)"
)
HOME_FOLDER = re.compile(r"(?<![\w.])(/(?:home|Users)/|[A-Za-z]:\\Users\\)(?!<user>)[^/\\\s:;,'\"()\[\]{}<>|]+")
HOME_PREFIX = r"(?:(?<![\w.~>/-])|(?<=://))"
ROOT_HOME = re.compile(rf"{HOME_PREFIX}/root(?![\w.-])")
IP_ADDRESS = re.compile(r"(?<![\w.])(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?=\]?:\d|/\d)")
LOCAL_ADDRESS = re.compile(r"127\.|0\.0\.0\.0|::1$")
ABSOLUTE_PATH = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?[/\\][^\s:;,'\"()\[\]{}|]*")
RELATIVE_PATH = re.compile(r"(?<![\w./\\~-])[\w.-]+(?:/[\w.-]+)+")
"""A relative path, such as `users/ann/fix`; `GB/s` matches too."""
HOST_VARIABLES = ("HOSTNAME", "MASTER_ADDR", "SLURMD_NODENAME")


@dataclass(frozen=True)
class Identity:
    """Names of this process's user, host and home folder."""

    users: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()

    def scrub(self, value: Any) -> Any:
        """Return a copy of a JSON value without the names.

        Mappings and sequences become dictionaries and lists.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self._scrub_by_key(str(key), one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.scrub(one) for one in value]
        return value

    def find_names(self, value: Any, place: str = "") -> Iterator[tuple[str, str]]:
        """Yield the place of each name in a JSON value, and the text there.

        A place looks like `machine_info.variables.TRITON_HOME`.
        """
        if isinstance(value, str):
            if self.text(value) != value:
                yield place, value
        elif isinstance(value, Mapping):
            for key, one in value.items():
                at = f"{place}.{key}" if place else str(key)
                if isinstance(one, str):
                    if self._scrub_by_key(str(key), one) != one:
                        yield at, one
                elif key not in EXEMPT_KEYS:
                    yield from self.find_names(one, at)
        elif isinstance(value, list | tuple):
            for index, one in enumerate(value):
                yield from self.find_names(one, f"{place}[{index}]")

    def _scrub_by_key(self, key: str, value: Any) -> Any:
        """Return the value of a key without the names, by the rule for this key."""
        if key in EXEMPT_KEYS:
            return value
        if isinstance(value, str) and value:
            if key[:1].isupper() and (named := IDENTITY_VARIABLE.fullmatch(key)):
                return "<user>" if named["user"] else "<host>"
            if key in BRANCH_KEYS:
                value = self._scrub_path(value)
        return self.scrub(value)

    def text(self, text: str) -> str:
        """Return a line without the names."""
        for pattern, instead in self._rules:
            text = pattern.sub(instead, text)
        return text

    @cached_property
    def _rules(self) -> tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]:
        homes = [re.compile(rf"{HOME_PREFIX}{re.escape(home)}(?![\w.-])") for home in _longest_first(self.homes)]
        hosts = [one for host in _longest_first(self.hosts) for one in _host_patterns(host)]
        users = [one for user in _longest_first(self.users) for one in _user_patterns(user)]
        return (
            *((home, "~") for home in homes),
            (ROOT_HOME, "~"),
            (HOME_FOLDER, r"\1<user>"),
            (IDENTITY_ASSIGNMENT, lambda found: found[1] + ("<user>" if found["user"] else "<host>")),
            (ABSOLUTE_PATH, lambda found: self._scrub_path(found[0])),
            (RELATIVE_PATH, self._scrub_relative_path),
            *((host, "<host>") for host in hosts),
            *((user, "<user>") for user in users),
            (IP_ADDRESS, "<address>"),
        )

    def _scrub_path(self, path: str, *, words: bool = True) -> str:
        """Return a path without the names, however short.

        Without `words`, names that are common words stay.
        """
        for name, pattern, instead in self._path_rules:
            if words or name.lower() not in COMMON_WORDS:
                path = pattern.sub(instead, path)
        return path

    def _scrub_relative_path(self, found: re.Match[str]) -> str:
        """Return a path that does not start at the root, without the names.

        `tokens/s` and `read/write` are no paths, and a part of one letter is no name.
        """
        parts = found[0].split("/")
        if parts[0] in REPOSITORY_FOLDERS:
            return found[0]
        deep = len(parts) >= MIN_PATH_PARTS
        told = [
            part if len(part) < MIN_PATH_LETTERS or part in UNIT_NAMES else self._scrub_path(part, words=deep)
            for part in parts
        ]
        return "/".join(told)

    @cached_property
    def _path_rules(self) -> tuple[tuple[str, re.Pattern[str], str], ...]:
        named = [(name, "<host>") for name in _longest_first(self.hosts)]
        named += [(name, "<user>") for name in _longest_first(self.users)]
        return tuple((name, _path_pattern(name), instead) for name, instead in named)


def current_identity() -> Identity:
    """Return the identifying names of this process's user, host and home folder.

    The network is not asked: a look-up of the host's full name can take seconds.
    """
    users, homes = [os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")], [os.environ.get("HOME", "")]
    with suppress(ImportError, KeyError):  # Windows has no pwd, and a container's user may have no entry
        import pwd

        entry = pwd.getpwuid(os.getuid())
        users, homes = [*users, entry.pw_name], [*homes, entry.pw_dir]
    homes += [str(Path(home).resolve()) for home in homes if home]
    hosts = [platform.node(), *(os.environ.get(name, "") for name in HOST_VARIABLES)]
    return Identity(
        users=_identifying(users),
        hosts=_identifying(name for host in hosts for name in (host, _short_host(host))),
        homes=tuple(dict.fromkeys(home for one in homes if (home := one.rstrip("/\\")) and home.strip("/\\.~"))),
    )


def _short_host(host: str) -> str:
    """Return a host's name without its domain; an address has no domain."""
    return host if host.replace(".", "").isdecimal() or ":" in host else host.partition(".")[0]


def _identifying(names: Iterable[str]) -> tuple[str, ...]:
    found = dict.fromkeys(name.strip() for name in names)
    return tuple(
        name for name in found if name and name.lower() not in IMPERSONAL_NAMES and not LOCAL_ADDRESS.match(name)
    )


def _longest_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=len, reverse=True)


def _is_distinctive(name: str) -> bool:
    """Return whether a name is replaced everywhere, being no unit and no common word."""
    return len(name) >= MIN_NAME_LETTERS and any(map(str.isalpha, name)) and name.lower() not in COMMON_WORDS


def _word_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", re.IGNORECASE)


def _path_pattern(name: str) -> re.Pattern[str]:
    """Return the pattern of a name in a path; one character matches whole parts only.

    An extension never matches, such as the end of `lib.so`.
    """
    literal = re.escape(name)
    if len(name) < MIN_PATH_LETTERS:
        return re.compile(rf"(?<![^/\\]){literal}(?![^/\\])")
    return re.compile(rf"(?<![^\W_])(?<!\.){literal}(?![^\W_])")


def _user_patterns(name: str) -> list[re.Pattern[str]]:
    """Return the patterns of a user's name: a word of its own.

    A name that is not distinctive matches only before `@`, after `~`, and at the start before `/`, as in a branch.
    """
    if _is_distinctive(name):
        return [_word_pattern(name)]
    literal = re.escape(name)
    return [re.compile(rf"(?<![\w.-]){literal}(?=@)|^{literal}(?=/)|(?<=~){literal}(?![^\W_])")]


def _host_patterns(name: str) -> list[re.Pattern[str]]:
    """Return the patterns of a host's name: a word of its own.

    A name that is not distinctive, or an address, matches only after `@` and `//`, and before a port.
    """
    if _is_distinctive(name):
        return [_word_pattern(name)]
    literal = re.escape(name)
    return [re.compile(rf"(?:(?<=@)|(?<=//)){literal}(?![\w.-])|(?<![\w.-]){literal}(?=\]?:\d)")]
