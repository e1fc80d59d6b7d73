"""What an experiment says of TP against PP, in a sentence."""

from collections.abc import Iterator, Sequence

from reports import units
from reports.experiment.collect import Experiment, crowd
from reports.experiment.duel import Duel, crossover, duels, fastest, leaders
from reports.experiment.words import cut, listed, of, spoken, where
from specs.parallel import Deployment

SINGLE = "a single pass gives no interval, so no winner is named: measure with --passes 2 or more"
NO_DUEL = "TP and PP have not both run over all ranks"


def sentence(name: str, experiment: Experiment) -> str:
    """Who is faster at which loads, where PP overtakes, and which deployment gives the most tokens a second.

    A winner is named only where the interval of the ratio leaves out 1.

    Args:
        name: of the machine.
        experiment: what ran there.
    """
    setting = experiment.setting
    context = f", context {setting.context}" if setting.context else ""
    ran = f"{cut(setting)}, {setting.dtype} by {setting.implementation}{context}"
    found = "; ".join(_found(experiment))
    return f"On {name} ({setting.ranks} ranks over {setting.backend}), {_doing(experiment)} {ran}: {found}."


def _doing(experiment: Experiment) -> str:
    return "in decode of" if experiment.setting.decode else "in one-shot prefill of"


def winners(experiment: Experiment) -> list[str]:
    """Who is faster than whom at which loads, without by how much; nothing where no winner can be named."""
    return [] if _why_none(experiment) else [text for text, _ in _wins(duels(experiment))]


def _found(experiment: Experiment) -> Iterator[str]:
    if why := _why_none(experiment):
        yield why
        return
    found = duels(experiment)
    yield from _winners(found) if found else (NO_DUEL,)
    if found and experiment.setting.decode:
        yield from _crossing(found)
    yield from _most(experiment)


def _why_none(experiment: Experiment) -> str:
    """What keeps any winner from being named; empty where nothing does."""
    if all(one.interval is None for runs in experiment.loads.values() for one in runs.values()):
        return SINGLE
    if crowded := crowd(experiment.file, experiment.setting.ranks):
        return f"{crowded} and take turns, so no winner is named: what waits and for whom is in the ledgers"
    return ""


def _winners(found: Sequence[Duel]) -> Iterator[str]:
    for text, won in _wins(found):
        yield f"{text} ({_times(won)})"
    loads = [one.load for one in found]
    if even := [one.load for one in found if one.winner is None]:
        yield f"the two cannot be told apart {where(even, loads, 'any')}"


def _wins(found: Sequence[Duel]) -> Iterator[tuple[str, list[Duel]]]:
    """`TP 2 is faster than PP 2 up to a batch of 64`, and those duels."""
    if not found:
        return
    loads = [one.load for one in found]
    names = {"tp": spoken(found[0].tp), "pp": f"PP {found[0].pp.pp}"}
    for who, other in (("tp", "pp"), ("pp", "tp")):
        if won := [one for one in found if one.winner == who]:
            yield f"{names[who]} is faster than {names[other]} {where([one.load for one in won], loads)}", won


def _times(won: Sequence[Duel]) -> str:
    """`1.80 times at 1 and 1.20 times at 64`; of PP with what it took."""
    ends = won if len(won) == 1 else (won[0], won[-1])
    took = [spoken(one.pp) if one.winner == "pp" else "" for one in ends]
    alike = len(set(took)) == 1
    said = [f"{_advantage(one):.2f} times{f' {of(one.load)}' if len(ends) > 1 else ''}" for one in ends]
    if not alike:
        said = [f"{text} by {by}" for text, by in zip(said, took, strict=True)]
    return " and ".join(said) + (f", by {took[0]}" if alike and took[0] else "")


def _advantage(one: Duel) -> float:
    """How many times as fast the winner is."""
    return one.ratio.value if one.winner == "tp" else 1 / one.ratio.value


def _crossing(found: Sequence[Duel]) -> Iterator[str]:
    crossing = crossover(found)
    if crossing.after and crossing.by:
        yield f"so PP overtakes at a batch between {crossing.after} and {crossing.by}"


def _most(experiment: Experiment) -> Iterator[str]:
    """The deployment and load with the most tokens a second, and what cannot be told from it, unless nothing can.

    All at a load are told apart from the fastest at once, which is harder than the two sides of a duel: who has lost
    that to one of those named here is not named beside it.
    """
    rates = {load: load.prompt * load.batch / runs[fastest(runs)].median for load, runs in experiment.loads.items()}
    load = max(rates, key=lambda one: rates[one])
    first = _without_losers(leaders(experiment.loads[load]), [one for one in duels(experiment) if one.load == load])
    if 0 < len(first) < len(experiment.loads[load]):
        tied = ", which cannot be told apart" if len(first) > 1 else ""
        rate = units.digits(rates[load])
        yield f"the most tokens a second are {rate} {of(load)}, by {listed([*map(spoken, first)])}{tied}"


def _without_losers(first: Sequence[Deployment], found: Sequence[Duel]) -> list[Deployment]:
    """Leaders less the side that has lost a duel to one of them: PP with all of its schedules, or TP."""
    kept = list(first)
    for duel in found:
        winner = duel.tp if duel.winner == "tp" else duel.pp
        loser = duel.pp if duel.winner == "tp" else duel.tp
        if duel.winner and winner in kept:
            kept = [one for one in kept if (one.tp, one.pp, one.replicas) != (loser.tp, loser.pp, loser.replicas)]
    return kept
