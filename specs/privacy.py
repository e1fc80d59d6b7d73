"""Names of people and machines, which a result file must not carry: it is passed on.

The home folder becomes `~`, the user's name `<user>`, the host's `<host>`, an address with its port `<address>`. A name
of four letters or more goes wherever it stands as a whole word. A shorter one would be found in units and sentences, so
it goes only as a part of a path, before `@`, or where a host is named. What names nobody (root, ubuntu) and words that
suites and libraries use themselves (cuda, torch, main) stay. `SPARED` are the keys whose values come from our tables or
from the hardware: no kernel, model or GPU is renamed because somebody is called like it.
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

LEAST_LETTERS = 4
"""Of a name that is looked for as a word of its own."""
EVERYDAY = frozenset((
    "root", "user", "users", "address", "admin", "administrator", "ubuntu", "debian", "fedora", "centos", "nobody",
    "runner", "docker", "vagrant", "jovyan", "ec2-user", "home", "localhost", "host", "linux", "windows", "main",
    "master", "bench", "benchmark", "benchmarks", "test", "tests", "build", "cuda", "torch", "triton", "nccl", "rccl",
    "gloo", "mpi", "pytest", "python", "shardbench", "suites", "reports", "kernels", "specs", "comm", "data", "true",
    "false", "none", "null", "precision", "passes", "budget", "interrupted", "error", "measured", "published",
    "interpolated", "modelled", "assumed", "decode", "prefill", "graph", "eager", "cold", "loopback", "network",
    "nvlink", "pcie", "torchrun", "srun", "mpirun",
))  # fmt: skip
"""Names that tell nobody from another, and words of the files themselves."""
SPARED = frozenset(f.name for f in fields(Case)) | frozenset((
    "fullname", "group", "param", "params", "case", "planned", "stats", "timeline", "ledgers", "telemetry", "clock",
    "provenance", "transport", "framework", "version", "kernel_source", "cpu", "gpu", "arch", "device", "processor",
    "machine", "system", "packages", "impl", "launcher", "links",
))  # fmt: skip
"""Keys whose values are labels of ours, or what hardware and packages call themselves."""
ANY_HOME = re.compile(r"(?<![\w.])(/(?:home|Users)/|[A-Za-z]:\\Users\\)(?!<user>)[^/\\\s:;,'\"()\[\]{}<>|]+")
ROOT_HOME = re.compile(r"(?<![\w.~>/-])/root(?![\w.-])")
ADDRESS = re.compile(r"(?<![\w.])(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?=\]?:\d|/\d)")
LOCAL = re.compile(r"127\.|0\.0\.0\.0|::1$")
PATH = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?[/\\][^\s:;,'\"()\[\]{}|]*")
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
            return {key: one if key in SPARED else self.scrub(one) for key, one in value.items()}
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
                if key not in SPARED:
                    yield from self.found(one, f"{place}.{key}" if place else str(key))
        elif isinstance(value, list | tuple):
            for index, one in enumerate(value):
                yield from self.found(one, f"{place}[{index}]")

    def text(self, text: str) -> str:
        """A line without the names."""
        for pattern, instead in self._rules:
            text = pattern.sub(instead, text)
        return text

    @cached_property
    def _rules(self) -> tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]:
        homes = [re.compile(rf"(?<![\w.~>/-]){re.escape(home)}(?![\w.-])") for home in _longest_first(self.homes)]
        hosts = [one for host in _longest_first(self.hosts) for one in _host(host)]
        users = [one for user in _longest_first(self.users) for one in _user(user)]
        return (
            *((home, "~") for home in homes),
            (ROOT_HOME, "~"),
            (ANY_HOME, r"\1<user>"),
            (PATH, self._parts),
            *((host, "<host>") for host in hosts),
            *((user, "<user>") for user in users),
            (ADDRESS, "<address>"),
        )

    def _parts(self, path: re.Match[str]) -> str:
        """A path whose parts are no names, however short."""
        parts = re.split(r"([/\\])", path[0])
        return "".join("<user>" if p in self.users else "<host>" if p in self.hosts else p for p in parts)


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


def _is_word(name: str) -> bool:
    return len(name) >= LEAST_LETTERS and any(map(str.isalpha, name))


def _user(name: str) -> list[re.Pattern[str]]:
    """As a word; a short one before `@`, and at the very start before `/`, as in a branch."""
    literal = re.escape(name)
    if _is_word(name):
        return [re.compile(rf"(?<!\w){literal}(?!\w)")]
    return [re.compile(rf"(?<![\w.-]){literal}(?=@)|^{literal}(?=/)")]


def _host(name: str) -> list[re.Pattern[str]]:
    """As a word; a short one or an address behind `@` and `//`, and before a port."""
    literal = re.escape(name)
    if _is_word(name):
        return [re.compile(rf"(?<!\w){literal}(?!\w)")]
    return [re.compile(rf"(?:(?<=@)|(?<=//)){literal}(?![\w.-])|(?<![\w.-]){literal}(?=\]?:\d)")]
