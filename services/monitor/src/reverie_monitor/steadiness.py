"""What is worth telling: a record that was told stays as it was until one of its figures has left its band.

A figure is compared with what was told last, not with what was measured last, so slow drift is told too.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final, TypeVar

import msgspec

from reverie_protocol.jobs import Vram
from reverie_protocol.nodes import Disk, Gpu, GpuProcess, Host, MigInstance
from reverie_protocol.server_messages import SystemStatus

#: A figure that jumps all the time: it causes nothing to be told, and travels along with whatever is.
TRAVELS: Final = inf
#: A figure that says the same as others of its record: told when they are.
FOLLOWS: Final = -1.0

#: Least changes by type and field; what is not named is told whenever it differs.
BANDS: Final[dict[type[msgspec.Struct], dict[str, float]]] = {
    Vram: {"allocated_gb": 0.25, "used_gb": 0.1, "available_gb": FOLLOWS, "usage_percent": FOLLOWS},
    Gpu: {
        "used_gb": 0.1,
        "temperature_c": 3.0,
        "utilization_percent": TRAVELS,
        "power_w": TRAVELS,
        "throttled": TRAVELS,
        "processes": TRAVELS,
    },
    GpuProcess: {"used_gb": 0.1},
    MigInstance: {"used_gb": 0.1},
    Host: {"memory_available_gb": 0.5, "cpu_percent": TRAVELS, "load": TRAVELS},
    Disk: {"free_gb": 0.5},
    SystemStatus: {"queue_state": TRAVELS},  # it has a message of its own
}
T = TypeVar("T")


def steadied(told: T | None, now: T) -> T:
    """`now`, with each record that stayed within its bands as it was told; equal to `told` if nothing is news."""
    if told is None:
        return now
    steady: T = _merged(told, now)
    return steady


def with_travellers(told: T, now: T) -> T:
    """What is told, with the figures that travel along as they are now; both are of one shape."""
    fresh: T = _refreshed(told, now)
    return fresh


def _merged(told: Any, now: Any) -> Any:
    if type(told) is not type(now):
        return now
    if isinstance(now, tuple):
        if len(told) != len(now):
            return now
        return tuple(map(_merged, told, now))
    if not isinstance(now, msgspec.Struct):
        return now
    bands = BANDS.get(type(now), {})
    merged = {name: _merged(getattr(told, name), getattr(now, name)) for name in now.__struct_fields__}
    news = any(_is_news(getattr(told, name), value, bands.get(name, 0.0)) for name, value in merged.items())
    for name in now.__struct_fields__:
        band = bands.get(name)
        if band == TRAVELS or (band is not None and not news):
            merged[name] = getattr(told, name)
    return msgspec.structs.replace(now, **merged)


def _is_news(told: Any, now: Any, band: float) -> bool:
    if band in (TRAVELS, FOLLOWS) or told == now:
        return False
    if band and isinstance(told, int | float) and isinstance(now, int | float):
        return abs(now - told) >= band
    return True


def _refreshed(told: Any, now: Any) -> Any:
    if type(told) is not type(now):
        return told
    if isinstance(told, tuple):
        return tuple(map(_refreshed, told, now)) if len(told) == len(now) else told
    if not isinstance(told, msgspec.Struct):
        return told
    bands = BANDS.get(type(told), {})
    fields = {
        name: getattr(now, name)
        if bands.get(name) == TRAVELS
        else _refreshed(getattr(told, name), getattr(now, name))
        for name in told.__struct_fields__
    }
    return msgspec.structs.replace(told, **fields)
