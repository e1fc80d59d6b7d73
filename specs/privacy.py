"""Names of people and machines, which a result file must not carry: it is passed on.

The home folder becomes `~`, the user's name `<user>`, the host's `<host>`, an address with its port `<address>`. A name
of four letters or more goes wherever it stands, in whatever case, between anything but letters and digits. A shorter
one would be found in units, and one that is a word (`specs.words`) in sentences, so these go only in a path or a
branch, as a part of it or of a part (`job-ann-12`), behind `~`, before `@`, or where a host is named. What names nobody
(root, ubuntu) and what suites and libraries call themselves (cuda, torch, main) stays. A variable that is there to name
somebody, USER or SLURM_NODELIST, loses its whole value. `SPARED` are the keys whose values come from our tables or from
the hardware: no kernel, model or GPU is renamed because somebody is called like it.
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

from specs.case import Case
from specs.words import WORDS

LEAST_LETTERS = 4
"""Of a name that is looked for as a word of its own."""
LEAST_IN_PATHS = 2
"""Of one that is looked for within a part of a path."""
LEAST_FOLDERS = 3
"""Of a path in which a name is looked for that is a word of a sentence."""
EVERYDAY = frozenset((
    "root", "user", "users", "address", "admin", "administrator", "ubuntu", "debian", "fedora", "centos", "nobody",
    "runner", "docker", "vagrant", "jovyan", "ec2-user", "home", "localhost", "host", "linux", "windows", "main",
    "master", "bench", "benchmark", "benchmarks", "test", "tests", "build", "cuda", "torch", "triton", "nccl", "rccl",
    "gloo", "mpi", "pytest", "python", "shardbench", "suites", "reports", "kernels", "specs", "comm", "data", "true",
    "false", "none", "null", "precision", "passes", "budget", "interrupted", "error", "measured", "published",
    "interpolated", "modelled", "assumed", "decode", "prefill", "graph", "eager", "cold", "loopback", "network",
    "nvlink", "pcie", "torchrun", "srun", "mpirun", "nvidia", "intel", "slurm", "work",
))  # fmt: skip
"""Names that tell nobody from another, and words of the files themselves."""
SPARED = frozenset(f.name for f in fields(Case)) | frozenset((
    "fullname", "group", "param", "params", "case", "planned", "stats", "timeline", "ledgers", "telemetry", "clock",
    "provenance", "transport", "framework", "version", "kernel_source", "cpu", "gpu", "arch", "device", "processor",
    "machine", "system", "packages", "impl", "launcher", "links",
))  # fmt: skip
"""Keys whose values are labels of ours, or what hardware and packages call themselves."""
BRANCHES = frozenset(("branch", "project"))
"""Keys whose values are paths, though no slash may stand in them."""
UNITS = frozenset(
    ("ns", "us", "ms", "sec", "min", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib", "hz", "mhz", "ghz")
)
"""What may stand behind a slash for another reason than that a folder is called so."""
OURS = ("suites", "kernels", "comm", "specs", "reports", "tests", "docs", "build")
"""Folders of this repository, in which nobody's name stands."""
TELLS_USER = r"(?:USER|USERNAME|LOGNAME)"
TELLS_HOST = r"(?:HOST|HOSTNAME|NODELIST)"
VARIABLE = re.compile(rf"(?:[A-Z0-9]\w*_)?(?:(?P<user>{TELLS_USER})|{TELLS_HOST})", re.IGNORECASE)
ASSIGNED = re.compile(
    rf"(?<!\w)((?:[A-Z][A-Z0-9_]*_)?(?:(?P<user>{TELLS_USER})|{TELLS_HOST})=)(?:'[^']*'|\"[^\"]*\"|[^\s'\"]+)"
)
ANY_HOME = re.compile(r"(?<![\w.])(/(?:home|Users)/|[A-Za-z]:\\Users\\)(?!<user>)[^/\\\s:;,'\"()\[\]{}<>|]+")
BEFORE_HOME = r"(?:(?<![\w.~>/-])|(?<=://))"
ROOT_HOME = re.compile(rf"{BEFORE_HOME}/root(?![\w.-])")
ADDRESS = re.compile(r"(?<![\w.])(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?=\]?:\d|/\d)")
LOCAL = re.compile(r"127\.|0\.0\.0\.0|::1$")
PATH = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?[/\\][^\s:;,'\"()\[\]{}|]*")
RELATIVE = re.compile(r"(?<![\w./\\~-])[\w.-]+(?:/[\w.-]+)+")
"""`users/ann/fix`; `GB/s` looks like one too."""
HOST_VARIABLES = ("HOSTNAME", "MASTER_ADDR", "SLURMD_NODENAME")


@dataclass(frozen=True)
class Names:
    """What this process's user, host and home folder are called."""

    users: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()

    def scrub(self, value: Any) -> Any:
        """A JSON value without the names: a copy, in which mappings and sequences are dictionaries and lists."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self._under(str(key), one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.scrub(one) for one in value]
        return value

    def found(self, value: Any, place: str = "") -> Iterator[tuple[str, str]]:
        """Where in a JSON value a name stands, `machine_info.variables.TRITON_HOME`, and the text there."""
        if isinstance(value, str):
            if self.text(value) != value:
                yield place, value
        elif isinstance(value, Mapping):
            for key, one in value.items():
                at = f"{place}.{key}" if place else str(key)
                if isinstance(one, str):
                    if self._under(str(key), one) != one:
                        yield at, one
                elif key not in SPARED:
                    yield from self.found(one, at)
        elif isinstance(value, list | tuple):
            for index, one in enumerate(value):
                yield from self.found(one, f"{place}[{index}]")

    def _under(self, key: str, value: Any) -> Any:
        """A value without the names, by what its key says of it."""
        if key in SPARED:
            return value
        if isinstance(value, str) and value:
            if key[:1].isupper() and (named := VARIABLE.fullmatch(key)):
                return "<user>" if named["user"] else "<host>"
            if key in BRANCHES:
                value = self._parts(value)
        return self.scrub(value)

    def text(self, text: str) -> str:
        """A line without the names."""
        for pattern, instead in self._rules:
            text = pattern.sub(instead, text)
        return text

    @cached_property
    def _rules(self) -> tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]:
        homes = [re.compile(rf"{BEFORE_HOME}{re.escape(home)}(?![\w.-])") for home in _longest_first(self.homes)]
        hosts = [one for host in _longest_first(self.hosts) for one in _host(host)]
        users = [one for user in _longest_first(self.users) for one in _user(user)]
        return (
            *((home, "~") for home in homes),
            (ROOT_HOME, "~"),
            (ANY_HOME, r"\1<user>"),
            (ASSIGNED, lambda found: found[1] + ("<user>" if found["user"] else "<host>")),
            (PATH, lambda found: self._parts(found[0])),
            (RELATIVE, self._relative),
            *((host, "<host>") for host in hosts),
            *((user, "<user>") for user in users),
            (ADDRESS, "<address>"),
        )

    def _parts(self, path: str, *, words: bool = True) -> str:
        """A path without the names, however short, or without `words` those that are no words of a sentence."""
        for name, pattern, instead in self._in_paths:
            if words or name.lower() not in WORDS:
                path = pattern.sub(instead, path)
        return path

    def _relative(self, found: re.Match[str]) -> str:
        """A path that does not start at the root: `tokens/s` and `read/write` are none, and of one letter is nobody."""
        parts = found[0].split("/")
        if parts[0] in OURS:
            return found[0]
        deep = len(parts) >= LEAST_FOLDERS
        told = [
            part if len(part) < LEAST_IN_PATHS or part in UNITS else self._parts(part, words=deep) for part in parts
        ]
        return "/".join(told)

    @cached_property
    def _in_paths(self) -> tuple[tuple[str, re.Pattern[str], str], ...]:
        named = [(name, "<host>") for name in _longest_first(self.hosts)]
        named += [(name, "<user>") for name in _longest_first(self.users)]
        return tuple((name, _in_path(name), instead) for name, instead in named)


def here() -> Names:
    """The names of this process's user and host, as far as they tell anybody from another.

    Not from the network: looking up the host's full name can take seconds.
    """
    users, homes = [os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")], [os.environ.get("HOME", "")]
    with suppress(ImportError, KeyError):  # Windows has no pwd, and a container's user may have no entry
        import pwd

        entry = pwd.getpwuid(os.getuid())
        users, homes = [*users, entry.pw_name], [*homes, entry.pw_dir]
    homes += [str(Path(home).resolve()) for home in homes if home]
    hosts = [platform.node(), *(os.environ.get(name, "") for name in HOST_VARIABLES)]
    return Names(
        users=_telling(users),
        hosts=_telling(name for host in hosts for name in (host, _short(host))),
        homes=tuple(dict.fromkeys(home for one in homes if (home := one.rstrip("/\\")) and home.strip("/\\.~"))),
    )


def _short(host: str) -> str:
    """The name without its domain; an address has none."""
    return host if host.replace(".", "").isdecimal() or ":" in host else host.partition(".")[0]


def _telling(names: Iterable[str]) -> tuple[str, ...]:
    found = dict.fromkeys(name.strip() for name in names)
    return tuple(name for name in found if name and name.lower() not in EVERYDAY and not LOCAL.match(name))


def _longest_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=len, reverse=True)


def _tells(name: str) -> bool:
    """Whether it is somebody's name wherever it stands, neither a unit nor a word of a sentence."""
    return len(name) >= LEAST_LETTERS and any(map(str.isalpha, name)) and name.lower() not in WORDS


def _alone(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", re.IGNORECASE)


def _in_path(name: str) -> re.Pattern[str]:
    """Of a letter or two digits a whole part alone; `lib.so` is nobody's who is called so."""
    literal = re.escape(name)
    if len(name) < LEAST_IN_PATHS:
        return re.compile(rf"(?<![^/\\]){literal}(?![^/\\])")
    return re.compile(rf"(?<![^\W_])(?<!\.){literal}(?![^\W_])")


def _user(name: str) -> list[re.Pattern[str]]:
    """Alone; a short one before `@`, behind `~`, and at the very start before `/`, as in a branch."""
    if _tells(name):
        return [_alone(name)]
    literal = re.escape(name)
    return [re.compile(rf"(?<![\w.-]){literal}(?=@)|^{literal}(?=/)|(?<=~){literal}(?![^\W_])")]


def _host(name: str) -> list[re.Pattern[str]]:
    """Alone; a short one or an address behind `@` and `//`, and before a port."""
    if _tells(name):
        return [_alone(name)]
    literal = re.escape(name)
    return [re.compile(rf"(?:(?<=@)|(?<=//)){literal}(?![\w.-])|(?<![\w.-]){literal}(?=\]?:\d)")]
