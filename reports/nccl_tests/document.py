"""What `-J FILE` writes: JSON whose times are in microseconds and whose bandwidths are in GB/s of 1e9 bytes.

No key says so; the program that writes it does, and every row is checked against itself. Of the environment and the
names of hosts, which stand in it too, nothing is kept.
"""

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import PurePath
from typing import Any, NoReturn

from reports.nccl_tests.run import Device, Row, Run, figure, version_of, wrong
from reports.nccl_tests.table import CPU_TIME
from specs.errors import UserError

FOREIGN = "JSON, but not what nccl-tests' -J writes: no {}; give that, or the text that it prints"
HALVES = (("out_of_place", False), ("in_place", True))


def read(text: str) -> list[Run]:
    """The run of a file.

    Raises:
        UserError: it is cut short, not JSON, or of another program.
    """
    try:
        content = json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"cut short or not JSON ({error}); run nccl-tests to its end") from error
    for key, kind in (("version", int), ("config", dict), ("results", list)):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise UserError(FOREIGN.format(key))
    if "out_of_bounds" not in content:
        raise UserError("cut short: no out_of_bounds after its results; run nccl-tests to its end")
    try:
        run = _run(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(FOREIGN.format(f"usable config ({error})")) from error
    for number, result in enumerate(content["results"], start=1):
        place = f"result {number}"
        try:
            run.rows += _rows(place, result)
        except (AttributeError, InvalidOperation, KeyError, TypeError, ValueError) as error:
            run.unread[place] = f"its {error} cannot be read" if isinstance(error, KeyError) else f"not a row ({error})"
    if not run.rows and not run.unread:
        raise UserError("no results in it; the run ended before its first size, so run it again")
    run.check_devices()
    return [run]


def _refuse(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is no JSON number")


def _run(content: Mapping[str, Any]) -> Run:
    config, arguments = content["config"], content.get("args") or [""]
    return Run(
        program=PurePath(str(arguments[0])).name or None,
        library_version=version_of(int(content.get("nccl_version") or 0)),
        devices=_devices(config),
        settings_seen="graph" in config,
        graph=int(config.get("graph", 0)),
        iterations=int(config.get("iterations", 1)),
        aggregated=int(config.get("aggregated_iterations", 1)),
        blocking=config.get("blocking_collectives") in ("true", True),
        out_of_bounds=int(content["out_of_bounds"]["count"]),
    )


def _devices(config: Mapping[str, Any]) -> list[Device]:
    """One for each rank. nccl-tests writes the first of each process alone, so the others are filled in."""
    listed = [
        Device(int(one["rank"]), int(one["group"]), str(one["hostname"]), str(one["device_info"]))
        for one in config.get("devices") or ()
    ]
    each = int(config["nthreads"]) * int(config["ngpus"])
    if [one.rank for one in listed] != [each * process for process in range(len(listed))]:
        return listed
    return [one._replace(rank=one.rank + more) for one in listed for more in range(each)]


def _rows(place: str, result: Mapping[str, Any]) -> list[Row]:
    found = []
    for key, in_place in HALVES:
        if (half := result[key]) is None:
            continue
        if "cpu_time" in half:
            raise UserError(f"{place}: {CPU_TIME}")
        row = Row(
            place=place,
            size=_whole(result["size"]),
            elements=_whole(result["count"]),
            type=str(result["type"]),
            redop=str(result["redop"]),
            root=int(result["root"]),
            in_place=in_place,
            microseconds=figure(half["time"]),
            algbw=figure(half["alg_bw"]),
            busbw=figure(half["bus_bw"]),
            wrong=wrong(half["nwrong"]),
        )
        found.append(row)
    return found


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value
