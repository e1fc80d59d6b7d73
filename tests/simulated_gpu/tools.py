"""Stand-ins of ncu and compute-sanitizer: they run the program that they are given, and write what the tool would."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FAULTY = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at _fill+0x1f0
=========     by thread (31,0,0) in block (0,0,0)
========= ERROR SUMMARY: 1 error
"""
CLEAN = """========= COMPUTE-SANITIZER
========= ERROR SUMMARY: 0 errors
"""


def program(arguments: Sequence[str]) -> list[str]:
    """What a tool is told to run: all from the first interpreter on."""
    at = next(
        at for at, word in enumerate(arguments) if Path(word).name.startswith("python") and os.access(word, os.X_OK)
    )
    return list(arguments[at:])


def main(tool: str, arguments: Sequence[str]) -> int:
    """Run as a tool would; `hangs` in the environment makes it never end by itself."""
    if os.environ.get("SHARDBENCH_SIMULATED_TOOL") == "hangs":
        time.sleep(120)
        return 1
    log = Path(arguments[arguments.index("--log-file") + 1]) if "--log-file" in arguments else None
    told = program(arguments)
    environment = {**os.environ, **({"SHARDBENCH_SIMULATED_NCU": str(log)} if tool == "ncu" else {})}
    status = subprocess.run(told, env=environment).returncode
    if tool == "compute-sanitizer":
        text = FAULTY if "--fault" in told else CLEAN
        if log:
            log.write_text(text)
        else:
            sys.stdout.write(text)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
