"""The generated files are up to date, valid, and drift is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reverie_protocol.export.__main__ import main
from reverie_protocol.export.asyncapi import asyncapi_document
from reverie_protocol.export.files import contents
from reverie_protocol.export.schema import schema_document
from reverie_protocol.registry import CLIENT_MESSAGES, SERVER_MESSAGES
from reverie_protocol.subjects import SUBJECTS

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "libs" / "protocol").mkdir(parents=True)
    return tmp_path


def test_the_files_in_the_repository_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--root", str(ROOT)]) == 0, capsys.readouterr().err


def test_drifted_and_missing_files_are_named(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--root", str(checkout)]) == 1
    assert set(capsys.readouterr().err.split()) >= {str(path) for path in contents()}
    assert main(["--root", str(checkout)]) == 0
    assert main(["--check", "--root", str(checkout)]) == 0
    schema = checkout / "docs/reference/schema.json"
    schema.write_text(schema.read_text().replace("512x512", "256x256"))
    assert main(["--check", "--root", str(checkout)]) == 1
    told = capsys.readouterr().err
    assert "docs/reference/schema.json" in told
    assert "errors.md" not in told


def test_outside_a_checkout_nothing_is_written(tmp_path: Path) -> None:
    assert main(["--root", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_another_process_generates_the_same_bytes(checkout: Path) -> None:
    command = [sys.executable, "-m", "reverie_protocol.export"]
    subprocess.run(command, cwd=checkout, check=True, env={"PYTHONHASHSEED": "7"})
    for path, text in contents().items():
        assert (checkout / path).read_text(encoding="utf-8") == text


def test_the_schema_is_valid_json_schema() -> None:
    Draft202012Validator.check_schema(schema_document())


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for inner in node.values() for ref in references(inner)]
    if isinstance(node, list):
        return [ref for inner in node for ref in references(inner)]
    return []


@pytest.mark.parametrize("document", [schema_document(), asyncapi_document()], ids=["schema", "asyncapi"])
def test_each_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = references(document)
    assert found
    for reference in found:
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_asyncapi_lists_each_message_under_its_direction() -> None:
    document = asyncapi_document()
    assert document["asyncapi"].startswith("3.0")
    operations = document["operations"]
    for operation, messages in (
        ("receiveFromClient", CLIENT_MESSAGES),
        ("sendToClient", SERVER_MESSAGES),
    ):
        listed = {ref["$ref"].rsplit("/", 1)[1] for ref in operations[operation]["messages"]}
        assert listed >= {cls.__name__ for cls in messages.values()}
        assert operations[operation]["action"] in ("send", "receive")
    for operation in operations.values():
        channel = operation["channel"]["$ref"].rsplit("/", 1)[1]
        own = document["channels"][channel]["messages"]
        assert {ref["$ref"].rsplit("/", 1)[1] for ref in operation["messages"]} <= own.keys()


def test_asyncapi_lists_each_subject_with_its_parameter() -> None:
    channels = asyncapi_document()["channels"].values()
    by_pattern = {channel["x-subscribe"]: channel for channel in channels if "x-subscribe" in channel}
    assert by_pattern.keys() == {subject.pattern for subject in SUBJECTS}
    for subject in SUBJECTS:
        channel = by_pattern[subject.pattern]
        named = {part[1:-1] for part in channel["address"].split(".") if part.startswith("{")}
        assert named == set(channel.get("parameters", {}))


def test_the_error_page_lists_each_code_once() -> None:
    page = contents()[Path("docs/reference/errors.md")]
    assert page.count("\n| `") == len({line for line in page.splitlines() if line.startswith("| `")})


def test_typescript_compiles_and_tells_messages_apart(tmp_path: Path) -> None:
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("the TypeScript compiler `tsc` is not installed")
    (tmp_path / "reverie.ts").write_text(contents()[Path("clients/typescript/reverie.ts")])
    (tmp_path / "use.ts").write_text(USE)
    subprocess.run([compiler, "--strict", "--noEmit", "use.ts"], cwd=tmp_path, check=True)


USE = """
import type { ClientMessage, JobSubmit, ServerMessage } from "./reverie";
export const flat: ClientMessage = { type: "job:submit", jobType: "generate", prompt: "x", priority: "batch" };
export const grouped: JobSubmit = { type: "job:submit", jobType: "generate", params: { prompt: "x" } };
export const comfy: JobSubmit = { type: "job:submit", jobType: "comfy", workflowId: "w", params: { a: 1 } };
// @ts-expect-error a prompt is required
export const wrong: JobSubmit = { type: "job:submit", jobType: "generate" };
export function seed(message: ServerMessage): number | string | undefined {
  switch (message.type) {
    case "job:complete": return message.meta?.seed;
    case "error": return message.code;
    default: return message.type;
  }
}
"""


def test_json_files_end_with_a_newline_and_keep_their_order() -> None:
    for path, text in contents().items():
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        if path.suffix == ".json":
            assert json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n" == text
