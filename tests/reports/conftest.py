"""What tests of written reports share."""

import pytest

from tests.reports.run_reports import run_reports


@pytest.fixture
def said(capsys):
    """What a command that ends well prints."""

    def said(*arguments):
        assert run_reports(*arguments) == 0
        return capsys.readouterr().out

    return said
