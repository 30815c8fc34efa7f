"""`/v1/ws`: the life of a job as it is pushed, in order, to whom it concerns."""

from __future__ import annotations

import asyncio

import pytest

from reverie_protocol.preview import decode_preview

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_first_message_is_the_state_of_the_platform(gateway, worker):
    async with gateway.socket() as client:
        status = await client.next()
    assert status["type"] == "system:status"
    assert status["mode"] == "tiny"
    assert status["vram"]["device"] == "Bench"
    assert status["storage"] == {"ok": True, "provider": "filesystem"}
    assert (status["queueState"]["pending"], status["queueState"]["running"]) == (0, 0)
    assert status["workers"] == 1


async def test_a_job_is_acknowledged_then_told_step_by_step(gateway, worker, prompt):
    async with gateway.socket() as client:
        submit = {"type": "job:submit", "id": "mine", "jobType": "generate", "prompt": prompt, "seed": 11}
        await client.send(submit)
        job_id = (await client.until("job:ack", id="mine"))["jobId"]
        held = await worker.claim(job_id)
        for step in (1, 2, 3):
            await worker.progress(held, step)
            await client.until("job:progress", step=step)
        await worker.complete(held)
        done = await client.until("job:complete")
    told = [message for message in client.seen if message.get("jobId") == job_id]
    assert [message["type"] for message in told] == [
        "job:ack",
        "job:state",
        "job:state",
        "job:progress",
        "job:progress",
        "job:progress",
        "job:complete",
    ]
    assert [message["state"] for message in told[:3]] == ["queued", "queued", "running"]
    sequence = [message["seq"] for message in told]
    assert sequence == sorted(sequence)
    assert [message["jobSeq"] for message in told if "jobSeq" in message] == [1, 2, 3]
    assert {"seed": 11, "backend": "bench", "sr": False}.items() <= done["meta"].items()
    [output] = done["outputs"]
    assert output["url"] == f"/storage/{output['key']}"
    assert (await gateway.http.get(output["url"])).status_code == 200


async def test_the_ack_comes_before_every_other_event_of_its_job_however_fast_the_worker_is(stage, own_stage):
    gateway = await own_stage.gateway()
    await own_stage.busy_worker()
    async with gateway.socket() as client:
        for number in range(30):
            await client.send({"type": "job:submit", "id": number, "jobType": "generate", "prompt": "quick"})
        for _ in range(30):
            await client.until("job:complete")
    jobs = {message["jobId"] for message in client.seen if message["type"] == "job:ack"}
    assert len(jobs) == 30
    for job_id in jobs:
        types = client.types(job_id)
        assert (types[0], types[-1]) == ("job:ack", "job:complete")
        assert types.count("job:ack") == types.count("job:complete") == 1


async def test_all_sockets_of_an_owner_hear_of_all_his_jobs_whichever_way_they_came(gateway, worker, prompt):
    async with gateway.socket() as one, gateway.socket() as other:
        by_socket = await one.submit()
        await worker.do_next()
        asked = asyncio.create_task(gateway.http.post("/generate", json={"prompt": prompt}))
        await worker.do_next()
        by_http = (await asked).headers["x-job-id"]
        for client in (one, other):
            await client.until("job:complete", jobId=by_http)
            for job_id in (by_socket, by_http):
                assert client.types(job_id)[-1] == "job:complete"
        assert "job:ack" not in other.types(by_socket)


async def test_a_failed_job_says_why(gateway, worker):
    async with gateway.socket() as client:
        held = await worker.claim(await client.submit())
        await worker.fail(held, "out_of_memory", "too large")
        error = await client.until("job:error")
    assert (error["state"], error["code"], error["message"]) == ("failed", "out_of_memory", "too large")
    assert error["jobId"] == held.job_id


