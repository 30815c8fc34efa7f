"""A session without a socket: what goes out, in which order, for what came in."""

from __future__ import annotations

import json

import pytest

from reverie_gateway.events import Delivery, Event
from reverie_gateway.frame import payload_of
from reverie_gateway.identity import Identity
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import MAX_WATCHED_JOBS, Session
from reverie_protocol.client_messages import JobCancel, JobSubmit
from reverie_protocol.errors import ErrorCode, ReverieError


@pytest.fixture
def session() -> Session:
    return Session(Identity("me"), Outbox())


def event(delivery: Delivery, frame: bytes, job_id: str = "a", seq: int = 1) -> Event:
    return Event("me", job_id, delivery, frame, seq)


def test_the_end_of_a_job_makes_its_unsent_progress_and_preview_untrue(session) -> None:
    session.watch("a", enabled=True)
    session.deliver(event(Delivery.STATE, b"running"))
    session.deliver(event(Delivery.PROGRESS, b"90 %"))
    session.deliver(event(Delivery.PROGRESS, b"10 %", job_id="b"))
    session.deliver_preview("a", b"picture")
    session.deliver(event(Delivery.FINAL, b"complete"))
    assert not session.wants_previews("a")
    assert session.outbox.take() == [b"running", b"10 %", b"complete"]


def test_events_wait_for_the_ack_of_a_submit_and_keep_their_order(session) -> None:
    session.hold("a")
    session.deliver(event(Delivery.STATE, b"queued"))
    session.deliver(event(Delivery.STATE, b"other", job_id="b"))
    session.deliver(event(Delivery.FINAL, b"complete"))
    session.outbox.put(b"ack")
    session.release("a")
    session.release("a")
    assert session.outbox.take() == [b"ack", b"queued", b"other", b"complete"]


def test_a_story_told_again_leaves_what_is_kept_back_in_its_order(session) -> None:
    past = event(Delivery.STATE, b"queued", seq=1)
    news = event(Delivery.STATE, b"running", seq=2)
    session.hold("a")
    session.deliver(news)
    session.deliver(event(Delivery.STATE, b"other", job_id="b", seq=3))
    session.retell([past, news])
    session.release("a")
    assert session.outbox.take() == [b"queued", b"running", b"other"]


def test_the_present_is_told_in_the_order_of_revisions_with_what_ended_meanwhile(session) -> None:
    session.expect_resume()
    session.deliver(event(Delivery.FINAL, b"complete", job_id="c", seq=4))
    running, queued = (
        event(Delivery.STATE, b"running", seq=5),
        event(Delivery.STATE, b"queued", job_id="b", seq=2),
    )
    session.open([running, queued])
    assert session.outbox.take() == [b"queued", b"complete", b"running"]


def test_requests_are_handed_on_and_the_rest_is_answered(session) -> None:
    submit = session.receive('{"type": "job:submit", "jobType": "generate", "prompt": "x"}')
    assert isinstance(submit, JobSubmit)
    assert isinstance(session.receive('{"type": "job:cancel", "jobId": "a"}'), JobCancel)
    for frame in (
        '{"type": "ping", "id": 1}',
        "{",
        b"binary",
        " " * (1 << 20) + "{}",
        '{"type": "dream:stop", "id": 2, "sessionId": "*"}',
    ):
        assert session.receive(frame) is None
    answers = [json.loads(payload_of(frame)) for frame in session.outbox.take()]
    assert answers[0] == {"type": "pong", "id": 1}
    assert [answer["code"] for answer in answers[1:]] == [
        "invalid_json",
        "unsupported_frame",
        "payload_too_large",
        "invalid_field",
    ]
    assert answers[-1]["id"] == 2


def test_previews_go_out_for_what_is_watched_and_not_before_the_ack(session) -> None:
    session.deliver_preview("a", b"unasked")
    session.hold("a")
    session.watch("a", enabled=True)
    session.deliver_preview("a", b"too early")
    session.release("a")
    session.deliver_preview("a", b"wanted")
    assert session.outbox.take_preview() == b"wanted"
    session.deliver_preview("a", b"not sent yet")
    session.watch("a", enabled=False)
    session.all_previews = True
    session.deliver_preview("b", b"all")
    assert session.outbox.take_preview() == b"all"


def test_one_socket_watches_a_bounded_number_of_jobs_by_name(session) -> None:
    for number in range(MAX_WATCHED_JOBS):
        session.watch(str(number), enabled=True)
    with pytest.raises(ReverieError) as refused:
        session.watch("one more", enabled=True)
    assert refused.value.code is ErrorCode.RATE_LIMITED
    session.watch("0", enabled=True)  # it is watched already
