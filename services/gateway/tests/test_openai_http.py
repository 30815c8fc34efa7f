"""OpenAI's images API with its own Python client: what is made, what is streamed, what is refused and how."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import openai
import pytest
import pytest_asyncio
from PIL import Image

from reverie_gateway.settings import AuthSettings
from reverie_protocol.jobs import JobState, ModeInfo

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway, worker):
    """OpenAI's client, which repeats nothing by itself."""
    async with client_of(gateway) as client:
        yield client


def client_of(gateway, **options):
    return openai.AsyncOpenAI(
        **{"base_url": f"{gateway.url}/v1", "api_key": "none", "max_retries": 0} | options
    )


def png(mode="RGB", size=(64, 64), colour=0):
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return ("picture.png", buffer.getvalue())


async def test_n_pictures_are_n_jobs_of_one_seed_after_the_other(gateway, worker, client, prompt):
    asked = asyncio.create_task(
        client.images.generate(
            prompt=prompt,
            model="tiny",
            n=2,
            size="128x64",
            quality="auto",
            user="somebody",
            extra_body={"seed": 2**32 - 1, "steps": 3, "cfg": 2.5, "negative_prompt": "blur"},
        )
    )
    jobs = [await worker.do_next(), await worker.do_next()]
    answer = await asked
    assert [base64.b64decode(datum.b64_json) for datum in answer.data] == [
        f"picture {job_id}".encode() for job_id in answer.meta["job_ids"]
    ]
    assert set(answer.meta["job_ids"]) == {job.id for job in jobs}
    assert answer.meta["seeds"] == [2**32 - 1, 0]
    params = jobs[0].params
    assert (params.size, params.num_inference_steps, params.guidance_scale) == ("128x64", 3, 2.5)
    assert (params.negative_prompt, params.mode) == ("blur", "tiny")
    view = (await gateway.http.get(f"/v1/jobs/{jobs[0].id}")).json()
    assert view["state"] == "completed"


async def test_an_address_leads_to_the_picture(gateway, worker, client, prompt):
    asked = asyncio.create_task(client.images.generate(prompt=prompt, response_format="url"))
    job = await worker.do_next()
    answer = await asked
    assert answer.data[0].url.startswith(gateway.url)
    assert answer.data[0].b64_json is None
    picture = await gateway.http.get(answer.data[0].url)
    assert picture.content == f"picture {job.id}".encode()


async def test_a_stream_has_previews_of_the_way_and_then_the_picture(worker, client, prompt):
    asked = asyncio.create_task(
        client.images.generate(prompt=prompt, stream=True, partial_images=2, extra_body={"seed": 5})
    )
    held = await worker.claim((await worker.next_job()).id)
    stream = await asked
    while await worker.watched.get() != held.job_id:
        continue
    for step in (1, 2, 3):  # of four: a third and two thirds of the way are reached at 2 and 3
        await worker.preview(held, step, picture=b"preview %d" % step)
    seen = [await anext(stream), await anext(stream)]
    await worker.complete(held)
    seen += [event async for event in stream]
    assert [event.type for event in seen] == ["image_generation.partial_image"] * 2 + [
        "image_generation.completed"
    ]
    assert [event.partial_image_index for event in seen[:2]] == [0, 1]
    assert [base64.b64decode(event.b64_json) for event in seen] == [
        b"preview 2",
        b"preview 3",
        f"picture {held.job_id}".encode(),
    ]
    assert (seen[0].output_format, seen[2].output_format, seen[2].seed) == ("jpeg", "png", 5)


async def test_a_stream_of_a_failed_job_raises_its_reason(worker, client, prompt):
    asked = asyncio.create_task(client.images.generate(prompt=prompt, stream=True))
    held = await worker.claim((await worker.next_job()).id)
    stream = await asked
    await worker.fail(held, "out_of_memory", "it was too large")
    with pytest.raises(openai.APIError, match="it was too large") as raised:
        [event async for event in stream]
    assert raised.value.code == "out_of_memory"


