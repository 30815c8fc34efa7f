"""`reverie comfy`: servers, workflows, and a run of one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from reverie_launcher.client.address import Address
from reverie_launcher.client.http import HttpClient
from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.generate import followed, outputs_of
from reverie_launcher.lists import MAX_WIDTH, print_json
from reverie_launcher.picture_files import check_target, save
from reverie_launcher.terminal.progress_view import LiveProgress, PlainProgress, ProgressView
from reverie_protocol.comfy import ComfyWorkflow
from reverie_protocol.instances import ComfyInstance
from reverie_protocol.jobs import Output


async def show_workflows(address: Address, *, as_json: bool) -> None:
    """Every workflow with its parameters, and where it can run."""
    async with HttpClient(address) as http:
        found = await http.comfy_workflows()
    if as_json:
        print_json(found)
        return
    table = _table("workflow", "image", "parameters", "runs on")
    for workflow in found.workflows:
        where = ", ".join(workflow.available) or "; ".join(
            f"not on {name}: {why}" for name, why in workflow.unavailable.items()
        )
        table.add_row(workflow.id, workflow.input_image, _parameters(workflow), where or "no server there")
    _console().print(table)


async def show_instances(address: Address, *, as_json: bool) -> None:
    """Every server and how it does."""
    async with HttpClient(address) as http:
        found = await http.comfy_instances()
    if as_json:
        print_json(found)
        return
    table = _table("name", "url", "state", "version", "queue", "tags")
    for instance in found.instances:
        queue = f"{instance.queue_running} running, {instance.queue_pending} waiting"
        table.add_row(
            instance.name, instance.url, _state(instance), instance.version, queue, ", ".join(instance.tags)
        )
    _console().print(table)


async def put_instance(address: Address, name: str, body: Mapping[str, Any], *, as_json: bool) -> None:
    """Enter a server, or change what is wanted of one."""
    asked = {key: value for key, value in body.items() if value is not None}
    async with HttpClient(address) as http:
        instance = await http.put_comfy_instance(name, asked)
    if as_json:
        print_json(instance)
    else:
        print(f"{name}: {instance.url}, {_state(instance)}")


async def remove_instance(address: Address, name: str, *, as_json: bool) -> None:
    """Take a server out."""
    async with HttpClient(address) as http:
        instance = await http.delete_comfy_instance(name)
    if as_json:
        print_json(instance)
    else:
        print(f"{name}: taken out")


def read_params(given: Sequence[str]) -> dict[str, str]:
    """Parameters of the command line by name; Failure for what is no NAME=VALUE."""
    params = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise Failure(ExitCode.USAGE, f"{text!r} is no parameter.", advice="Give it as NAME=VALUE.")
        params[name] = value
    return params


async def run(
    address: Address,
    name: str,
    params: Mapping[str, str],
    *,
    image: Path | None,
    target: Path | None,
    as_json: bool,
    timeout_s: float | None,
) -> None:
    """The whole command: progress on stderr, the files on stdout."""
    check_target(target)
    console = Console(stderr=True)
    view: ProgressView = (
        LiveProgress(console, preview=False)
        if console.is_terminal and not as_json
        else PlainProgress(lambda line: print(line, file=sys.stderr, flush=True))
    )
    async with HttpClient(address) as http:
        properties = await _properties(http, name)
        body: dict[str, object] = {
            "jobType": "comfy",
            "workflowId": name,
            "params": {key: await _value(http, properties.get(key), text) for key, text in params.items()},
        }
        if image is not None:
            body["inputImage"] = await http.upload(_read(image))
        job = await followed(http, body, view, timeout_s=timeout_s)
        files = [(output, await http.download(output.url)) for output in outputs_of(job)]
    saved = [(output, save(content, target, _file_name(output))) for output, content in files]
    if as_json:
        described = [{"file": str(path), "url": output.url, "node": output.node} for output, path in saved]
        print(msgspec.json.encode({"jobId": job.job_id, "outputs": described}).decode())
    else:
        for _, path in saved:
            print(path)


async def _properties(http: HttpClient, name: str) -> Mapping[str, Any]:
    """The schema of each parameter; empty where the server has to say that there is no such workflow."""
    for workflow in (await http.comfy_workflows()).workflows:
        if workflow.id == name:
            properties = workflow.params.get("properties")
            return properties if isinstance(properties, dict) else {}
    return {}


async def _value(http: HttpClient, schema: Mapping[str, Any] | None, text: str) -> object:
    """A parameter as its schema has it; what does not fit stays a text, and the server says what is allowed."""
    if text.startswith("@") and (schema is None or str(schema.get("pattern", "")).startswith("^fileRef")):
        return f"fileRef:{await http.upload(_read(Path(text[1:])))}"
    kinds = (schema or {}).get("type", "string")
    if "string" in (kinds if isinstance(kinds, list) else [kinds]):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"{path} cannot be read: {error.strerror}.") from None


def _file_name(output: Output) -> str:
    """What ComfyUI called it, or its key where that is no plain name."""
    name = PurePosixPath(output.filename).name
    return output.key if not name or name.startswith(".") else name


def _parameters(workflow: ComfyWorkflow) -> str:
    properties, required = workflow.params.get("properties"), workflow.params.get("required")
    if not isinstance(properties, dict):
        return ""
    needed = required if isinstance(required, list) else []
    return ", ".join(f"{name} (required)" if name in needed else name for name in properties)


def _state(instance: ComfyInstance) -> str:
    state = f"{instance.status}{f' ({instance.reason})' if instance.reason else ''}"
    return f"{state}, draining" if instance.draining else state


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=MAX_WIDTH)
