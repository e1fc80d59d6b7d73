"""What NVML says of a GPU under load, by a stand-in of NVML: which reasons for a clock mean that it is held back."""

from types import SimpleNamespace

import pytest

from kernels.timing import telemetry
from kernels.timing.telemetry import HELD_BACK, read_load

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
    pass


@pytest.fixture
def nvml(monkeypatch):
    """An NVML whose GPU gives these reasons."""

    def nvml(reasons):
        def current_reasons(handle):
            if reasons is None:
                raise NVMLError("GPU is lost")
            return reasons

        fake = SimpleNamespace(
            NVMLError=NVMLError,
            NVML_CLOCK_SM=1,
            NVML_CLOCK_MEM=2,
            NVML_TEMPERATURE_GPU=0,
            nvmlDeviceGetCurrentClocksEventReasons=current_reasons,
            nvmlDeviceGetClockInfo=lambda handle, clock: {1: 1980, 2: 2619}[clock],
            nvmlDeviceGetPowerUsage=lambda handle: 650_500,
            nvmlDeviceGetTemperature=lambda handle, sensor: 61,
        )
        monkeypatch.setattr(telemetry, "nvml_handle", lambda: (fake, "handle"))

    return nvml


def test_each_reason_that_counts_is_one_of_nvmls():
    assert set(HELD_BACK) == set(SLOWED.values())


@pytest.mark.parametrize("reasons", SLOWED.values(), ids=SLOWED)
@pytest.mark.parametrize("beside", AS_ASKED.values(), ids=AS_ASKED)
def test_a_clock_that_is_held_back_is_throttled_whatever_else_is_said(nvml, reasons, beside):
    nvml(reasons | beside)
    throttled, figures = read_load()
    assert throttled is True
    assert figures["clock_event_reasons"] == reasons | beside


@pytest.mark.parametrize("reasons", [*AS_ASKED.values(), sum(AS_ASKED.values())], ids=[*AS_ASKED, "all of them"])
def test_a_clock_that_is_as_asked_for_is_not_throttled(nvml, reasons):
    nvml(reasons)
    throttled, figures = read_load()
    assert throttled is False
    assert figures == {
        "sm_mhz": 1980.0,
        "memory_mhz": 2619.0,
        "power_watts": 650.5,
        "temperature_celsius": 61.0,
        "clock_event_reasons": float(reasons),
    }


def test_an_nvml_that_refuses_or_is_missing_tells_nothing(nvml, monkeypatch):
    nvml(None)
    assert read_load() == (None, None)
    monkeypatch.setattr(telemetry, "nvml_handle", lambda: None)
    assert read_load() == (None, None)