async def test_a_waiting_job_is_cancelled_at_once(gateway, worker):
    async with gateway.socket() as client:
        job_id = await client.submit()
        await client.send({"type": "job:cancel", "id": 5, "jobId": job_id})
        confirmed = await client.until("job:cancel:ok", id=5)
        assert (confirmed["jobId"], confirmed["state"]) == (job_id, "cancelled")
        if "job:error" not in client.types(job_id):
            await client.until("job:error", jobId=job_id)
        await client.send({"type": "job:cancel", "id": 6, "jobId": job_id})
        assert (await client.until("job:cancel:ok", id=6))["state"] == "cancelled"
    [error] = [message for message in client.seen if message["type"] == "job:error"]
    assert (error["state"], error["code"]) == ("cancelled", "cancelled")


async def test_a_running_job_stops_at_its_next_step_and_its_partial_output_is_told(gateway, worker):
    async with gateway.socket() as client:
        held = await worker.claim(await client.submit())
        await client.send({"type": "job:cancel", "jobId": held.job_id})
        assert (await client.until("job:cancel:ok"))["state"] == "running"
        assert await worker.hints.get() == held.job_id
        asked = [message for message in client.seen if message.get("cancelling")]
        if not asked:
            asked.append(await client.until("job:state", cancelling=True))
        assert asked[0]["state"] == "running"
        await worker.cancelled(held, partial=b"half")
        error = await client.until("job:error")
    assert (error["code"], error["partial"]) == ("cancelled", True)
    assert error["outputs"][0]["partial"] is True


async def test_cancelling_what_does_not_exist_is_an_error_with_the_clients_id(gateway, worker):
    async with gateway.socket() as client:
        await client.send({"type": "job:cancel", "id": "x", "jobId": "none"})
        error = await client.until("error")
    assert (error["id"], error["code"], error["retryable"]) == ("x", "job_not_found", False)


async def test_a_reload_in_mid_job_shows_where_it_stands_and_goes_on_from_there(gateway, worker):
    async with gateway.socket() as before:
        running = await before.submit()
        held = await worker.claim(running)
        waiting = await before.submit()
        await worker.progress(held, 2)
        await before.until("job:progress", step=2)
    async with gateway.socket() as after:
        await after.until("job:state", jobId=waiting)
        assert after.types(running) == ["job:state", "job:progress"]
        assert [message["step"] for message in after.seen if "step" in message] == [2]
        assert after.types(waiting) == ["job:state"]
        await worker.progress(held, 3)
        await after.until("job:progress", step=3)
        await worker.complete(held)
        await after.until("job:complete", jobId=running)
        await worker.do_next()
        await after.until("job:complete", jobId=waiting)
    for job_id in (running, waiting):
        assert after.types(job_id).count("job:complete") == 1


async def test_a_repeated_submit_gets_the_first_ones_job_and_hears_how_it_stands(gateway, worker, prompt):
    body = {"type": "job:submit", "jobType": "generate", "prompt": prompt, "idempotencyKey": "again"}
    async with gateway.socket() as first:
        await first.send(body)
        job_id = (await first.until("job:ack"))["jobId"]
    await worker.do_next()
    async with gateway.socket() as second:
        await second.send({**body, "id": 2})
        ack = await second.until("job:ack")
        assert (ack["jobId"], ack["existing"], ack["state"]) == (job_id, True, "completed")
        assert (await second.until("job:complete"))["jobId"] == job_id
        await second.send({**body, "id": 3, "prompt": "different"})
        error = await second.until("error")
        assert (error["id"], error["code"]) == (3, "idempotency_conflict")


async def test_previews_go_only_to_the_socket_that_asked(gateway, worker, prompt):
    async with gateway.socket() as asking, gateway.socket() as silent:
        await asking.send({"type": "job:submit", "jobType": "generate", "prompt": prompt, "previews": True})
        held = await worker.claim((await asking.until("job:ack"))["jobId"])
        assert await worker.watched.get() == held.job_id
        await worker.preview(held, picture=b"half done")
        header, picture = decode_preview(await asking.until_picture())
        assert (header.job_id, picture) == (held.job_id, b"half done")
        await worker.complete(held)
        for client in (asking, silent):
            await client.until("job:complete")
            await client.settle()
        await worker.preview(held, picture=b"too late")
        await asyncio.gather(asking.settle(), silent.settle())
    assert len(asking.pictures) == 1
    assert silent.pictures == []


