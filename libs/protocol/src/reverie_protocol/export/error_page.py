"""The page of error codes."""

from __future__ import annotations

from reverie_protocol.errors import CLOSE_CODES, ERROR_TRAITS
from reverie_protocol.field_errors import FieldErrorType

_HEAD = """\
<!-- Generated from libs/protocol by `make generate`; do not edit. -->
# Error codes

Codes are contract: they are added, never renamed. Messages are for people and may change.

- HTTP: `{"detail", "code", "requestId"}` with the status below. With `invalid_field`, `detail` is a list with one
  `{loc, msg, type}` per wrong field.
- WebSocket: `{"type": "error", "id", "code", "message", "retryable", "fields"}`; the socket stays open.
- A job that failed: `{"type": "job:error", "jobId", "code", "message", "retryable", ...}`, and `error` in
  `GET /v1/jobs/{id}`.

*Retry* says whether the same request may succeed later.

| code | HTTP | retry | meaning |
|---|---|---|---|
"""

_FIELDS = """
## Wrong fields

`type` of an entry in `detail` or `fields`:

"""

_CLOSE = """
## WebSocket close codes

| code | reason | reconnect |
|---|---|---|
"""


def error_page() -> str:
    """Markdown: every error code, kind of wrong field and close code."""
    codes = "".join(
        f"| `{code.value}` | {traits.status} | {_yes(traits.retryable)} | {traits.meaning} |\n"
        for code, traits in ERROR_TRAITS.items()
    )
    kinds = ", ".join(f"`{kind.value}`" for kind in FieldErrorType) + ".\n"
    closes = "".join(
        f"| {close.code} | {close.reason} | {_yes(close.reconnect)} |\n" for close in CLOSE_CODES
    )
    return _HEAD + codes + _FIELDS + kinds + _CLOSE + closes


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
