from math import inf

import pytest

from specs.roofline import Work


def test_work_adds_up():
    assert Work(1, 2, 3) + Work(10, 20, 30) == Work(11, 22, 33)


def test_intensity_is_flops_a_byte():
    assert Work(flops=600, hbm_bytes=200).intensity == 3


def test_work_that_touches_no_memory_has_infinite_intensity():
    assert Work(flops=1).intensity == inf


def test_work_cannot_change():
    with pytest.raises(AttributeError):
        Work().flops = 1
