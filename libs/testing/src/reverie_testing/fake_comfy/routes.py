"""The HTTP surface of one version."""

# ruff: noqa: D103 -- a handler is named by its method and path

from __future__ import annotations

import copy
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from reverie_testing.fake_comfy import file_routes, jobs
from reverie_testing.fake_comfy.instance import Instance, flags
from reverie_testing.fake_comfy.nodes import choices
from reverie_testing.fake_comfy.validation import Validation
from reverie_testing.fake_comfy.wire import NOT_FOUND, TROUBLE, Request, Response, answer

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


async def respond(instance: Instance, request: Request) -> Response | None:
    """The answer; None: the connection is dropped instead."""
    await instance.faults.pass_(request)
    if _forbidden(instance, request):
        return Response(403)
    handlers, rest = _route(instance, request)
    if handlers is None:
        return NOT_FOUND
    handler = handlers.get("GET" if request.method == "HEAD" else request.method)
    if handler is None:
        known = "GET" in handlers or request.method != "GET"
        return Response(405, b"405: Method Not Allowed", "text/plain; charset=utf-8") if known else NOT_FOUND
    try:
        return handler(instance, request, rest)
    except (ValueError, TypeError, AttributeError, KeyError):
        return TROUBLE


def _route(instance: Instance, request: Request) -> tuple[dict[str, Handler] | None, str]:
    """The handlers of a path by method, and what follows its first part."""
    path, under_api = request.path, request.path.startswith("/api/")
    if under_api and instance.features.numbered:
        path = path.removeprefix("/api")
    head, _, rest = path[1:].partition("/")
    if head == "jobs" and not (under_api and instance.features.jobs):
        return None, ""
    return (ROUTES.get(head) if not rest or head in DEEP else None), rest


def _forbidden(instance: Instance, request: Request) -> bool:
    origin, host = request.headers.get("origin"), request.headers.get("host")
    if instance.features.fetch_site_check and request.headers.get("sec-fetch-site") == "cross-site":
        return True
    if not instance.features.numbered or origin is None or host is None:
        return False
    return origin.split("//")[-1].split(":")[0] != host.split(":")[0]


def get_prompt(instance: Instance, _: Request, __: str) -> Response:
    return answer(instance.status()["status"])


def post_prompt(instance: Instance, request: Request, _: str) -> Response | None:
    """Validate and queue; a fault decides what the client hears of it."""
    faults = instance.faults
    if faults.refused_posts > 0:
        faults.refused_posts -= 1
        return TROUBLE
    response = _submit(instance, request.json())
    if response.status == 200 and faults.misreported_posts > 0:
        faults.misreported_posts -= 1
        return TROUBLE
    if response.status == 200 and faults.unanswered_posts > 0:
        faults.unanswered_posts -= 1
        return None
    return response


def _submit(instance: Instance, body: Any) -> Response:
    features = instance.features
    if "number" in body:
        number = float(body["number"])
    else:
        number = -instance.number if body.get("front") else instance.number
        instance.number += 1
    if "prompt" not in body:
        if not features.numbered:
            return answer({"error": "no prompt", "node_errors": []}, 400)
        return refusal("no_prompt", "No prompt provided", "No prompt provided")
    prompt_id = str(uuid.uuid4())
    if features.progress_state and body.get("prompt_id") is not None:
        prompt_id = body["prompt_id"]
        if features.uuid_check and not (isinstance(prompt_id, str) and UUID.fullmatch(prompt_id)):
            return refusal(
                "invalid_prompt_id",
                "prompt_id must be a valid UUID",
                "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
                "omit it to let the server generate one",
            )
        prompt_id = str(prompt_id)
    verdict = Validation(body["prompt"], instance.classes, instance.files, features).verdict()
    if verdict.error is not None:
        return answer({"error": verdict.error, "node_errors": verdict.node_errors}, 400)
    extra = dict(body.get("extra_data", {}))
    if "client_id" in body:
        extra["client_id"] = body["client_id"]
    if features.create_time:
        extra["create_time"] = int(time.time() * 1000)
    instance.queue.put((number, prompt_id, body["prompt"], extra, verdict.outputs))
    return answer({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})


def refusal(kind: str, message: str, details: str) -> Response:
    """A 400 about the whole prompt."""
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return answer({"error": error, "node_errors": {}}, 400)


def get_queue(instance: Instance, _: Request, __: str) -> Response:
    running = [instance.queue.running] if instance.queue.running is not None else []
    return answer({"queue_running": running, "queue_pending": instance.queue.pending})


