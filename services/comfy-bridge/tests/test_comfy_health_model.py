"""A socket that hears is never called deaf, however calls, answers and frames overtake each other; one that does
not is, soon after ComfyUI had something to tell."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie_comfy_bridge.instance.health import Health, Limits, Reason
from reverie_comfy_bridge.wire.frames import ExecutionStart, Frame, Status
from reverie_comfy_bridge.wire.queue import Queue, QueuedPrompt

LIMITS = Limits(status_s=5, pong_s=10, silent_s=1e9, interrupt_s=1e9, idle_looks=1000, idle_s=1e9)
#: Slower than this nothing is in these tests, and less than what is waited for.
SLOWEST_S = 4.0
END_S = 200.0

DELAY = st.floats(0, SLOWEST_S / 2)


class Prompt(msgspec.Struct, frozen=True):
    """A prompt: when it is sent, taken, begun and done, how late its frames come; `ours` went over this socket."""

    ours: bool
    sent_at: float
    to_server: float
    waits: float
    runs: float
    to_client: float
    frames_late: float

    @property
    def taken_at(self) -> float:
        return self.sent_at + self.to_server

    @property
    def began_at(self) -> float:
        return self.taken_at + self.waits

    @property
    def done_at(self) -> float:
        return self.began_at + self.runs


class Looking(msgspec.Struct, frozen=True):
    """A look at the queue: when it began, when the server took its picture, when the answer was read."""

    began: float
    to_server: float
    to_client: float


PROMPTS = st.lists(
    st.builds(
        Prompt, st.booleans(), st.floats(1, 100), DELAY, st.floats(0, 20), st.floats(0.01, 20), DELAY, DELAY
    ),
    min_size=1,
    max_size=6,
)
LOOKS = st.lists(st.builds(Looking, st.floats(1, END_S - 10), DELAY, DELAY), max_size=20)
Call = tuple[float, Callable[[Health, float], None]]


def seen_at(prompts: list[Prompt], at: float) -> Queue:
    named = [(QueuedPrompt(f"p{number}"), prompt) for number, prompt in enumerate(prompts)]
    return Queue(
        tuple(queued for queued, prompt in named if prompt.began_at <= at < prompt.done_at),
        tuple(queued for queued, prompt in named if prompt.taken_at <= at < prompt.began_at),
    )


def hear(at: float, frame: Frame) -> Call:
    return at, lambda health, now: health.heard(frame, now)


def calls_of(number: int, prompt: Prompt, *, hears: bool) -> list[Call]:
    calls: list[Call] = []
    if prompt.ours:
        answered_at = prompt.taken_at + prompt.to_client
        calls.append((answered_at, lambda health, now: health.posted(f"p{number}", number, prompt.sent_at)))
        seen_done_at = max(answered_at, prompt.done_at) + prompt.to_client
        calls.append(
            (seen_done_at, lambda health, now: health.ended(f"p{number}", heard=False, now=now)),
        )
    if hears:
        late = prompt.frames_late
        calls += [hear(at + late, Status(1)) for at in (prompt.taken_at, prompt.began_at, prompt.done_at)]
        if prompt.ours:
            calls.append(hear(prompt.began_at + late, ExecutionStart(f"p{number}")))
    return calls


def calls_of_looks(looks: list[Looking], prompts: list[Prompt]) -> list[Call]:
    """Looks are done one after the other, and one is always due within a few seconds."""
    regular = [Looking(float(at), 0.01, 0.01) for at in range(1, int(END_S), 3)]
    calls: list[Call] = []
    last_end = 0.0
    for look in sorted([*looks, *regular], key=lambda look: look.began):
        if look.began < last_end:
            continue
        queue = seen_at(prompts, look.began + look.to_server)
        last_end = look.began + look.to_server + look.to_client
        calls.append(
            (last_end, lambda health, now, queue=queue, began=look.began: health.looked(queue, [], began))
        )
    return calls


def findings(prompts: list[Prompt], looks: list[Looking], *, hears: bool) -> list[tuple[float, Reason]]:
    calls: list[Call] = [(0.0, lambda health, now: health.opened(now)), hear(0.5, Status(0, "c"))]
    for number, prompt in enumerate(prompts):
        calls += calls_of(number, prompt, hears=hears)
    calls += calls_of_looks(looks, prompts)
    calls.append((END_S, lambda health, now: None))
    calls.sort(key=lambda call: call[0])
    health = Health(LIMITS)
    found: list[tuple[float, Reason]] = []
    for (at, call), (following, _) in pairwise(calls):
        call(health, at)
        for moment in (at, (at + following) / 2, following - 1e-6):
            found += [(moment, finding.reason) for finding in health.check(moment)]
    return [(at, reason) for at, reason in found if reason is not Reason.RESTARTED]


@settings(max_examples=100, deadline=None)
@given(PROMPTS, LOOKS)
def test_a_socket_that_hears_all_is_never_given_up(prompts: list[Prompt], looks: list[Looking]) -> None:
    assert findings(prompts, looks, hears=True) == []


@settings(max_examples=100, deadline=None)
@given(PROMPTS, LOOKS)
def test_a_socket_that_hears_nothing_more_is_given_up_once_there_was_something_to_hear(
    prompts: list[Prompt], looks: list[Looking]
) -> None:
    found = findings(prompts, looks, hears=False)
    if any(prompt.ours for prompt in prompts):
        assert [reason for _, reason in found] == [Reason.DEAF_SOCKET]
    assert {reason for _, reason in found} <= {Reason.DEAF_SOCKET}
    # A look may have begun before the change that it saw.
    first = min(prompt.sent_at for prompt in prompts) - SLOWEST_S
    assert all(at > first + LIMITS.status_s for at, _ in found)
