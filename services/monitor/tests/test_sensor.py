"""A measurement that hangs holds nobody up."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from reverie_monitor.sensor import Sensor, SensorSilent


async def test_a_measurement_comes_from_a_thread_and_its_error_too() -> None:
    assert await Sensor("x", lambda: threading.current_thread().name, timeout_s=10).read() == "sensor-x"

    def fails() -> int:
        raise OSError("no such disk")

    with pytest.raises(OSError, match="no such disk"):
        await Sensor("x", fails, timeout_s=10).read()


async def test_one_that_hangs_is_left_alone_until_it_answers() -> None:
    release = threading.Event()
    calls = []

    def hangs() -> int:
        calls.append(None)
        release.wait(30)
        return 7

    sensor = Sensor("x", hangs, timeout_s=0.05)
    with pytest.raises(SensorSilent, match="did not answer within"):
        await sensor.read()
    with pytest.raises(SensorSilent, match="hangs"):
        await sensor.read()
    assert len(calls) == 1
    release.set()
    deadline = time.monotonic() + 20
    value = None
    while value is None and time.monotonic() < deadline:
        try:
            value = await sensor.read()
        except SensorSilent:
            await asyncio.sleep(0.01)
    assert value == 7


async def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    hanging = threading.Event()

    def hangs() -> None:
        hanging.wait(30)

    with pytest.raises(SensorSilent):
        await Sensor("stuck", hangs, timeout_s=0.01).read()
    (thread,) = [each for each in threading.enumerate() if each.name == "sensor-stuck"]
    assert thread.daemon
    hanging.set()
