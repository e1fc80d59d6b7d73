"""Time of one call on the device: cold inputs, timers, clocks, telemetry."""
