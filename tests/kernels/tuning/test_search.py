"""The order of the search, and that it finds a planted optimum long before it has tried everything."""

from math import inf, log2
from random import Random

import pytest

from kernels.configs.config import LinearConfig
from kernels.configs.space import skinny_candidates
from kernels.tuning.search import SEED_CONFIGS, SearchJob, leaders_first, search_rounds
from kernels.tuning.shapes import LinearShape
from specs.gpus import ARCHS

ALL = list(skinny_candidates(ARCHS["sm_90"], "bf16", tokens=16, n=8192, k=8192))
BASE = LinearConfig(64, 16, 64, 1, 4, 3)


def hunting(ranked, seconds=None):
    return SearchJob(LinearShape("bf16", 16, 8192, 8192), ranked, {} if seconds is None else seconds)


def always():
    return True


def cost(config, best):
    """Seconds that rise with the distance from `best` along each field on its own, in powers of two."""
    numbers = zip(config[:6], best[:6], strict=True)
    return 1e-6 * (1 + sum(abs(log2(mine / theirs)) for mine, theirs in numbers) + (config.tma != best.tma))


def tries_until_found(best, ranked):
    hunt, tries = hunting(ranked), 0
    while hunt.best != best:
        config = hunt.next_config()
        hunt.seconds[config] = cost(config, best)
        tries += 1
    return tries


@pytest.mark.parametrize("best", ALL[:: len(ALL) // 12], ids=str)
def test_a_planted_optimum_is_found_with_a_fraction_of_the_tries(best):
    # From a random ranking, which knows nothing; half of all would be tried without neighbours. Six fields have
    # 2, 1, 2, 6, 2 and 3 values and there are two ways to fetch: a walk that keeps improving meets few of them.
    tries = [tries_until_found(best, Random(seed).sample(ALL, len(ALL))) for seed in range(10)]
    assert sum(tries) / len(tries) < len(ALL) / 6


def test_seeds_come_first_then_neighbours_of_the_best_then_the_rest():
    far = [BASE._replace(rows=128, depth=128, split=parts, stages=6) for parts in (2, 3, 4, 6, 8)]
    near, nearer = BASE._replace(stages=6), BASE._replace(stages=4)
    ranked = [far[0], BASE, far[1], far[2], near, far[3], nearer, far[4]]
    assert SEED_CONFIGS == 4
    hunt, order = hunting(ranked), []
    while (config := hunt.next_config()) is not None:
        order.append(config)
        hunt.seconds[config] = 1e-6 if config == BASE else 2e-6
    assert order == [far[0], BASE, far[1], far[2], nearer, near, far[3], far[4]]


def test_neighbours_are_those_of_the_best_so_far():
    a, b = BASE, BASE._replace(rows=128, split=8)
    slow = [a._replace(tma=True), a._replace(tma=True, split=8)]
    ranked = [a, b, *slow, b._replace(stages=4), a._replace(stages=4)]
    seconds = {a: 3e-6, b: 2e-6, **dict.fromkeys(slow, 4e-6)}
    assert hunting(ranked, dict(seconds)).next_config() == b._replace(stages=4)
    assert hunting(ranked, seconds | {b: 5e-6}).next_config() == a._replace(stages=4)


def test_nothing_is_tried_twice_and_everything_once():
    hunt, order = hunting(ALL), []
    for _ in search_rounds([hunt], lambda hunt, config: order.append(config) or len(order) * 1e-6, always):
        pass
    assert len(order) == len(set(order)) == len(ALL)
    assert hunt.next_config() is None


def test_what_is_known_is_not_tried_again():
    known = dict.fromkeys(ALL[:200], 1e-6)
    tried = []
    for _ in search_rounds([hunting(ALL, known)], lambda hunt, config: tried.append(config) or 1e-6, always):
        pass
    assert set(tried) == set(ALL[200:])


def test_what_was_wrong_never_wins():
    hunt = hunting(ALL[:3], {ALL[0]: inf, ALL[1]: 2e-6, ALL[2]: inf})
    assert hunt.best == ALL[1]
    hunt.seconds[ALL[2]] = 1e-6
    assert hunt.best == ALL[2]


def test_a_hunt_in_which_all_fail_has_no_best_but_tries_all():
    hunt = hunting(ALL)
    assert hunt.best is None
    assert len(list(search_rounds([hunt], lambda hunt, config: inf, always))) == len(ALL)
    assert hunt.best is None


def test_rounds_give_each_shape_its_turn():
    hunts, turns = [hunting(ALL[:2]), hunting(ALL[:3]), hunting(ALL[:1])], []
    numbers = list(search_rounds(hunts, lambda hunt, config: turns.append(hunts.index(hunt)) or 1e-6, always))
    assert turns == [0, 1, 2, 0, 1, 1]
    assert numbers == [1, 2, 3]


@pytest.mark.parametrize("granted", [0, 1, 2, 3, 5])
def test_time_is_asked_for_before_each_try(granted):
    hunts, asked = [hunting(ALL), hunting(ALL[::-1])], []
    tried = []
    finished = list(
        search_rounds(
            hunts, lambda hunt, config: tried.append(config) or 1e-6, lambda: asked.append(0) or len(tried) < granted
        )
    )
    assert len(tried) == granted
    assert finished == list(range(1, granted // 2 + 1))
    assert sum(len(hunt.seconds) for hunt in hunts) == granted


def test_nothing_to_search_for_ends_at_once():
    assert list(search_rounds([], lambda hunt, config: 1e-6, always)) == []


def test_the_best_of_each_way_to_multiply_and_to_fetch_leads():
    plain, tma = BASE, BASE._replace(tma=True)
    direct = LinearConfig(8, 4, 1024, 1, 4, 1, matrix=False)
    slower = [one._replace(split=2) for one in (plain, tma, direct)]
    assert leaders_first([plain, slower[0], direct, slower[2], tma, slower[1]]) == [
        plain, direct, tma, slower[0], slower[2], slower[1],
    ]  # fmt: skip
