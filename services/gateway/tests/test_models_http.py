"""`/api/*` as existing frontends use it, over workers with modes of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from reverie_protocol.jobs import JobState, JobType, ModeInfo, ModeLora, ResidentModel, SwitchParams, Vram
from reverie_protocol.subjects import ModesReloaded, worker_key, worker_modes
from reverie_runtime.bus.port import Message

MODES = {
    "photo": ModeInfo(
        model="xl",
        loaded=True,
        default_size="1024x1024",
        default_steps=30,
        default_guidance=5.0,
        scheduler="DDIM",
        loras=(ModeLora("detail.safetensors", 0.8, "detail"),),
    ),
    "ink": ModeInfo(model="ink.safetensors"),
}
pytestmark = pytest.mark.asyncio(loop_scope="module")

RECORD: dict[str, Any] = {
    "modes": MODES,
    "mode": "photo",
    "default_mode": "photo",
    "unavailable": {"gone": "the model gone is not there"},
    "models": (ResidentModel("xl", ("photo",), 0.5, ("detail.safetensors",)),),
    "vram": Vram(),
    "job_types": (JobType.GENERATE, JobType.SWITCH),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(stage: Any, gateway: Any) -> Any:
    """A worker with modes, that the gateway has heard of."""
    worker = await stage.worker(**RECORD)
    async with asyncio.timeout(20):
        while (await gateway.http.get("/ready")).json()["workers"] != 1:
            await asyncio.sleep(0.02)
    return worker


async def test_modes_are_listed_with_their_defaults_and_loras(gateway: Any, worker: Any) -> None:
    answer = await gateway.http.get("/api/modes")
    assert answer.status_code == 200
    body = answer.json()
    assert body["default_mode"] == "photo"
    assert body["modes"]["photo"] == {
        "model": "xl",
        "loras": [{"path": "detail.safetensors", "strength": 0.8, "adapter_name": "detail"}],
        "default_size": "1024x1024",
        "default_steps": 30,
        "default_guidance": 5.0,
        "scheduler": "DDIM",
        "styles": [],
        "loaded": True,
        "available": True,
        "detail": "",
    }
    assert body["modes"]["gone"]["available"] is False
    assert body["modes"]["gone"]["detail"] == "the model gone is not there"


async def test_without_a_gpu_the_memory_is_zeros_and_the_models_are_there(gateway: Any, worker: Any) -> None:
    body = (await gateway.http.get("/api/vram")).json()
    assert (body["device"], body["total_gb"], body["models_loaded"]) == ("No GPU", 0, 1)
    assert body["models"][0]["name"] == "photo"
    assert body["models"][0]["model_path"] == "xl"
    assert body["models"][0]["loras"] == ["detail.safetensors"]
    status = (await gateway.http.get("/api/models/status")).json()
    assert (status["current_mode"], status["queue_size"]) == ("photo", 0)
    assert status["vram"]["device"] == "No GPU"


async def test_a_switch_is_an_urgent_job_of_the_worker_that_has_the_mode(gateway: Any, worker: Any) -> None:
    answer = await gateway.http.post("/api/modes/switch", json={"mode": "ink", "why": "unknown fields pass"})
    assert answer.status_code == 200
    assert answer.json()["status"] == "queued"
    job = await worker.sees(answer.json()["job_id"])
    assert (job.type, job.state, job.priority) == (JobType.SWITCH, JobState.QUEUED, 0)
    assert job.params == SwitchParams("ink", worker.record.name)
    view = (await gateway.http.delete(f"/v1/jobs/{job.id}")).json()
    assert (view["type"], view["params"]["mode"]) == ("switch", "ink")


async def test_a_switch_to_the_mode_there_is_makes_no_job(gateway: Any, worker: Any) -> None:
    answer = await gateway.http.post("/api/modes/switch", json={"mode": "photo"})
    assert answer.json() == {"status": "already_loaded", "mode": "photo"}


async def test_an_unknown_mode_names_those_there_are_and_a_missing_one_its_reason(
    stage: Any, gateway: Any
) -> None:
    unknown = await gateway.http.post("/api/modes/switch", json={"mode": "nothing"})
    assert unknown.status_code == 404
    assert unknown.json()["code"] == "mode_not_found"
    assert "ink, photo" in unknown.json()["detail"]
    missing = await gateway.http.post("/api/modes/switch", json={"mode": "gone"})
    assert (missing.status_code, missing.json()["code"]) == (503, "model_load_failed")
    assert "gone is not there" in missing.json()["detail"]
    wrong = await gateway.http.post("/api/modes/switch", json={"mode": 7})
    assert wrong.status_code == 422
    assert wrong.json()["detail"][0]["loc"] == ["body", "mode"]


async def test_while_no_worker_takes_jobs_no_mode_is_said_not_to_be_there(own_stage: Any) -> None:
    gateway = await own_stage.gateway()
    for path, body in (("switch", {"mode": "photo"}), ("reload", None)):
        answer = await gateway.http.post(f"/api/modes/{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
        assert answer.headers["retry-after"] == "2"


async def test_a_reload_asks_every_worker_and_a_broken_file_is_a_400(gateway: Any, worker: Any) -> None:
    answers = [
        ModesReloaded(modes=("photo", "new"), default_mode="new"),
        ModesReloaded(error="modes.yml: modes is empty"),
    ]

    async def on_reload(message: Message) -> None:
        await worker.bus.publish(message.reply, msgspec.json.encode(answers.pop(0)))

    key = worker_key(worker.record.name, worker.record.incarnation)
    await worker.bus.subscribe(worker_modes(key), on_reload)
    good = await gateway.http.post("/api/modes/reload")
    assert good.json() == {
        "status": "reloaded",
        "modes_count": 2,
        "modes": ["photo", "new"],
        "default_mode": "new",
    }
    broken = await gateway.http.post("/api/modes/reload")
    assert broken.status_code == 400
    assert broken.json()["code"] == "invalid_modes"
    assert "modes is empty" in broken.json()["detail"]


async def test_loading_and_unloading_by_hand_is_not_implemented(gateway: Any, worker: Any) -> None:
    for name in ("load", "unload"):
        answer = await gateway.http.post(f"/api/models/{name}")
        assert (answer.status_code, answer.json()["code"]) == (501, "not_implemented")


async def test_a_client_cannot_submit_a_switch_as_its_own_job(gateway: Any, worker: Any) -> None:
    answer = await gateway.http.post("/v1/jobs", json={"jobType": "switch", "mode": "ink"})
    assert answer.status_code == 422


async def test_a_model_that_is_being_loaded_shows_in_the_status(gateway: Any, worker: Any) -> None:
    async with gateway.socket() as client:
        await worker.beat(loading="ink", detail="loading ink")
        await client.until("system:status", loading=["ink"])
        await worker.beat(load_progress=0.4)
        await client.until("system:status", loadProgress={"ink": 0.4})
        await worker.beat(loading="", load_progress=0.0, detail="")
        await client.until("system:status", loading=[], loadProgress={})