@pytest.mark.parametrize(
    ("wrong", "error", "param"),
    [
        ({"quality": "hd"}, openai.UnprocessableEntityError, "quality"),
        ({"style": "vivid"}, openai.UnprocessableEntityError, "style"),
        ({"background": "transparent"}, openai.UnprocessableEntityError, "background"),
        ({"output_format": "webp"}, openai.UnprocessableEntityError, "output_format"),
        ({"output_format": "jpeg"}, openai.UnprocessableEntityError, "output_format"),
        ({"output_compression": 50}, openai.UnprocessableEntityError, "output_compression"),
        ({"n": 11}, openai.UnprocessableEntityError, "n"),
        ({"size": "65x64"}, openai.UnprocessableEntityError, "size"),
        ({"partial_images": 1}, openai.UnprocessableEntityError, "partial_images"),
        ({"stream": True, "response_format": "url"}, openai.UnprocessableEntityError, "response_format"),
        ({"extra_body": {"scheduler": "none such"}}, openai.UnprocessableEntityError, "scheduler"),
        ({"extra_body": {"negativ_prompt": "x"}}, openai.UnprocessableEntityError, "negativ_prompt"),
        ({"model": "dall-e-9"}, openai.NotFoundError, None),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(worker, client, prompt, wrong, error, param):
    with pytest.raises(error) as raised:
        await client.images.generate(**{"prompt": prompt} | wrong)
    assert raised.value.param == param
    assert raised.value.code in ("invalid_field", "mode_not_found")
    assert str(param or "dall-e-9") in str(raised.value)
    assert raised.value.response.json()["requestId"] == raised.value.request_id
    assert not worker.mirror.queued


async def test_a_full_queue_is_a_429_before_any_job_is_made(stage, worker, prompt):
    small = await stage.gateway(max_queued=2)
    await known(small)
    async with client_of(small) as client:
        with pytest.raises(openai.RateLimitError) as raised:
            await client.images.generate(prompt=prompt, n=3)
        assert int(raised.value.response.headers["retry-after"]) >= 1
        assert raised.value.response.headers["x-should-retry"] == "true"
        assert not worker.mirror.queued


async def test_jobs_that_take_too_long_go_on_and_are_named_and_not_made_again(stage, worker, prompt):
    hasty = await stage.gateway(generate_wait_s=0.2)
    await known(hasty)
    async with client_of(hasty, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.images.generate(prompt=prompt, n=2)
    body = raised.value.response.json()
    assert (raised.value.status_code, body["code"]) == (504, "wait_timeout")
    assert len(body["jobIds"]) == 2
    assert {job.id for job in worker.mirror.queued.values()} == set(body["jobIds"])
    done = [await worker.do_next(), await worker.do_next()]
    assert {job.state for job in done} == {JobState.COMPLETED}


async def test_a_repetition_under_the_same_key_brings_the_same_pictures(worker, client, prompt):
    key = {"Idempotency-Key": "the same"}
    asked = asyncio.create_task(client.images.generate(prompt=prompt, n=2, extra_headers=key))
    await worker.do_next()
    await worker.do_next()
    first = await asked
    again = await client.images.generate(prompt=prompt, n=2, extra_headers=key)
    assert again.meta == first.meta
    streamed = await client.images.generate(prompt=prompt, n=2, stream=True, extra_headers=key)
    assert [event.job_id async for event in streamed] == first.meta["job_ids"]
    with pytest.raises(openai.ConflictError):
        await client.images.generate(prompt="another", n=2, extra_headers=key)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_leaves_its_jobs(gateway, worker, prompt, streamed):
    body = {"prompt": prompt, "n": 2, "stream": streamed, "partial_images": int(streamed)}
    asked = asyncio.create_task(gateway.http.post("/v1/images/generations", json=body))
    ids = {(await worker.next_job()).id}
    while len(worker.mirror.queued) < 2:
        await asyncio.sleep(0.01)
    ids |= set(worker.mirror.queued)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert {(await worker.do_next()).id, (await worker.do_next()).id} == ids
    for job_id in ids:
        assert (await gateway.http.get(f"/v1/jobs/{job_id}")).json()["state"] == "completed"


async def test_modes_are_models(client):
    listed = await client.models.list()
    assert [(model.id, model.object) for model in listed.data] == [("tiny", "model")]
    assert (await client.models.retrieve("tiny")).id == "tiny"
    with pytest.raises(openai.NotFoundError, match="there is no mode 'gpt'"):
        await client.models.retrieve("gpt")


async def test_an_edit_starts_from_its_picture_and_draws_where_the_mask_is_transparent(
    worker, client, prompt
):
    mask = Image.new("RGBA", (64, 64), "black")
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    asked = asyncio.create_task(
        client.images.edit(
            image=[png(colour=255)],
            mask=("mask.png", buffer.getvalue()),
            prompt=prompt,
            n=1,
            extra_body={"strength": 0.5, "seed": 3},
        )
    )
    job = await worker.do_next()
    assert len((await asked).data) == 1
    params = job.params
    assert (params.strength, params.seed, params.prompt) == (0.5, 3, prompt)
    kept = await read(worker.storage, params.initImage)
    assert kept == png(colour=255)[1]
    drawn = Image.open(io.BytesIO(await read(worker.storage, params.maskImage)))
    assert (drawn.mode, drawn.getpixel((0, 0)), drawn.getpixel((63, 0))) == ("L", 255, 0)


async def test_variations_start_from_their_picture(worker, client):
    asked = asyncio.create_task(client.post("/images/variations", cast_to=object, **varied()))
    job = await worker.do_next()
    assert len((await asked)["data"]) == 1
    assert job.params.initImage is not None
    assert job.params.maskImage is None


def varied():
    return {"body": {"response_format": "url"}, "files": {"image": png()}, "options": multipart()}


def multipart():
    return {"headers": {"Content-Type": "multipart/form-data"}}


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"mask": png("RGB")}, None),
        ({"mask": png("RGBA", (32, 32))}, "mask"),
        ({"image": [png(), png()]}, "image"),
        ({"input_fidelity": "high"}, "input_fidelity"),
        ({"n": 11}, "n"),
        ({"prompt": ""}, "prompt"),
        ({"image": ("x.png", b"no picture")}, None),
        ({"markup": png("RGBA")}, "markup"),
    ],
)
async def test_edits_that_cannot_be_made_are_refused(worker, client, prompt, wrong, param):
    with pytest.raises(openai.APIStatusError) as raised:
        await client.images.edit(**{"image": png(), "prompt": prompt} | wrong)
    assert raised.value.status_code in (400, 415, 422)
    assert raised.value.param == param
    assert not worker.mirror.queued


