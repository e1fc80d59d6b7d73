"""Plans that several parts of a report share: of each file and question one, made when it is first asked for.

A plan of a published GPU takes seconds, and verdicts, the chapter and the page all look at the same one.
"""

from collections.abc import Sequence
from functools import lru_cache

from reports import ceilings
from reports.files import ResultFile
from reports.plan import crossover, plan
from reports.plan.asked import Asked
from reports.plan.crossover import Crossover
from reports.plan.parts import Parts
from reports.plan.plan import Plan
from reports.plan.system import System, gather
from specs.errors import UserError

QUESTION = Asked(model="llama-3-70b", gpus=8, context=256)
"""What every GPU is asked: a dense model of 70B over one host."""
KEPT = 128


def planned(file: ResultFile, asked: Asked = QUESTION) -> Plan | None:
    """The plan for the GPU that a file is of; None where it is of none, or does not hold what the plan needs."""
    return _planned(file, asked) if ceilings.known_gpu(file) else None


def system(file: ResultFile, dtype: str = QUESTION.dtype) -> System:
    """What a file holds, its curves shared by all plans.

    Raises:
        UserError: it has no linear in this format.
    """
    return _system(file, dtype)


def parts(file: ResultFile, asked: Asked) -> Sequence[Parts]:
    """Everybody's parts of the model, for what no plan holds; none where the file has none."""
    return _parts(file, asked) if ceilings.known_gpu(file) else ()


def crossing(file: ResultFile, asked: Asked) -> Crossover | None:
    """Where PP overtakes, without a plan around it."""
    found = parts(file, asked)
    return crossover.find(found, system(file, asked.dtype), asked) if found else None


@lru_cache(KEPT)
def _parts(file: ResultFile, asked: Asked) -> Sequence[Parts]:
    try:
        return plan.variants(_system(file, asked.dtype), asked)
    except UserError:
        return ()


@lru_cache(KEPT)
def _planned(file: ResultFile, asked: Asked) -> Plan | None:
    try:
        return plan.of(_system(file, asked.dtype), asked)
    except UserError:
        return None


@lru_cache(KEPT)
def _system(file: ResultFile, dtype: str) -> System:
    return gather([file], dtype)