def post_queue(instance: Instance, request: Request, _: str) -> Response:
    body: Any = request.json()
    if body.get("clear"):
        instance.queue.clear()
    for prompt_id in body.get("delete", []):
        instance.queue.delete(prompt_id)
    return Response()


def post_interrupt(instance: Instance, request: Request, _: str) -> Response:
    if not instance.features.interrupt_by_id:
        instance.interrupt()
        return Response()
    body: Any = request.json() if request.body else {}
    prompt_id = body.get("prompt_id")
    running = instance.queue.running
    if prompt_id is None or (running is not None and running[1] == prompt_id):
        instance.interrupt()
    return Response()


def get_history(instance: Instance, request: Request, prompt_id: str) -> Response:
    history = instance.queue.history
    if prompt_id:
        return answer({prompt_id: history[prompt_id]} if prompt_id in history else {})
    names = list(history)
    count = int(request.query["max_items"]) if "max_items" in request.query else len(names)
    start = max(len(names) - count, 0)
    if instance.features.history_offset and "offset" in request.query:
        start = int(request.query["offset"])
    return answer({name: history[name] for name in names[start : start + count]})


def post_history(instance: Instance, request: Request, _: str) -> Response:
    body: Any = request.json()
    if body.get("clear"):
        instance.queue.history.clear()
    for prompt_id in body.get("delete", []):
        instance.queue.history.pop(prompt_id, None)
    return Response()


def get_object_info(instance: Instance, _: Request, name: str) -> Response:
    info = {node.name: node.info for node in instance.classes.values()}
    loader = copy.deepcopy(info["LoadImage"])
    loader["input"]["required"]["image"][0] = instance.files.names("input")
    info["LoadImage"] = loader
    if name:
        return answer({name: info[name]} if name in info else {})
    return answer(info)


def get_system_stats(instance: Instance, _: Request, __: str) -> Response:
    total, free = 25276514304, 21847482368
    system: dict[str, Any] = {"os": "posix"}
    if instance.features.numbered:
        system |= {"ram_total": total, "ram_free": free, "comfyui_version": instance.features.version}
    system["python_version"] = "3.11.7 (main) [GCC 12.2.0]"
    if instance.features.numbered:
        system["pytorch_version"] = "2.13.0+cpu"
    system["embedded_python"] = False
    if instance.features.numbered:
        system["argv"] = ["main.py", "--cpu"]
    device = {"name": "cpu", "type": "cpu", "index": None, "vram_total": total, "vram_free": free}
    device |= {"torch_vram_total": total, "torch_vram_free": free}
    return answer({"system": system, "devices": [device]})


def get_features(instance: Instance, _: Request, __: str) -> Response:
    return answer(flags(instance.features)) if instance.features.progress_state else NOT_FOUND


def get_models(instance: Instance, _: Request, folder: str) -> Response:
    if not instance.features.numbered:
        return NOT_FOUND
    kept = {
        "checkpoints": choices(instance.classes["CheckpointLoaderSimple"].required["ckpt_name"]),
        "loras": [],
        "vae": [],
        "upscale_models": choices(instance.classes["UpscaleModelLoader"].required["model_name"]),
    }
    if not folder:
        return answer(list(kept))
    return answer(kept[folder]) if folder in kept else Response(404)


def post_free(instance: Instance, request: Request, _: str) -> Response:
    body: Any = request.json()
    if body.get("free_memory"):
        instance.cache.clear()
    return Response()


def get_embeddings(_: Instance, __: Request, ___: str) -> Response:
    return answer([])


Handler = Callable[[Instance, Request, str], Response | None]
ROUTES: dict[str, dict[str, Handler]] = {
    "prompt": {"GET": get_prompt, "POST": post_prompt},
    "queue": {"GET": get_queue, "POST": post_queue},
    "interrupt": {"POST": post_interrupt},
    "history": {"GET": get_history, "POST": post_history},
    "jobs": {"GET": jobs.get_jobs, "POST": jobs.post_jobs},
    "view": {"GET": file_routes.get_view},
    "upload": {"POST": file_routes.post_upload},
    "object_info": {"GET": get_object_info},
    "system_stats": {"GET": get_system_stats},
    "features": {"GET": get_features},
    "models": {"GET": get_models},
    "embeddings": {"GET": get_embeddings},
    "free": {"POST": post_free},
}
#: Those with something behind their name.
DEEP = {"history", "jobs", "upload", "object_info", "models"}