async def test_who_cannot_be_served_is_told_so_before_pictures_are_read(own_stage, prompt):
    gateway = await own_stage.gateway()
    async with client_of(gateway) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.images.generate(prompt=prompt)
        assert (raised.value.status_code, raised.value.code) == (503, "no_worker")
        assert raised.value.response.headers["x-should-retry"] == "true"
        await own_stage.worker(modes={"tiny": ModeInfo(model="tiny", family="flow", init_image=False)})
        await known(gateway)
        with pytest.raises(
            openai.UnprocessableEntityError, match="no mode that is loaded takes it"
        ) as raised:
            await client.images.edit(image=("x.png", b"not looked at"), prompt=prompt)
        assert raised.value.param == "image"


async def test_without_a_token_it_is_an_authentication_error_with_a_reason(stage, prompt):
    closed = await stage.gateway(auth=AuthSettings(key="a secret of at least thirty-two bytes"))
    async with client_of(closed, api_key="nonsense") as client:
        with pytest.raises(openai.AuthenticationError, match="a valid token is needed"):
            await client.images.generate(prompt=prompt)


async def test_a_body_in_a_stream_is_what_the_format_says(gateway, worker, prompt):
    body = {"prompt": prompt, "stream": True}
    asked = asyncio.create_task(gateway.http.post("/v1/images/generations", json=body))
    await worker.do_next()
    answer = await asked
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event for event in answer.text.split("\n\n") if event and not event.startswith(":")]
    (kind, data) = events[0].split("\n")
    assert kind == "event: image_generation.completed"
    assert json.loads(data.removeprefix("data: "))["usage"]["total_tokens"] == 0


async def read(storage, key):
    found = await storage.stat(key)
    return b"".join([chunk async for chunk in storage.read(key, start=0, stop=found.size_bytes)])


async def known(gateway):
    async with gateway.socket() as socket:
        while not (await socket.until("system:status"))["workers"]:
            continue
