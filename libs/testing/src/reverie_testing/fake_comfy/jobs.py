"""`/api/jobs`, the light list of newer versions."""

from __future__ import annotations

import re
from typing import Any

from reverie_testing.fake_comfy.instance import Instance
from reverie_testing.fake_comfy.queue import Item
from reverie_testing.fake_comfy.wire import Request, Response, answer

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
MISSING = answer({"error": "Job not found"}, 404)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def get_jobs(instance: Instance, request: Request, job: str) -> Response:
    """The list, or one."""
    found = {item[1]: _waiting(item, "pending") for item in instance.queue.pending}
    if instance.queue.running is not None:
        found[instance.queue.running[1]] = _waiting(instance.queue.running, "in_progress")
    for name, entry in instance.queue.history.items():
        found.setdefault(name, _ended(entry, whole=bool(job)))
    if job:
        return answer(found[job]) if job in found else MISSING
    wanted = request.query.get("status", "").split(",") if request.query.get("status") else list(STATUSES)
    wrong = [status for status in wanted if status not in STATUSES]
    if wrong:
        valid = ", ".join(STATUSES)
        return answer({"error": f"Invalid status value(s): {', '.join(wrong)}. Valid values: {valid}"}, 400)
    listed = [told for told in found.values() if told["status"] in wanted]
    listed.sort(key=lambda told: told.get("create_time", 0), reverse=True)
    limit = int(request.query["limit"]) if "limit" in request.query else None
    offset = int(request.query.get("offset", 0))
    page = listed[offset : None if limit is None else offset + limit]
    more = offset + len(page) < len(listed)
    place = {"offset": offset, "limit": limit, "total": len(listed), "has_more": more}
    return answer({"jobs": page, "pagination": place})


def post_jobs(instance: Instance, request: Request, rest: str) -> Response:
    """Cancel one, or several."""
    if not instance.features.jobs_cancel:
        return Response(404)
    if rest == "cancel":
        body: Any = request.json()
        ids = body["job_ids"]
        wrong = [name for name in ids if not UUID.fullmatch(name)]
        if wrong:
            return answer({"error": "job_ids contains invalid id(s)", "invalid_ids": wrong}, 400)
        cancelled = [_cancel(instance, name) for name in ids]
        return answer({"cancelled": any(cancelled)})
    name, _, verb = rest.partition("/")
    if verb != "cancel":
        return Response(404)
    return answer({"cancelled": _cancel(instance, name)})


def _cancel(instance: Instance, job: str) -> bool:
    if instance.queue.delete(job):
        return True
    running = instance.queue.running
    if running is not None and running[1] == job:
        instance.interrupt()
        return True
    return False


def _waiting(item: Item, status: str) -> dict[str, Any]:
    told = {"id": item[1], "status": status, "priority": item[0]}
    if "create_time" in item[3]:
        told["create_time"] = item[3]["create_time"]
    return told | {"outputs_count": 0, "previewable_outputs_count": 0}


def _ended(entry: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    number, name, _, extra, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    status = "completed" if entry["status"]["completed"] else "failed"
    if "execution_interrupted" in messages and status == "failed" and _knows_cancelled(entry):
        status = "cancelled"
    told: dict[str, Any] = {"id": name, "status": status, "priority": number}
    told["create_time"] = extra.get("create_time", 0)
    told["execution_start_time"] = messages["execution_start"]["timestamp"]
    told["execution_end_time"] = entry["status"]["messages"][-1][1]["timestamp"]
    if "execution_error" in messages:
        told["execution_error"] = messages["execution_error"]
    files = [
        {**file, "nodeId": node_id, "mediaType": kind}
        for node_id, output in entry["outputs"].items()
        for kind, files in output.items()
        for file in files
    ]
    told["outputs_count"] = told["previewable_outputs_count"] = len(files)
    saved = [file for file in files if file["type"] == "output"] or files
    if saved:
        told["preview_output"] = saved[0]
    if whole:
        told |= {"outputs": entry["outputs"], "execution_status": entry["status"]}
    return told


def _knows_cancelled(entry: dict[str, Any]) -> bool:
    return "create_time" in entry["prompt"][3]
