"""The GPU under load as NVML tells, with its newer names, its older ones, or not at all."""

from types import SimpleNamespace

import pytest

from kernels.timing import device

NEWER, OLDER = "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"

SLOWED = {
    "power cap": 0x04,
    "hardware slowdown": 0x08,
    "software thermal": 0x20,
    "hardware thermal": 0x40,
    "power brake": 0x80,
}
AS_ASKED = {"none": 0x00, "idle": 0x01, "applications clocks": 0x02, "sync boost": 0x10, "display clock": 0x100}
"""Numbers of NVML's header: a clock that somebody has set is the clock that was asked for."""


class NVMLError(Exception):
    """NVML's own."""


def lacking(_):
    raise NVMLError("Function Not Found")


@pytest.fixture
def load(monkeypatch):
    """What is read where NVML has these functions beside those that every version has."""

    def read(**functions):
        nvml = SimpleNamespace(
            NVMLError=NVMLError,
            NVML_CLOCK_SM=1,
            NVML_CLOCK_MEM=2,
            NVML_TEMPERATURE_GPU=0,
            nvmlDeviceGetClockInfo=lambda handle, kind: 1980 if kind == 1 else 3201,
            nvmlDeviceGetPowerUsage=lambda handle: 420_000,
            nvmlDeviceGetTemperature=lambda handle, kind: 51,
        )
        nvml.__dict__.update(functions)
        monkeypatch.setattr(device, "nvml_handle", lambda: (nvml, "handle"))
        return device.read_load()

    return read


@pytest.mark.parametrize(
    "functions",
    [
        {NEWER: lambda handle: 0x04},
        {OLDER: lambda handle: 0x04},
        {NEWER: lacking, OLDER: lambda handle: 0x04},
    ],
    ids=["new", "older binding", "older driver"],
)
def test_clock_event_reasons_are_read_by_whichever_name_they_have(load, functions):
    throttled, figures = load(**functions)
    assert throttled is True
    assert figures == {
        "sm_mhz": 1980.0,
        "memory_mhz": 3201.0,
        "power_watts": 420.0,
        "temperature_celsius": 51.0,
        "clock_event_reasons": 4.0,
    }


@pytest.mark.parametrize("functions", [{}, {NEWER: lacking}, {NEWER: lacking, OLDER: lacking}])
def test_without_them_nothing_is_known(load, functions):
    assert load(**functions) == (None, None)


def test_a_figure_that_the_gpu_does_not_tell_leaves_nothing_known(load):
    assert load(**{NEWER: lambda handle: 0, "nvmlDeviceGetPowerUsage": lacking}) == (None, None)


def test_other_errors_are_not_hidden(load):
    def broken(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load(**{NEWER: broken, OLDER: lambda handle: 0})


def test_each_reason_that_counts_is_one_of_nvmls():
    assert set(device.THROTTLE_REASONS) == set(SLOWED.values())


@pytest.mark.parametrize("reasons", SLOWED.values(), ids=SLOWED)
@pytest.mark.parametrize("beside", AS_ASKED.values(), ids=AS_ASKED)
def test_a_clock_that_is_held_back_is_throttled_whatever_else_is_said(load, reasons, beside):
    throttled, figures = load(**{NEWER: lambda handle: reasons | beside})
    assert throttled is True
    assert figures["clock_event_reasons"] == reasons | beside


@pytest.mark.parametrize("reasons", [*AS_ASKED.values(), sum(AS_ASKED.values())], ids=[*AS_ASKED, "all of them"])
def test_a_clock_that_is_as_asked_for_is_not_throttled(load, reasons):
    assert load(**{NEWER: lambda handle: reasons})[0] is False


def test_where_nvml_is_missing_nothing_is_known(monkeypatch):
    monkeypatch.setattr(device, "nvml_handle", lambda: None)
    assert device.read_load() == (None, None)
