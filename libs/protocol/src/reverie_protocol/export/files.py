"""The generated files: where each lies and what it holds.  Equal protocols give equal bytes."""

from __future__ import annotations

import json
from pathlib import Path

from reverie_protocol.export.asyncapi import asyncapi_document
from reverie_protocol.export.error_page import error_page
from reverie_protocol.export.schema import schema_document
from reverie_protocol.export.typescript import typescript_module


def contents() -> dict[Path, str]:
    """The text of every generated file by its path in the repository."""
    return {
        Path("docs/reference/schema.json"): _json(schema_document()),
        Path("docs/reference/asyncapi.json"): _json(asyncapi_document()),
        Path("docs/reference/errors.md"): error_page(),
        Path("clients/typescript/reverie.ts"): typescript_module(),
    }


def write(root: Path) -> None:
    """Write every file below `root`."""
    for path, text in contents().items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def drifted(root: Path) -> list[Path]:
    """The files below `root` that are missing or hold something else."""
    return [path for path, text in contents().items() if _read(root / path) != text]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
