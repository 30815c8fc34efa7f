"""Clients of other APIs, and scripts of the old frontend, against the whole product."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import webuiapi
from PIL import Image

from reverie_testing.product import Product, until

PROMPT = "a red circle on a blue background"
STEPS = 100


@pytest.fixture(scope="module")
def client(product: Product) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with openai.OpenAI(base_url=f"{product.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def api(product: Product) -> webuiapi.WebUIApi:
    """A client of A1111's API."""
    return webuiapi.WebUIApi(port=int(product.url.rpartition(":")[2]), steps=4)


def opened(text: str | None) -> Image.Image:
    """A picture from base64."""
    return Image.open(io.BytesIO(base64.b64decode(text or "")))


def png(image: Image.Image) -> bytes:
    """An encoded picture."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_openais_client_gets_its_pictures_and_each_is_a_job(product: Product, client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, n=2, size="64x64", extra_body={"seed": 3})
    assert answer.data is not None
    first, second = (opened(datum.b64_json) for datum in answer.data)
    assert first.size == second.size == (64, 64)
    assert "Seed: 3" in first.info["parameters"]
    assert "Seed: 4" in second.info["parameters"]
    for job_id in answer.to_dict()["meta"]["job_ids"]:
        assert product.job(job_id)["state"] == "completed"


def test_openais_client_sees_a_picture_come_along(client: openai.OpenAI) -> None:
    stream = client.images.generate(
        prompt=PROMPT, size="64x64", stream=True, partial_images=3, extra_body={"steps": STEPS}
    )
    events = list(stream)
    assert events[-1].type == "image_generation.completed"
    partials = [event for event in events if event.type == "image_generation.partial_image"]
    assert partials
    assert [event.partial_image_index for event in partials] == list(range(len(partials)))
    for event in events:
        assert opened(event.b64_json).size == tuple(map(int, event.size.split("x")))


def test_openais_client_edits_under_a_mask_and_keeps_what_is_outside(client: openai.OpenAI) -> None:
    mask = Image.new("RGBA", (64, 64), "black")
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    answer = client.images.edit(
        image=("blue.png", png(Image.new("RGB", (64, 64), "blue"))),
        mask=("mask.png", png(mask)),
        prompt="a red circle on a white background",
    )
    assert answer.data is not None
    edited = opened(answer.data[0].b64_json).convert("RGB")
    assert edited.size == (64, 64)
    red, green, blue = edited.getpixel((60, 32))
    assert blue > 150 > max(red, green)


def test_a1111s_client_gets_batches_and_pictures_from_pictures(api: webuiapi.WebUIApi) -> None:
    made = api.txt2img(prompt=PROMPT, seed=20, batch_size=2, n_iter=2, width=64, height=64)
    assert made.info["all_seeds"] == [20, 21, 22, 23]
    assert [image.size for image in made.images] == [(64, 64)] * 4
    assert ["Seed: 21" in image.info["parameters"] for image in made.images] == [False, True, False, False]
    again = api.img2img(images=[made.images[0]], prompt=PROMPT, width=64, height=64, steps=8)
    assert again.image.size == (64, 64)
    assert again.info["denoising_strength"] == 0.75
    larger = api.extra_single_image(made.images[0], upscaler_1="Reverie")
    assert larger.image.size == (128, 128)


def test_a1111s_client_follows_its_request_and_interrupts_it(
    product: Product, api: webuiapi.WebUIApi
) -> None:
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(api.txt2img(prompt=PROMPT, n_iter=8, steps=150, width=64, height=64))
    )
    asking.start()
    seen = until(lambda: (told := api.get_progress())["current_image"] and told, "a preview of a request")
    assert 0 < seen["progress"] < 1
    assert seen["state"]["job_count"] == 8
    assert seen["state"]["sampling_steps"] == 150
    assert opened(seen["current_image"]).format == "JPEG"
    api.interrupt()
    asking.join(60)
    # They may all have been in work at once, and then each leaves what it had drawn.
    assert len(answers[0].images) <= 8
    jobs = httpx.get(f"{product.url}/v1/jobs?limit=8").json()["jobs"]
    assert {job["state"] for job in jobs} >= {"cancelled"}
    assert api.get_progress()["state"]["job_count"] == 0


def test_a1111s_client_chooses_among_what_there_is(api: webuiapi.WebUIApi) -> None:
    (name,) = api.util_get_model_names()
    assert "Euler a" in api.util_get_sampler_names()
    api.util_set_model(name)
    assert api.util_get_current_model() == name
    with pytest.raises(RuntimeError, match="tiling"):
        api.txt2img(prompt=PROMPT, tiling=True)


def curl(folder: Path, *arguments: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what curl was answered."""
    body, head = folder / "body", folder / "head"
    command = ["curl", "-sS", "--max-time", "60", "-o", str(body), "-D", str(head), *arguments]
    subprocess.run(command, check=True)
    lines = head.read_text().splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body.read_bytes()


