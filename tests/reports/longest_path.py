"""When turns end in a pipeline, by its rules and nothing else: the longest path to each of them."""

from functools import cache


def ends(busy, hop, steps, orders=None):
    """[step, stage, slot]; `orders` are those in which stages serve the slots, 0 to m - 1 unless given."""
    stages, slots = range(len(busy)), range(len(busy[0]))
    orders = orders or [list(slots)] * len(busy)

    @cache
    def end(step, stage, slot):
        if step < 0:
            return 0
        place = orders[stage].index(slot)
        free = end(step, stage, orders[stage][place - 1]) if place else end(step - 1, stage, orders[stage][-1])
        if stage:
            came = end(step, stage - 1, slot) + hop[stage - 1][slot]
        else:
            came = end(step - 1, stages[-1], slot) + hop[-1][slot] if step else 0
        return max(free, came) + busy[stage][slot]

    return [[[end(step, stage, slot) for slot in slots] for stage in stages] for step in range(steps)]


def period(busy, hop, orders=None, transient=200, steps=120):
    """Of the last steps of a long walk: exact where it has settled, for any pattern of a number of steps in `steps`."""
    walk = ends(busy, hop, transient + steps + 1, orders)
    return (walk[-1][-1][-1] - walk[-1 - steps][-1][-1]) / steps


def alike(stages, slots):
    """A table from one figure for each stage."""
    return [[seconds] * slots for seconds in stages]
