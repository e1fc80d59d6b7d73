"""What tests of written reports share."""

import pytest

from tests.reports.running import ran


@pytest.fixture
def said(capsys):
    """What a command that ends well prints."""

    def said(*arguments):
        assert ran(*arguments) == 0
        return capsys.readouterr().out

    return said
