"""A job is seen, followed and stopped by its owner only; to everybody else it does not exist."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

MINE, THEIRS = {"X-Owner": "me"}, {"X-Owner": "they"}
SUBMIT = {"jobType": "generate", "prompt": "x", "idempotencyKey": "same"}


@pytest.fixture(autouse=True)
def owners(monkeypatch):
    """Identity comes from a header here, as long as the gateway itself has none."""
    for module in ("socket", "http_jobs", "http_generate", "http_system"):
        monkeypatch.setattr(
            f"reverie_gateway.{module}.owner_of", lambda connection: connection.headers["x-owner"]
        )


async def test_nobody_else_sees_stops_or_hears_of_a_job(gateway, stage):
    worker = await stage.worker()
    async with (
        gateway.socket(additional_headers=MINE) as mine,
        gateway.socket(additional_headers=THEIRS) as theirs,
    ):
        await mine.until("system:status", workers=1)
        job_id = (await gateway.http.post("/v1/jobs", json=SUBMIT, headers=MINE)).json()["jobId"]
        await theirs.send({"type": "hello", "previews": True})
        for method in ("GET", "DELETE"):
            answer = await gateway.http.request(method, f"/v1/jobs/{job_id}", headers=THEIRS)
            assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
        assert (await gateway.http.get("/v1/jobs", headers=THEIRS)).json()["jobs"] == []
        for kind in ("job:cancel", "job:preview"):
            await theirs.send({"type": kind, "jobId": job_id})
            assert (await theirs.until("error"))["code"] == "job_not_found"
        await mine.send({"type": "job:preview", "jobId": job_id})
        await mine.until("job:preview:ok")

        status = (await gateway.http.get("/v1/system/status", headers=THEIRS)).json()
        [row] = status["queueState"]["jobs"]
        assert "jobId" not in row
        status = (await gateway.http.get("/v1/system/status", headers=MINE)).json()
        assert status["queueState"]["jobs"][0]["jobId"] == job_id

        held = await worker.claim(job_id)
        await worker.progress(held, 1)
        await mine.until("job:progress")
        await worker.preview(held)
        await mine.until_picture()
        await worker.complete(held)
        await mine.until("job:complete")
        await theirs.settle()
    assert theirs.types(job_id) == []
    assert theirs.pictures == []
    async with gateway.socket(additional_headers=THEIRS) as late:
        await late.settle()
    assert late.types(job_id) == []
    shown = await gateway.http.get(f"/v1/jobs/{job_id}", headers=THEIRS)
    assert shown.status_code == 404


async def test_the_same_key_of_another_owner_names_another_job(gateway, stage):
    answers = [await gateway.http.post("/v1/jobs", json=SUBMIT, headers=who) for who in (MINE, THEIRS)]
    assert answers[0].json()["jobId"] != answers[1].json()["jobId"]
    assert answers[1].json()["existing"] is False
