"""What a plan has no figures of, a line for each reason; and the figures that it assumes."""

import re
from collections.abc import Iterable, Iterator, Sequence

from reports.page import Block, Column, Row, Table
from reports.plan import assumed, room
from reports.plan.asked import Asked
from reports.plan.plan import LeftOut, Plan
from specs.parallel import Deployment

UNITS = (("BYTES_PER_SECOND", 1e9, "GB/s"), ("SECONDS", 1e-6, "us"), ("BYTES", 2.0**30, "GiB"))
"""How the name of an assumed figure ends, and what it is written in."""
BETWEEN_NODES = "NODE_"


def draw_up(plan: Plan) -> list[Block]:
    """Both tables; the first where anything is left out."""
    rows = [*_no_room(plan), *_missing(plan.left_out)]
    found: list[Block] = []
    if rows:
        columns = Column("splits", number=False, prose=True), Column("why", number=False, prose=True)
        found.append(Table(title="what is not planned", columns=columns, groups=(tuple(rows),)))
    return [*found, _assumed(plan.asked)]


def _no_room(plan: Plan) -> Iterator[Row]:
    """All that memory holds too few sequences for, in one line."""
    tight = dict.fromkeys(one.deployment for one in plan.points if not one.fits)
    if not tight:
        return
    most: dict[Deployment, int] = {one: room.most_sequences(one, plan.asked, plan.system) for one in tight}
    said = [f"{one} {f'above {count}' if count else 'at any batch'}" for one, count in most.items()]
    memory = (plan.system.memory_bytes or 0) / 1e9
    yield (
        ", ".join(said),
        f"memory: {memory:,.1f} GB hold no more weights, sequences of context {plan.asked.context} and workspace",
    )


def _missing(left_out: Iterable[LeftOut]) -> Iterator[Row]:
    """Reasons that differ in their numbers alone are one."""
    alike: dict[str, list[LeftOut]] = {}
    for one in left_out:
        alike.setdefault(re.sub(r"[\d.,]+", "#", one.why), []).append(one)
    for found in alike.values():
        reasons = dict.fromkeys(one.why for one in found)
        first = next(iter(reasons))
        yield (
            ", ".join(_where(found)),
            first + (f" (and {len(reasons) - 1} more like this)" if len(reasons) > 1 else ""),
        )


def _where(found: Sequence[LeftOut]) -> Iterator[str]:
    """`tp8`, or with its batches: `tp4x2 at 1, 8`."""
    batches: dict[Deployment, list[str]] = {}
    for one in found:
        batches.setdefault(one.deployment, []).extend([str(one.batch)] if one.batch else [])
    for deployment, at in batches.items():
        yield f"{deployment} at {' and '.join(at)}" if at else str(deployment)


def _assumed(asked: Asked) -> Table:
    """What no file holds; what lies between hosts only where there are several."""
    rows = []
    for name, one in assumed.every().items():
        if name.startswith(BETWEEN_NODES) and asked.fabric.nodes == 1:
            continue
        end, factor, unit = next(row for row in UNITS if name.endswith(row[0]))
        figure, low, high = (f"{value / factor:g}" for value in (one.value, one.low, one.high))
        what = name.removesuffix(end).strip("_").lower().replace("_", " ") + (" link" if end == UNITS[0][0] else "")
        rows.append((what, f"{figure} {unit}", f"{low}–{high}" if low != high else "", one.why))
    return Table(
        title="assumed",
        columns=(
            Column("what", number=False),
            Column("figure"),
            Column("range"),
            Column("why", number=False, prose=True),
        ),
        groups=(tuple(rows),),
        caption="no file holds these; ranges above span them",
    )
