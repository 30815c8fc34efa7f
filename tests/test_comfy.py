"""ComfyUI from end to end: a gateway and the bridge in front of a fake ComfyUI, with the workflows that ship."""

from __future__ import annotations

import asyncio
import io
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect

from reverie_comfy_bridge import service as bridge_service
from reverie_comfy_bridge.settings import ComfySettings
from reverie_comfy_bridge.settings import Settings as BridgeSettings
from reverie_gateway import composition as gateway_service
from reverie_gateway.settings import GatewaySettings
from reverie_gateway.settings import Settings as GatewaySettingsTree
from reverie_launcher.__main__ import run
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.clock import SystemClock
from reverie_runtime.health import Health
from reverie_runtime.metrics import Metrics
from reverie_runtime.settings import DrainSettings
from reverie_storage.settings import StorageSettings
from reverie_testing.fake_comfy import FakeComfy
from reverie_testing.nats_server import NatsServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENT_TIMEOUT_S = 60.0
CLOCK = SystemClock()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SimpleNamespace]:
    """A gateway and a bridge without instances on one nats-server, and a fake ComfyUI beside them."""
    folder = tmp_path_factory.mktemp("comfy")
    (folder / "nats").mkdir()
    server = NatsServer(folder / "nats")
    server.start()
    storage, drain = StorageSettings(path=str(folder / "storage")), DrainSettings(deadline_s=5.0)
    async with AsyncExitStack() as stack:
        stack.callback(server.stop)
        gateway_bus = await connect_nats(server.url, name="gateway")
        stack.push_async_callback(gateway_bus.close)
        gateway = await stack.enter_async_context(
            gateway_service.serve(
                GatewaySettingsTree(gateway=GatewaySettings(port=0), storage=storage, drain=drain),
                bus=gateway_bus,
                clock=CLOCK,
                health=Health(),
                metrics=Metrics(),
            )
        )
        bridge_bus = await connect_nats(server.url, name="bridge")
        stack.push_async_callback(bridge_bus.close)
        await stack.enter_async_context(
            bridge_service.serve(
                BridgeSettings(comfy=ComfySettings(name="bridge"), storage=storage, drain=drain),
                bus=bridge_bus,
                clock=CLOCK,
            )
        )
        comfy = await stack.enter_async_context(FakeComfy())
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=gateway.url, timeout=EVENT_TIMEOUT_S, trust_env=False)
        )
        made = await http.put("/v1/comfy/instances/gpu", json={"url": comfy.url})
        assert made.status_code == 201, made.text
        yield SimpleNamespace(
            url=gateway.url, http=http, ws_url=gateway.url.replace("http", "ws") + "/v1/ws", comfy=comfy
        )


async def message_of(socket: ClientConnection, **fields: Any) -> dict[str, Any]:
    """The next message whose fields are as given."""
    async with asyncio.timeout(EVENT_TIMEOUT_S):
        while True:
            frame = await socket.recv()
            if isinstance(frame, str) and fields.items() <= (message := json.loads(frame)).items():
                return dict(message)


async def workflow(platform: SimpleNamespace, name: str) -> dict[str, Any]:
    """A workflow, once the instance has it to offer."""
    async with asyncio.timeout(EVENT_TIMEOUT_S):
        while True:
            found = (await platform.http.get(f"/v1/comfy/workflows/{name}")).json()
            if found["available"] or found["unavailable"]:
                return dict(found)
            await asyncio.sleep(0.05)


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 32), "red").save(file, "PNG")
    return file.getvalue()


async def test_a_form_with_an_image_becomes_a_picture_by_a_workflow_that_ships(
    platform: SimpleNamespace,
) -> None:
    offered = await workflow(platform, "filters")
    assert (offered["available"], offered["inputImage"]) == (["gpu"], "optional")
    async with connect(platform.ws_url, proxy=None, max_queue=None) as socket:
        form = {"workflowId": "filters", "params": json.dumps({"width": 64, "height": 64, "blur": 3})}
        answer = await platform.http.post(
            "/v1/comfy/jobs", data=form, files={"image": ("a.png", picture(), "image/png")}
        )
        assert answer.status_code == 200, answer.text
        job_id = answer.json()["id"]
        ended = await message_of(socket, type="job:complete", jobId=job_id)
    assert ended["meta"]["workflow"] == "filters"
    body = (await platform.http.get(f"/v1/comfy/jobs/{job_id}")).json()
    assert (body["status"], body["progress"]["fraction"], body["comfy"]["instance"]) == ("done", 1.0, "gpu")
    [output] = body["outputs"]
    assert output["subfolder"] == "reverie"
    stored = await platform.http.get(output["url"])
    assert Image.open(io.BytesIO(stored.content)).format == "PNG"


