"""A1111's API with a client of its own: batches, progress of each request, interrupts, settings."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time

import pytest
import pytest_asyncio
import webuiapi
from PIL import Image

from reverie_gateway.settings import AuthSettings
from reverie_gateway.tokens import issue
from reverie_jobs.transitions import complete
from reverie_protocol.jobs import JobMeta, JobType, ModeInfo, ModeLora, Output
from reverie_storage.port import url_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of at least thirty-two bytes"
MODES = {
    "tiny": ModeInfo(model="models/tiny", default_size="64x64", styles=("ink",)),
    "large": ModeInfo(model="models/large", loras=(ModeLora("loras/ink.safetensors", 0.5, "ink"),)),
}
SCHEDULERS = ("Euler a", "DPM++ 2M", "DPM++ 2M Karras")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(stage, gateway):
    """The module's worker, which serves two modes and enlarges."""
    worker = await stage.worker(
        modes=MODES, schedulers=SCHEDULERS, job_types=(JobType.GENERATE, JobType.SR, JobType.SWITCH)
    )
    async with gateway.socket() as client:
        while not (await client.until("system:status"))["workers"]:
            continue
    return worker


@pytest_asyncio.fixture(loop_scope="module")
async def api(gateway, worker):
    """The client; it blocks, so call it through `said`."""
    return await said(webuiapi.WebUIApi, port=gateway.port, steps=4)


async def said(function, *arguments, **options):
    """What a function that blocks returns."""
    return await asyncio.to_thread(function, *arguments, **options)


def picture(colour="teal", size=(16, 16), mode="RGB"):
    return Image.new(mode, size, colour)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


async def do_next(worker, colour="teal"):
    """Do the next job, with a real picture."""
    held = await worker.claim((await worker.next_job()).id)
    return await worker.complete(held, content=png(picture(colour)))


