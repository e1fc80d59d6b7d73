"""What tests of planned claims share."""

import pytest

from reports.claims import registry
from reports.results import load
from tests.reports.claims.planted_prompts import prompt_attention
from tests.reports.plan import planted_parts
from tests.reports.plan.planted_parts import all_parts


@pytest.fixture
def found(tmp_path):
    """The overall finding on a claim, and the others by what they are on."""

    def found(slug, measurements=None, machine=planted_parts.PUBLISHED):
        path = planted_parts.write(tmp_path / "x.json", measurements or [*all_parts(), *prompt_attention()], machine)
        judged = registry.judge_files([load(path)])
        whole, *rows = [one.finding for one in judged if one.id == slug and one.finding.architecture in ("whole", None)]
        return whole, {row.scope: row for row in rows}

    return found
