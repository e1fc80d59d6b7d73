"""The GPU under load as NVML tells, with its newer names, its older ones, or not at all."""

from types import SimpleNamespace

import pytest

from kernels.timing import telemetry

NEWER, OLDER = "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"


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
        monkeypatch.setattr(telemetry, "nvml_handle", lambda: (nvml, "handle"))
        return telemetry.read_load()

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