async def test_batches_are_that_many_pictures_with_seeds_in_a_row(gateway, worker, api, prompt):
    asked = asyncio.create_task(
        said(api.txt2img, prompt=prompt, seed=41, batch_size=2, n_iter=2, width=128, height=64, cfg_scale=3)
    )
    jobs = [await do_next(worker, colour) for colour in ("red", "green", "blue", "white")]
    answer = await asked
    assert [job.params.seed for job in jobs] == answer.info["all_seeds"] == [41, 42, 43, 44]
    assert [image.getpixel((0, 0)) for image in answer.images] == [
        (255, 0, 0),
        (0, 128, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]
    assert answer.info["seed"] == 41
    assert answer.info["all_prompts"] == [prompt] * 4
    assert len(answer.info["infotexts"]) == 4
    assert f"{prompt}\nSteps: " in answer.info["infotexts"][0]
    assert "Seed: 41" in answer.info["infotexts"][0]
    assert answer.parameters["width"] == 128
    params = jobs[0].params
    assert (params.size, params.guidance_scale, params.num_inference_steps) == ("128x64", 3, 4)
    assert params.scheduler == "Euler a"
    views = [(await gateway.http.get(f"/v1/jobs/{job_id}")).json() for job_id in answer.info["job_ids"]]
    assert {view["state"] for view in views} == {"completed"}


async def test_a_random_seed_is_drawn_and_the_next_pictures_count_on_from_it(worker, gateway, prompt):
    body = {"prompt": prompt, "batch_size": 2, "send_images": False}
    asked = asyncio.create_task(gateway.http.post("/sdapi/v1/txt2img", json=body))
    await do_next(worker)
    await do_next(worker)
    answer = (await asked).json()
    seeds = json.loads(answer["info"])["all_seeds"]
    assert seeds[1] == (seeds[0] + 1) % 2**32
    assert answer["images"] == []


@pytest.mark.parametrize(
    ("sampler", "scheduler", "used"),
    [
        ("DPM++ 2M", "karras", "DPM++ 2M Karras"),
        ("DPM++ 2M", "Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M Karras", "karras", "DPM++ 2M Karras"),
        ("DPM++ 2M", "normal", "DPM++ 2M"),
        ("DPM++ 2M", "Automatic", "DPM++ 2M"),
    ],
)
async def test_samplers_and_their_schedules_are_ours(worker, gateway, prompt, sampler, scheduler, used):
    body = {"prompt": prompt, "sampler_name": sampler, "scheduler": scheduler}
    asked = asyncio.create_task(gateway.http.post("/sdapi/v1/txt2img", json=body))
    job = await do_next(worker)
    assert job.params.scheduler == used
    assert (await asked).status_code == 200


async def test_a_mode_of_this_request_alone_is_honoured(worker, gateway, prompt):
    settings = {"sd_model_checkpoint": "large [0123abcdef]", "CLIP_stop_at_last_layers": 1}
    body = {"prompt": prompt, "override_settings": settings}
    asked = asyncio.create_task(gateway.http.post("/sdapi/v1/txt2img", json=body))
    assert (await do_next(worker)).params.mode == "large"
    assert json.loads((await asked).json()["info"])["sd_model_name"] == "large"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"tiling": True}, "tiling"),
        ({"restore_faces": True}, "restore_faces"),
        ({"enable_hr": True}, "enable_hr"),
        ({"styles": ["ink"]}, "styles"),
        ({"subseed_strength": 0.5}, "subseed_strength"),
        ({"eta": 0.3}, "eta"),
        ({"script_name": "x/y plot"}, "script_name"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"model": "canny"}]}}}, "alwayson_scripts"),
        ({"override_settings": {"eta_noise_seed_delta": 31337}}, "eta_noise_seed_delta"),
        ({"override_settings_restore_afterwards": False}, "override_settings_restore_afterwards"),
        ({"sampler_name": "none such"}, "sampler_name"),
        ({"sampler_name": "Euler a", "scheduler": "karras"}, "scheduler"),
        ({"scheduler": "exponential", "sampler_name": "DPM++ 2M"}, "scheduler"),
        ({"prompt": "x <lora:ink:1>"}, "prompt"),
        ({"batch_size": 9}, "batch_size"),
        ({"n_iter": 0}, "n_iter"),
        ({"width": 65}, "width"),
        ({"seed": -2}, "seed"),
        ({"force_task_id": "two words"}, "force_task_id"),
        ({"clip_skip": 2}, "clip_skip"),
        ({"negativ_prompt": "x"}, "negativ_prompt"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(gateway, worker, prompt, wrong, field):
    answer = await gateway.http.post("/sdapi/v1/txt2img", json={"prompt": prompt} | wrong)
    assert answer.status_code == 422
    assert [entry["loc"][-1] for entry in answer.json()["detail"]] == [field]
    assert not worker.mirror.queued


async def test_scripts_that_do_nothing_may_be_named(gateway, worker, prompt):
    scripts = {"ControlNet": {"args": []}, "ADetailer": {"args": [False]}}
    body = {"prompt": prompt, "alwayson_scripts": scripts}
    asked = asyncio.create_task(gateway.http.post("/sdapi/v1/txt2img", json=body))
    await do_next(worker)
    assert (await asked).status_code == 200


async def test_img2img_starts_from_a_picture_in_its_body_and_draws_under_the_mask(worker, api, prompt):
    mask = picture("black", (16, 16), "L")
    asked = asyncio.create_task(
        said(
            api.img2img,
            images=[picture("red")],
            mask_image=mask,
            inpainting_mask_invert=1,
            prompt=prompt,
            denoising_strength=0.4,
            width=64,
            height=64,
            n_iter=2,
        )
    )
    first, second = await do_next(worker), await do_next(worker)
    answer = await asked
    assert len(answer.images) == 2
    assert (answer.parameters["init_images"], answer.parameters["mask"]) == (None, None)
    assert first.params.initImage == second.params.initImage
    assert (first.params.strength, first.params.size) == (0.4, "64x64")
    kept = Image.open(io.BytesIO(await read(worker.storage, first.params.initImage)))
    assert kept.getpixel((0, 0)) == (255, 0, 0)
    inverted = Image.open(io.BytesIO(await read(worker.storage, first.params.maskImage)))
    assert inverted.getpixel((0, 0)) == 255


@pytest.mark.parametrize(
    ("wrong", "status", "told"),
    [
        ({"init_images": []}, 422, "takes one picture"),
        ({"init_images": ["no base64!"]}, 422, "must be a picture in base64"),
        (
            {"init_images": [base64.b64encode(b"no picture").decode()]},
            415,
            "init_images: the file is no picture",
        ),
        ({"init_images": [""]}, 400, "empty"),
        ({"resize_mode": 1, "width": 64, "height": 64}, 422, "must be 0 where the picture has another size"),
        ({"resize_mode": 3}, 422, "resize_mode"),
        ({"denoising_strength": 0}, 422, "denoising_strength"),
        ({"mask": base64.b64encode(png(picture())).decode(), "mask_blur": 9}, 422, "mask_blur"),
        ({"include_init_images": True}, 422, "include_init_images"),
    ],
)
async def test_pictures_that_cannot_be_drawn_from_are_refused(gateway, worker, prompt, wrong, status, told):
    body = {"prompt": prompt, "init_images": [base64.b64encode(png(picture())).decode()], "steps": 4}
    answer = await gateway.http.post("/sdapi/v1/img2img", json=body | wrong)
    assert answer.status_code == status
    assert told in answer.text
    assert not worker.mirror.queued


async def test_bodies_with_pictures_may_be_large_within_a_setting(stage, worker, prompt):
    narrow = await stage.gateway(base64_mb=2.0)
    async with narrow.socket() as client:
        while not (await client.until("system:status"))["workers"]:
            continue
    noise = Image.effect_noise(
        (1200, 1100), 100
    )  # 1.3 MB, as base64 more than a JSON body may have elsewhere
    body = {
        "prompt": prompt,
        "init_images": [base64.b64encode(png(noise)).decode()],
        "width": 64,
        "height": 64,
    }
    asked = asyncio.create_task(narrow.http.post("/sdapi/v1/img2img", json=body))
    await do_next(worker)
    assert (await asked).status_code == 200
    for size in (2_100_000, None):
        answer = await narrow.http.post(
            "/sdapi/v1/img2img", content=blanks(2_100_000) if size is None else b" " * size
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_pictures_that_arrive_at_once_are_bounded_together(stage, worker, prompt):
    narrow = await stage.gateway(base64_mb=0.1)
    head = b"POST /sdapi/v1/img2img HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104000\r\n\r\n"
    half_sent = [await asyncio.open_connection("127.0.0.1", narrow.port) for _ in range(8)]
    for _, writer in half_sent:
        writer.write(head + b" " * 103_999)
        await writer.drain()
    answer = await narrow.http.post("/sdapi/v1/img2img", content=b" " * 50_000)
    while answer.status_code != 429:  # their bytes are still on their way
        assert answer.status_code == 400
        answer = await narrow.http.post("/sdapi/v1/img2img", content=b" " * 50_000)
    assert answer.json()["code"] == "rate_limited"
    assert int(answer.headers["retry-after"]) >= 1
    for _, writer in half_sent:
        writer.close()
        await writer.wait_closed()
    while answer.status_code == 429:
        answer = await narrow.http.post("/sdapi/v1/img2img", content=b" " * 50_000)
    assert answer.status_code == 400


async def blanks(count):
    """A body whose length nobody told."""
    for _ in range(count // 100_000):
        yield b" " * 100_000


async def test_progress_is_that_of_the_callers_request_under_its_own_name(gateway, worker, api, prompt):
    asked = {
        name: asyncio.create_task(
            gateway.http.post(
                "/sdapi/v1/txt2img",
                json={"prompt": prompt, "n_iter": count, "force_task_id": name, "steps": 4},
            )
        )
        for name, count in (("task(one)", 2), ("task(two)", 1))
    }
    await until(lambda: len(worker.mirror.queued) == 3)
    ones = sorted(of_task(worker, "task(one)"), key=lambda job: job.position)
    await worker.complete(await worker.claim(ones[0].id), content=png(picture()))
    held = await worker.claim(ones[1].id)
    progress = await until_progress(gateway, held, worker, "task(one)")
    assert progress["progress"] == 0.75
    state = progress["state"]
    assert (state["job_count"], state["job_no"], state["sampling_step"], state["sampling_steps"]) == (
        2,
        1,
        2,
        4,
    )
    assert progress["current_task"] == "task(one)"
    assert (await said(api.get_progress))["current_task"] == "task(one)"  # the one that runs
    waiting = (await gateway.http.get("/sdapi/v1/progress?id_task=task(two)")).json()
    assert (waiting["progress"], waiting["state"]["job_count"]) == (0.0, 1)
    assert (await task_progress(gateway, "task(two)"))["queued"] is True
    active = await task_progress(gateway, "task(one)")
    assert (active["active"], active["progress"]) == (True, 0.75)
    await worker.preview(held, 3, picture=b"on the way")
    shown = await until_shown(gateway, worker, held)
    assert base64.b64decode(shown) == b"on the way"
    await worker.complete(held, content=png(picture()))
    await do_next(worker)
    for answer in asked.values():
        assert (await answer).status_code == 200
    assert (await task_progress(gateway, "task(one)"))["completed"] is True
    assert (await task_progress(gateway, "task(none)")) == {
        "active": False,
        "queued": False,
        "completed": False,
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": None,
        "textinfo": "Waiting...",
    }
    idle = await said(api.get_progress)
    assert (idle["progress"], idle["state"]["job_count"]) == (0.0, 0)


async def test_an_interrupt_stops_the_callers_pictures_and_gives_what_there_is(own_stage, prompt):
    closed = await own_stage.gateway(auth=AuthSettings(key=SECRET))
    worker = await own_stage.worker(schedulers=SCHEDULERS)
    asked = {}
    for owner in ("alice", "bob"):
        token = issue(SECRET, owner=owner, now=time.time(), lifetime_s=600)
        closed.http.headers["Authorization"] = f"Bearer {token}"
        await until_served(closed)
        body = {"prompt": prompt, "n_iter": 2, "steps": 9, "force_task_id": f"{owner}s"}
        asked[owner] = asyncio.create_task(closed.http.post("/sdapi/v1/txt2img", json=body))
        await until(lambda owner=owner: len(of_owner(worker, owner)) == 2)
    held = await worker.claim(min(of_owner(worker, "alice"), key=lambda job: job.position).id)
    token = issue(SECRET, owner="alice", now=time.time(), lifetime_s=600)
    stopped = await closed.http.post("/sdapi/v1/interrupt", headers={"Authorization": f"Bearer {token}"})
    assert (stopped.status_code, stopped.json()) == (200, None)
    await worker.sees(held.job_id, lambda job: job.cancel)
    await worker.cancelled(held, partial=png(picture("red")))
    answer = (await asked["alice"]).json()
    assert len(answer["images"]) == 1
    assert len(json.loads(answer["info"])["all_seeds"]) == 1
    assert len(of_owner(worker, "bob")) == 2
    alice = {"Authorization": f"Bearer {token}"}
    theirs = await closed.http.get("/sdapi/v1/progress?id_task=bobs", headers=alice)
    assert theirs.json()["state"]["job_count"] == 0
    assert (await closed.http.get("/sdapi/v1/progress?id_task=bobs")).json()["state"]["job_count"] == 2
    await do_next(worker)
    await do_next(worker)
    assert len((await asked["bob"]).json()["images"]) == 2
    assert (await closed.http.post("/sdapi/v1/options", json={})).status_code == 403


async def test_a_failed_picture_fails_the_request_and_names_all_jobs(gateway, worker, prompt):
    body = {"prompt": prompt, "batch_size": 2}
    asked = asyncio.create_task(gateway.http.post("/sdapi/v1/txt2img", json=body))
    await do_next(worker)
    await worker.fail(await worker.claim((await worker.next_job()).id), "out_of_memory")
    answer = await asked
    assert (answer.status_code, answer.json()["code"]) == (500, "out_of_memory")
    assert len(answer.json()["jobIds"]) == 2


async def test_a_full_queue_is_a_429_before_any_job_is_made(stage, worker, prompt):
    small = await stage.gateway(max_queued=3)
    await until_served(small)
    answer = await small.http.post("/sdapi/v1/txt2img", json={"prompt": prompt, "batch_size": 2, "n_iter": 2})
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    assert not worker.mirror.queued


async def test_a_batch_that_a_frozen_nats_did_not_take_never_runs(own_stage, prompt):
    gateway = await own_stage.gateway()
    worker = await own_stage.worker()
    await until_served(gateway)
    body = {"prompt": prompt, "batch_size": 2}
    own_stage.server.pause()
    try:
        answer = await gateway.http.post("/sdapi/v1/txt2img", json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    finally:
        own_stage.server.resume()
    later = await gateway.http.post("/v1/jobs", json={"jobType": "generate", "prompt": prompt})
    while later.status_code == 503:
        await asyncio.sleep(0.05)
        later = await gateway.http.post("/v1/jobs", json={"jobType": "generate", "prompt": prompt})
    accepted = later.json()["jobId"]
    await worker.sees(accepted)
    for job in list(worker.mirror):
        if job.id != accepted:
            await worker.sees(job.id, lambda job: job.state == "cancelled")
    assert list(worker.mirror.queued) == [accepted]


async def test_what_there_is_comes_from_the_modes_and_the_workers(api):
    assert await said(api.util_get_model_names) == ["large", "tiny"]
    checkpoint = (await said(api.get_sd_models))[1]
    assert checkpoint.keys() == {"title", "model_name", "filename", "hash", "sha256", "config"}
    assert (checkpoint["title"], checkpoint["filename"]) == ("tiny", "models/tiny")
    assert [sampler["name"] for sampler in await said(api.get_samplers)] == list(SCHEDULERS)
    assert await said(api.util_get_scheduler_names) == ["automatic", "karras", "normal"]
    assert [upscaler["name"] for upscaler in await said(api.get_upscalers)] == ["Reverie"]
    assert [(lora["name"], lora["path"]) for lora in await said(api.get_loras)] == [
        ("ink", "loras/ink.safetensors")
    ]
    assert await said(api.util_get_current_model) == "tiny"
    assert await said(api.get_scripts) == {"txt2img": [], "img2img": []}
    assert (await said(api.get_memory))["cuda"]["system"]["total"] == 8e9
    for listed in (api.get_sd_vae, api.get_hypernetworks, api.get_face_restorers, api.get_prompt_styles):
        assert await said(listed) == []


async def test_another_checkpoint_is_a_switch_that_is_waited_for(gateway, worker, api):
    asked = asyncio.create_task(said(api.util_set_model, "large"))
    job = await worker.next_job()
    assert (job.type, job.params.mode) == (JobType.SWITCH, "large")
    held = await worker.claim(job.id)
    await worker.beat(mode="large")
    await worker._end(held, lambda job, now: complete(job, held, outputs=(), meta=None, now=now))
    await asked
    assert await said(api.util_get_current_model) == "large"
    await worker.beat(mode="tiny")


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        ({"sd_model_checkpoint": "none such"}, 404, "there is no mode"),
        ({"sd_model_checkpoint": 7}, 422, "sd_model_checkpoint"),
        ({"CLIP_stop_at_last_layers": 2}, 422, "CLIP_stop_at_last_layers"),
        ({"face_restoration_model": "GFPGAN"}, 422, "face_restoration_model"),
        ([], 422, "must be an object"),
        ({"samples_format": "png"}, 200, "null"),
    ],
)
async def test_settings_that_cannot_change_are_refused(gateway, worker, options, status, told):
    answer = await gateway.http.post("/sdapi/v1/options", json=options)
    assert answer.status_code == status
    assert told in answer.text


async def test_a_single_picture_is_enlarged_as_a_job_of_super_resolution(worker, api):
    asked = asyncio.create_task(
        said(api.extra_single_image, picture(), upscaler_1="Reverie", upscaling_resize=4)
    )
    held = await worker.claim((await worker.next_job()).id)
    job = worker.mirror.get(held.job_id)
    assert (job.type, job.params.magnitude) == (JobType.SR, 2)
    key = await worker.storage.put(png(picture("red", (64, 64))), content_type="image/png")
    meta = JobMeta(seed=0, backend="bench", sr=True, sr_model="bench-sr", sr_scale_per_pass=2)
    outputs = (Output(url=url_of(key), key=key, content_type="image/png"),)
    await worker._end(held, lambda job, now: complete(job, held, outputs=outputs, meta=meta, now=now))
    answer = await asked
    assert answer.image.size == (64, 64)
    assert answer.info == "bench-sr x4"


async def test_a_picture_is_enlarged_by_what_the_model_makes_of_it(gateway, worker, api):
    await worker.beat(superres_scale=4)
    while (await said(api.get_upscalers))[0]["scale"] != 4:
        pass
    body = {"image": base64.b64encode(png(picture())).decode(), "upscaler_1": "Reverie"}
    for factor, told in ((2, "one of 4, 16, 64"), (4.5, "one of 4, 16, 64")):
        answer = await gateway.http.post(
            "/sdapi/v1/extra-single-image", json=body | {"upscaling_resize": factor}
        )
        assert answer.status_code == 422
        assert told in answer.text
    asked = asyncio.create_task(
        said(api.extra_single_image, picture(), upscaler_1="Reverie", upscaling_resize=4)
    )
    held = await worker.claim((await worker.next_job()).id)
    assert worker.mirror.get(held.job_id).params.magnitude == 1
    await worker.fail(held, "inference_failed", "that is enough")
    with pytest.raises(RuntimeError, match="that is enough"):
        await asked
    await worker.beat(superres_scale=2)


async def test_a_strength_that_leaves_no_step_is_refused_before_there_is_a_job(gateway, worker):
    body = {"init_images": [base64.b64encode(png(picture())).decode()], "prompt": "x", "steps": 1}
    answer = await gateway.http.post("/sdapi/v1/img2img", json=body)
    assert answer.status_code == 422
    (wrong,) = answer.json()["detail"]
    assert (wrong["loc"], wrong["type"]) == (["body", "denoising_strength"], "conflict")
    assert "jobId" not in answer.json()


async def test_null_within_a_style_is_refused_by_name(gateway, worker):
    body = {"prompt": "x", "style_lora": {"style": None, "level": None}}
    answer = await gateway.http.post("/sdapi/v1/txt2img", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "style_lora", "level"]


@pytest.mark.parametrize(
    "wrong", [{"upscaler_1": "None"}, {"upscaling_resize": 3}, {"gfpgan_visibility": 1}, {"resize_mode": 1}]
)
async def test_enlargements_that_cannot_be_made_are_refused(gateway, worker, wrong):
    body = {"image": base64.b64encode(png(picture())).decode(), "upscaler_1": "Reverie"} | wrong
    answer = await gateway.http.post("/sdapi/v1/extra-single-image", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][-1] in wrong


def of_owner(worker, owner):
    return [job for job in worker.mirror.queued.values() if job.owner == owner]


def of_task(worker, task):
    return [job for job in worker.mirror.queued.values() if f" {task} " in (job.idempotency_key or "")]


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def until_served(gateway):
    async def serves():
        return (await gateway.http.get("/sdapi/v1/sd-models")).json()

    async with asyncio.timeout(20):
        while not await serves():
            await asyncio.sleep(0.05)


async def until_progress(gateway, held, worker, task):
    """The progress of a task once it is told that its job has done two steps of four."""
    async with asyncio.timeout(20):
        while True:
            await worker.progress(held, 2)
            told = (await gateway.http.get(f"/sdapi/v1/progress?id_task={task}")).json()
            if told["state"]["sampling_step"] == 2:
                return told
            await asyncio.sleep(0.02)


async def until_shown(gateway, worker, held):
    async with asyncio.timeout(20):
        while True:
            told = (await gateway.http.get("/sdapi/v1/progress")).json()
            if told["current_image"]:
                return told["current_image"]
            await worker.preview(held, 3, picture=b"on the way")
            await asyncio.sleep(0.02)


async def task_progress(gateway, task):
    answer = await gateway.http.post("/internal/progress", json={"id_task": task, "id_live_preview": -1})
    return answer.json()


async def read(storage, key):
    found = await storage.stat(key)
    return b"".join([chunk async for chunk in storage.read(key, start=0, stop=found.size_bytes)])


@pytest.mark.parametrize("values", [[{"a": 1}], [[]], ["", ""]], ids=["objects", "lists", "strings"])
@pytest.mark.parametrize("path", ["img2img", "extra-single-image"])
async def test_bodies_of_many_small_values_are_refused_before_they_are_decoded(gateway, path, values):
    body = {"image": "", "init_images": values * 20_000}
    answer = await gateway.http.post(f"/sdapi/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "10000 values" in answer.text


async def test_pictures_to_start_from_are_counted_before_each_is_looked_at(gateway, prompt):
    body = {"prompt": prompt, "init_images": [1] * 17}
    answer = await gateway.http.post("/sdapi/v1/img2img", json=body)
    assert answer.status_code == 422
    assert answer.text.count("init_images") == answer.text.count("at most 16") > 0


@pytest.mark.parametrize("key", ["sdapi mine r 9 5", "sdapi mine r x 5", "sdapi mine r 0 2"])
async def test_a_clients_own_key_that_looks_like_ours_breaks_nothing(gateway, worker, key):
    submit = {"jobType": "generate", "prompt": "x", "idempotencyKey": key}
    job_id = (await gateway.http.post("/v1/jobs", json=submit)).json()["jobId"]
    held = await worker.claim(job_id)
    for query in ("", "?id_task=mine"):
        answer = await gateway.http.get(f"/sdapi/v1/progress{query}")
        assert answer.status_code == 200
    await worker.complete(held)
