"""Faults by HTTP, for a fake that runs as a program: `POST /fake/restart`, `POST /fake/faults {"frames": {…}}`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reverie_testing.fake_comfy.wire import Request, Response, answer

if TYPE_CHECKING:
    from reverie_testing.fake_comfy.server import FakeComfy

CONTROL = "/fake/"


async def control(fake: FakeComfy, request: Request) -> Response:
    """Do what the path says, with the body as its arguments; 400 if there is no such thing."""
    name = request.path.removeprefix(CONTROL)
    body: Any = request.json() if request.body else {}
    if request.method == "GET" and name == "log":
        return answer({"starts": fake.starts, "ended": fake.ended})
    if name == "restart":
        fake.restart_soon(float(body.get("away_s", 0)))
        return answer({})
    if name == "faults":
        return _set(fake, body)
    actions: dict[str, Callable[[], object]] = {
        "kill_worker": fake.kill_worker,
        "abort_sockets": fake.abort_sockets,
        "freeze_sockets": fake.freeze_sockets,
        "thaw_sockets": fake.thaw_sockets,
        "deafen": fake.deafen,
        "freeze_events": fake.freeze_events,
        "thaw_events": fake.thaw_events,
        "delete_outputs": fake.delete_outputs,
        "stall": fake.faults.stall,
        "release": fake.faults.release,
    }
    if name not in actions:
        return answer(
            {"error": f"no {name}; there is {', '.join(sorted(actions))}, restart, faults, log"}, 400
        )
    actions[name]()
    return answer({})


def _set(fake: FakeComfy, body: dict[str, Any]) -> Response:
    """Set numbers of `Faults`, and of its `frames`."""
    for target, values in ((fake.faults.frames, body.pop("frames", {})), (fake.faults, body)):
        for name, value in values.items():
            if not isinstance(getattr(target, name, None), int | float):
                return answer({"error": f"{name} is no number of {type(target).__name__}"}, 400)
            setattr(target, name, value)
    return answer({})