def test_curl_scripts_of_the_old_frontend_work_unchanged(product: Product, tmp_path: Path) -> None:
    url, json_type = product.url, ("-H", "Content-Type: application/json")
    status, _, body = curl(tmp_path, f"{url}/api/modes")
    modes = json.loads(body)
    assert status == 200
    mode = modes["default_mode"]
    assert modes["modes"][mode]["default_size"]
    status, _, body = curl(tmp_path, *json_type, "-d", json.dumps({"mode": mode}), f"{url}/api/modes/switch")
    assert (status, json.loads(body)["status"]) == (200, "already_loaded")
    status, _, body = curl(tmp_path, "-X", "POST", f"{url}/api/modes/reload")
    reloaded = {"status": "reloaded", "modes_count": 1, "modes": [mode], "default_mode": mode}
    assert (status, json.loads(body)) == (200, reloaded)
    status, _, body = curl(tmp_path, f"{url}/api/models/status")
    assert (status, json.loads(body)["current_mode"]) == (200, mode)
    status, _, body = curl(tmp_path, f"{url}/api/vram")
    vram = json.loads(body)
    assert (status, vram["models_loaded"], len(vram["models"])) == (200, 1, 1)
    assert {"name", "model_path", "vram_gb", "loras"} <= vram["models"][0].keys()
    figures = ("total_gb", "allocated_gb", "used_gb", "available_gb", "usage_percent")
    assert vram["device"] == "No GPU" or vram["total_gb"] > 0
    assert all(vram[name] >= 0 for name in figures)

    order = {
        "prompt": PROMPT,
        "mode": mode,
        "size": "64x64",
        "num_inference_steps": 4,
        "seed": 5,
        "old": True,
    }
    status, headers, picture = curl(tmp_path, *json_type, "-d", json.dumps(order), f"{url}/generate")
    assert (status, headers["content-type"], headers["x-seed"]) == (200, "image/png", "5")
    assert Image.open(io.BytesIO(picture)).size == (64, 64)

    key = headers["x-lcm-image-key"]
    status, headers, stored = curl(tmp_path, f"{url}/storage/{key}")
    assert (status, headers["x-storage-key"], stored) == (200, key, picture)
    status, _, body = curl(
        tmp_path, "-X", "PUT", *json_type, "-d", '{"payload": "a note"}', f"{url}/storage/a:note"
    )
    assert (status, json.loads(body)) == (200, {"ok": True, "key": "a:note"})
    assert curl(tmp_path, f"{url}/storage/a:note")[2] == b"a note"

    file = tmp_path / "picture.png"
    file.write_bytes(picture)
    form = ("-F", f"file=@{file}", "-F", "magnitude=1", "-F", "out_format=jpeg")
    status, headers, larger = curl(tmp_path, *form, f"{url}/superres")
    assert (status, headers["content-type"], headers["x-sr-passes"]) == (200, "image/jpeg", "1")
    assert Image.open(io.BytesIO(larger)).size == (128, 128)
    status, _, body = curl(tmp_path, "-F", f"file=@{file}", f"{url}/v1/upload")
    assert status == 200
    job = {"jobType": "sr", "fileRef": f"fileRef:{json.loads(body)['fileRef']}", "magnitude": 1}
    accepted = httpx.post(f"{url}/v1/jobs", json=job, timeout=10)
    assert product.finished(accepted.json()["jobId"])["state"] == "completed"
    assert json.loads(curl(tmp_path, f"{url}/health")[2]) == {"status": "ok"}
