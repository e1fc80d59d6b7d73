"""Runs `python -m reports` in this process."""

import pytest

from reports.__main__ import main


def run_reports(*arguments):
    """Its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    return ended.value.code or 0