async def test_previews_can_be_asked_for_later_for_one_job_or_for_all_and_the_interest_is_repeated(
    gateway, worker
):
    async with gateway.socket() as client, gateway.socket() as other:
        await other.send({"type": "hello", "previews": True})
        held = await worker.claim(await client.submit())
        await client.until("job:state", state="running")
        while not worker.watched.empty():
            worker.watched.get_nowait()
        await client.send({"type": "job:preview", "id": 1, "jobId": held.job_id})
        assert (await client.until("job:preview:ok"))["enabled"] is True
        for _ in range(2):  # at once, and again after two seconds
            assert await worker.watched.get() == held.job_id
        await client.send({"type": "job:preview", "jobId": held.job_id, "enabled": False})
        await client.until("job:preview:ok", jobId=held.job_id)
        await worker.preview(held, picture=b"unwanted")
        await other.until_picture()
        await client.send({"type": "hello", "id": 2, "previews": True})
        hello = await client.until("hello:ok")
        assert (hello["id"], hello["previews"]) == (2, True)
        await worker.preview(held, picture=b"wanted")
        assert decode_preview(await client.until_picture())[1] == b"wanted"
        await worker.complete(held)
        await client.until("job:complete")
        await client.send({"type": "job:preview", "id": 3, "jobId": "none"})
        assert (await client.until("error"))["code"] == "job_not_found"


async def test_a_resume_on_a_socket_that_missed_nothing_repeats_nothing(gateway, worker):
    async with gateway.socket() as client:
        await client.send({"type": "hello"})
        cursor = (await client.until("hello:ok"))["seq"]
        await client.send({"type": "resume", "cursor": cursor})
        assert (await client.until("resumed"))["recovered"] is True
        job_id = await client.submit()
        cursor = (await client.until("job:state"))["seq"]
        await client.send({"type": "resume", "id": 1, "cursor": cursor})
        resumed = await client.until("resumed")
        assert (resumed["id"], resumed["recovered"], resumed["from"]) == (1, True, cursor)
        await worker.do_next()
        await client.until("job:complete")
    assert client.types(job_id).count("job:state") == 2


async def test_a_ping_is_answered_with_its_id(gateway, worker):
    async with gateway.socket() as client:
        for number in (1, "one", None):
            await client.send({"type": "ping", "id": number})
            assert (await client.until("pong")).get("id") == number


async def test_messages_of_services_that_do_not_run_are_refused_by_name(gateway, worker, prompt):
    async with gateway.socket() as client:
        await client.send({"type": "dream:start", "id": 1, "prompt": prompt})
        error = await client.until("error")
        assert (error["id"], error["code"], error["retryable"]) == (1, "service_unavailable", True)
        assert "dreams" in error["message"]
        await client.send({"type": "job:submit", "id": 2, "jobType": "comfy", "workflowId": "w"})
        assert (await client.until("error"))["code"] == "comfy_unreachable"


async def test_a_submit_that_no_worker_could_ever_run_is_refused(gateway, worker, prompt):
    async with gateway.socket() as client:
        await client.send(
            {"type": "job:submit", "id": 1, "jobType": "generate", "prompt": prompt, "mode": "x"}
        )
        assert (await client.until("error"))["code"] == "mode_not_found"


async def test_the_status_is_pushed_when_it_changes_and_polling_shows_the_same(gateway, worker):
    async with gateway.socket() as client:
        status = await client.until("system:status")
        await worker.beat(mode="grand")
        while status["mode"] != "grand":
            status = await client.until("system:status")
        polled = (await gateway.http.get("/v1/system/status")).json()
        assert polled == status
        await worker.beat(mode="tiny")
