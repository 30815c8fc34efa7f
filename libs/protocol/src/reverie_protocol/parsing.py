"""From the bytes of a client to a message: the only way a request becomes a type.

Whatever arrives, the outcome is a message or one `ReverieError`; for WebSocket frames a `FrameError`, which carries
the client's `id` wherever one could be read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn, cast

from reverie_protocol.client_messages import ClientMessage, DreamStart, JobSubmit
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.field_errors import FieldErrors, FieldErrorType, Loc, excerpt
from reverie_protocol.free_form import MAX_DEPTH
from reverie_protocol.init_image import conflicts
from reverie_protocol.job_submission import read_submission
from reverie_protocol.jobs import GenerateParams
from reverie_protocol.registry import CLIENT_MESSAGES
from reverie_protocol.validation import Walk, struct_fields, validate

_ID = struct_fields(ClientMessage)["id"]


class FrameError(ReverieError):
    """A WebSocket frame was refused; `client_id` is the client's `id` if it gave a usable one."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        fields: Sequence[FieldError] = (),
        client_id: str | int | None = None,
    ) -> None:
        super().__init__(code, message, fields=fields)
        self.client_id = client_id


def parse_client_frame(frame: str | bytes) -> ClientMessage:
    """The message in a text frame of `/v1/ws`.

    FrameError with `invalid_json`, `invalid_message` (no object), `unknown_type` or `invalid_field`.
    """
    client_id: str | int | None = None
    try:
        data, refusal = _decode(frame)
        client_id = _read_id(data)
        if refusal is not None:
            raise refusal
        return _read_message(data)
    except ReverieError as error:
        raise FrameError(error.code, error.message, fields=error.fields, client_id=client_id) from None


def decode_json(body: str | bytes) -> object:
    """A decoded request body; ReverieError `invalid_json`, or `invalid_message` for JSON we refuse."""
    data, refusal = _decode(body)
    if refusal is not None:
        raise refusal
    return data


def parse_job_submit(data: object, *, loc_prefix: Loc = ("body",)) -> JobSubmit:
    """The decoded body of `POST /v1/jobs`: what `job:submit` holds; ReverieError `invalid_field`."""
    if not isinstance(data, dict):
        errors = FieldErrors()
        errors.add(loc_prefix, FieldErrorType.TYPE_ERROR, "must be an object")
        errors.raise_if_any()
    return read_submission(cast("dict[str, object]", data), loc_prefix)


def parse_generate(data: object, *, loc_prefix: Loc = ("body",)) -> GenerateParams:
    """The decoded body of the legacy `POST /generate`; ReverieError `invalid_field`.

    Unknown fields are ignored, and null stands for an optional field that is absent.
    """
    params = validate(GenerateParams, data, loc_prefix=loc_prefix, forbid_unknown=False, null_is_absent=True)
    errors = FieldErrors()
    for name, message in conflicts(params).items():
        errors.add((*loc_prefix, name), FieldErrorType.CONFLICT, message)
    errors.raise_if_any()
    return params


def _read_message(data: object) -> ClientMessage:
    if not isinstance(data, dict):
        raise ReverieError(ErrorCode.INVALID_MESSAGE, "the frame must be a JSON object")
    if "type" not in data:
        raise ReverieError(ErrorCode.UNKNOWN_TYPE, f"type is missing; {_known_types()}")
    type_ = data["type"]
    if not isinstance(type_, str):
        raise ReverieError(ErrorCode.UNKNOWN_TYPE, f"type must be a string; {_known_types()}")
    message = CLIENT_MESSAGES.get(type_)
    if message is None:
        raise ReverieError(ErrorCode.UNKNOWN_TYPE, f"unknown type {excerpt(type_)!r}; {_known_types()}")
    if message is JobSubmit:
        return read_submission(data, ())
    parsed = validate(message, data)
    if isinstance(parsed, DreamStart):
        _require_one_duration(parsed)
    return parsed


def _require_one_duration(start: DreamStart) -> None:
    if start.duration is not None and start.duration_hours is not None:
        errors = FieldErrors()
        errors.add(("duration_hours",), FieldErrorType.CONFLICT, "does not go with duration")
        errors.raise_if_any()


def _known_types() -> str:
    return f"known are {', '.join(CLIENT_MESSAGES)}"


def _read_id(data: object) -> str | int | None:
    """The client's `id` if it is of a valid kind; what is wrong with it is said later."""
    if not isinstance(data, dict):
        return None
    walk = Walk()
    client_id = walk.value(_ID.type, data.get("id"), ())
    return None if walk.errors.found else cast("str | int | None", client_id)


def _decode(raw: str | bytes) -> tuple[object, ReverieError | None]:
    """Decoded JSON, and why it is refused although it could be read."""
    repeated: list[str] = []

    def to_dict(pairs: list[tuple[str, object]]) -> dict[str, object]:
        data = dict(pairs)
        if len(data) < len(pairs):
            ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
            repeated.append(key)
        return data

    try:
        text = raw if isinstance(raw, str) else raw.decode()
        data = json.loads(text, object_pairs_hook=to_dict, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise ReverieError(ErrorCode.INVALID_JSON, "not valid UTF-8") from None
    except json.JSONDecodeError as error:
        raise ReverieError(
            ErrorCode.INVALID_JSON, f"not valid JSON at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise ReverieError(ErrorCode.INVALID_JSON, "a number has too many digits") from None
    if repeated:
        message = f"the key {excerpt(repeated[0])!r} is given twice in one object"
        return data, ReverieError(ErrorCode.INVALID_MESSAGE, message)
    if text.count("[") + text.count("{") > MAX_DEPTH and not _shallow(data):
        return data, _too_deep()
    return data, None


def _refuse_constant(name: str) -> NoReturn:
    raise ReverieError(ErrorCode.INVALID_JSON, f"not valid JSON: {name} is no JSON number")


def _too_deep() -> ReverieError:
    return ReverieError(ErrorCode.INVALID_MESSAGE, f"nested more than {MAX_DEPTH} levels")


def _shallow(data: object) -> bool:
    """Whether lists and objects are nested no deeper than `MAX_DEPTH`."""
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False