async def test_what_comfyui_would_refuse_is_refused_before_there_is_a_job(platform: SimpleNamespace) -> None:
    await workflow(platform, "filters")
    before = (await platform.http.get("/v1/jobs")).json()["total"]
    wrong = await platform.http.post(
        "/v1/comfy/jobs", json={"workflowId": "filters", "params": {"blur": 99, "shade": 1}}
    )
    assert wrong.status_code == 422
    assert [entry["loc"][1:] for entry in wrong.json()["detail"]] == [["params", "shade"], ["params", "blur"]]
    unknown = await platform.http.post("/v1/comfy/jobs", json={"workflowId": secrets.token_hex(4)})
    assert (unknown.status_code, unknown.json()["code"]) == (400, "workflow_not_found")
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    bad = await platform.http.post("/v1/comfy/jobs", json={"workflow": graph})
    assert [(each["node"], each["type"]) for each in bad.json()["nodeErrors"]] == [
        ("1", "value_smaller_than_min")
    ]
    assert (await platform.http.get("/v1/jobs")).json()["total"] == before


async def test_the_command_line_runs_a_workflow_and_saves_what_it_makes(
    platform: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await workflow(platform, "filters")
    monkeypatch.setenv("REVERIE_URL", platform.url)
    (tmp_path / "in.png").write_bytes(picture())

    async def reverie(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, ["comfy", *arguments])
        shown = capsys.readouterr()
        # The services' logs go to the same place here.
        lines = [line for line in shown.out.splitlines(keepends=True) if not re.match(r"20\d\d-", line)]
        return code, "".join(lines), shown.err

    code, out, _ = await reverie("workflows")
    assert code == 0
    assert "image_to_image" in out
    code, out, _ = await reverie("instances")
    assert (code, "connected" in out) == (0, True)
    code = await asyncio.to_thread(run, ["status"])
    assert (code, "ComfyUI gpu" in capsys.readouterr().out) == (0, True)
    made = tmp_path / "made.png"
    image = str(tmp_path / "in.png")
    code, out, err = await reverie(
        "run", "filters", "width=64", "height=64", "--image", image, "-o", str(made)
    )
    assert (code, out) == (0, f"{made}\n"), err
    assert Image.open(made).format == "PNG"
    code, out, _ = await reverie(
        "run", "filters", f"image=@{image}", "width=64", "-o", str(tmp_path), "--json"
    )
    assert code == 0
    assert Path(json.loads(out)["outputs"][0]["file"]).parent == tmp_path
    code, _, err = await reverie("run", "filters", "blur=99", "shade=x")
    assert (code, "Shade unknown field; blur must be 1..31." in err) == (2, True), err
    code, _, err = await reverie("run", "nothing")
    assert (code, "filters" in err) == (2, True)
    code, out, _ = await reverie("drain", "gpu")
    assert (code, out.startswith(f"gpu: {platform.comfy.url}, connected, draining")) == (0, True)
    assert (await reverie("drain", "gpu", "--undo"))[0] == 0
    code, out, _ = await reverie("add", "other", "http://169.254.1.1")
    assert code == 2
    code, out, _ = await reverie("add", "other", "http://127.0.0.1:9", "--tag", "big")
    assert (code, out) == (0, "other: http://127.0.0.1:9, disconnected\n")
    assert (await reverie("remove", "other"))[:2] == (0, "other: taken out\n")


async def test_an_instance_that_moves_or_drains_at_run_time_takes_its_work_with_it(
    platform: SimpleNamespace,
) -> None:
    await workflow(platform, "filters")

    async def ran() -> str:
        answer = await platform.http.post("/v1/comfy/jobs", json={"workflowId": "filters"})
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            while True:
                body = (await platform.http.get(f"/v1/comfy/jobs/{answer.json()['id']}")).json()
                if body["status"] not in ("queued", "running"):
                    assert body["status"] == "done", body
                    return str(body["comfy"]["instance"])
                await asyncio.sleep(0.02)

    async def status_of(name: str, **fields: Any) -> None:
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            while True:
                told = (await platform.http.get("/v1/system/status")).json()["comfy"]
                if any({"name": name, **fields}.items() <= each.items() for each in told):
                    return
                await asyncio.sleep(0.02)

    async with FakeComfy() as other:
        await platform.http.put("/v1/comfy/instances/second", json={"url": other.url})
        await status_of("second", status="connected")
        await platform.http.put("/v1/comfy/instances/gpu", json={"draining": True})
        await status_of("gpu", draining=True)
        assert await ran() == "second"
        moved = await platform.http.put("/v1/comfy/instances/second", json={"url": platform.comfy.url})
        assert moved.json()["url"] == platform.comfy.url
        await status_of("second", status="connected")
        assert await ran() == "second"
        assert (await platform.http.delete("/v1/comfy/instances/second")).status_code == 200
        await platform.http.put("/v1/comfy/instances/gpu", json={"draining": False})
        await status_of("gpu", draining=False)
        assert await ran() == "gpu"
