"""Reading `multipart/form-data` as it arrives: small fields into memory, files onto the disk, within bounds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from litestar.exceptions import InternalServerException
from multipart import (  # type: ignore[import-untyped]  # it has no type information
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from reverie_gateway.form_bytes import FormBytes
from reverie_gateway.identity import HttpRequest
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError

#: Largest value of a field that is no file, in bytes.
MAX_FIELD_BYTES: Final = 256 * 1024
MAX_FIELDS: Final = 32
#: Bytes that are written to the disk at once, away from the event loop.
_WRITE_BYTES: Final = 1 << 20
_MIB: Final = 1 << 20


class Form(msgspec.Struct, frozen=True):
    """What a form held; the files are there for as long as the form's context.

    `file` is the one that had to be sent, `more` are others by their field, `skipped` what nobody asked for: other
    fields, and a second file of a field.
    """

    fields: dict[str, str]
    file: Path
    more: dict[str, Path]
    skipped: frozenset[str]


class Fields(msgspec.Struct, frozen=True):
    """What a form without a file that has to be sent held: its fields, and the files that were."""

    fields: dict[str, str]
    files: dict[str, Path]


@asynccontextmanager
async def received_form(
    request: HttpRequest,
    *,
    form_bytes: FormBytes,
    file_field: str = "file",
    more_files: Collection[str] = (),
    fields: Collection[str] = (),
) -> AsyncIterator[Form]:
    """The form in a request's body: a file of at least one byte, and those of `fields` that were sent.

    So are other files, of the fields `more_files`.  Fields of other names are skipped; `[]` at the end of a name
    says that there may be several, and is no part of it.  `unsupported_media_type`, `payload_too_large`,
    `invalid_upload` (empty or malformed), `invalid_field` (no file), `rate_limited` (too many at once).
    """
    names = (file_field, *more_files)
    async with _received(request, form_bytes=form_bytes, files=names, fields=fields) as (reader, paths):
        if file_field not in reader.file_bytes:
            message = f"the form has no file in its field {file_field!r}"
            raise ReverieError(
                ErrorCode.INVALID_FIELD,
                message,
                fields=[FieldError(("body", file_field), "is required", "missing")],
            )
        more = {name: paths[name] for name in more_files if name in reader.file_bytes}
        yield Form(reader.texts(), paths[file_field], more, frozenset(reader.skipped))


@asynccontextmanager
async def received_fields(
    request: HttpRequest, *, form_bytes: FormBytes, files: Collection[str], fields: Collection[str]
) -> AsyncIterator[Fields]:
    """The same for a form whose files may all be left out."""
    async with _received(request, form_bytes=form_bytes, files=files, fields=fields) as (reader, paths):
        yield Fields(reader.texts(), {name: paths[name] for name in files if name in reader.file_bytes})


@asynccontextmanager
async def _received(
    request: HttpRequest, *, form_bytes: FormBytes, files: Collection[str], fields: Collection[str]
) -> AsyncIterator[tuple[_Reader, dict[str, Path]]]:
    """What was read of a form, and where its files lie for as long as the context."""
    max_file_bytes = form_bytes.max_file_bytes
    parser = _parser(request)
    declared = request.headers.get("content-length", "")
    # What the files may not be beyond, the form around them included.
    limit = max_file_bytes * len(files) + (1 + len(fields)) * MAX_FIELD_BYTES
    if declared.isdigit() and int(declared[:18]) > limit:
        raise _too_large(max_file_bytes)
    # Counted until the folder is gone.
    with form_bytes.counted() as count, tempfile.TemporaryDirectory(prefix="reverie-upload-") as folder:
        paths = {name: Path(folder) / str(number) for number, name in enumerate(files)}
        with ExitStack() as stack:
            opened = {name: stack.enter_context(path.open("wb")) for name, path in paths.items()}
            reader = _Reader(opened, max_file_bytes, fields)
            await _read(request, parser, reader, count)
        if not all(reader.file_bytes.values()):
            raise ReverieError(ErrorCode.INVALID_UPLOAD, "the file is empty")
        yield reader, paths


class _Reader:
    """Where the parts of a form go."""

    def __init__(self, files: Mapping[str, BinaryIO], max_file_bytes: int, fields: Collection[str]) -> None:
        self.file_bytes: dict[str, int] = {}
        self.skipped: set[str] = set()
        self._files = files
        self._max_file_bytes = max_file_bytes
        self._wanted = fields
        self._file: str | None = None
        self._field: str | None = None
        self._values: dict[str, bytearray] = {}
        self._unwritten: list[tuple[str, bytes | bytearray]] = []
        self._unwritten_bytes = 0

    def begin(self, part: MultipartSegment) -> None:
        """A part's headers."""
        name = part.name.removesuffix("[]")
        self._file = name if name in self._files and name not in self.file_bytes else None
        self._field = name if name in self._wanted else None
        if self._file is not None:
            self.file_bytes[name] = 0
        elif self._field is not None:
            self._values[name] = bytearray()
        else:
            self.skipped.add(name)

    def add(self, content: bytes | bytearray) -> None:
        """Some of a part's content."""
        if self._file is not None:
            self.file_bytes[self._file] += len(content)
            if self.file_bytes[self._file] > self._max_file_bytes:
                raise _too_large(self._max_file_bytes)
            self._unwritten.append((self._file, content))
            self._unwritten_bytes += len(content)
        elif self._field is not None:
            value = self._values[self._field]
            value += content
            if len(value) > MAX_FIELD_BYTES:
                raise ReverieError(
                    ErrorCode.PAYLOAD_TOO_LARGE, f"{self._field} has more than {MAX_FIELD_BYTES} bytes"
                )

    async def flush(self, *, everything: bool = False) -> None:
        """Write what has come together."""
        if self._unwritten_bytes >= (1 if everything else _WRITE_BYTES):
            unwritten, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
            await asyncio.to_thread(self._write, unwritten)

    def _write(self, contents: Iterable[tuple[str, bytes | bytearray]]) -> None:
        for name, content in contents:
            self._files[name].write(content)

    def texts(self) -> dict[str, str]:
        """The fields; `invalid_upload` for what is no text."""
        try:
            return {name: value.decode() for name, value in self._values.items()}
        except UnicodeDecodeError:
            raise ReverieError(ErrorCode.INVALID_UPLOAD, "a field of the form is not UTF-8") from None


async def _read(
    request: HttpRequest, parser: PushMultipartParser, reader: _Reader, count: Callable[[int], None]
) -> None:
    try:
        async for chunk in request.stream():
            count(len(chunk))
            for event in parser.parse(chunk) if chunk else ():
                if isinstance(event, MultipartSegment):
                    reader.begin(event)
                elif event is not None:
                    reader.add(event)
            await reader.flush()
        parser.close()
    except InternalServerException:
        # What the framework says of a client that left; nobody reads the answer.
        raise ReverieError(ErrorCode.INVALID_UPLOAD, "the upload was broken off") from None
    except ParserLimitReached:
        raise ReverieError(ErrorCode.INVALID_UPLOAD, "the form has too many parts or headers") from None
    except MultipartError:
        raise ReverieError(ErrorCode.INVALID_UPLOAD, "the body is no complete multipart/form-data") from None
    await reader.flush(everything=True)


def _parser(request: HttpRequest) -> PushMultipartParser:
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if media_type != "multipart/form-data":
        raise ReverieError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "send the file as multipart/form-data")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise ReverieError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE, f"bodies with Content-Encoding {coding[:40]} are not read"
        )
    try:
        return PushMultipartParser(options.get("boundary", ""), max_segment_count=MAX_FIELDS, strict=False)
    except (MultipartError, UnicodeError):
        raise ReverieError(
            ErrorCode.INVALID_UPLOAD, "the multipart/form-data has no usable boundary"
        ) from None


def _too_large(max_file_bytes: int) -> ReverieError:
    return ReverieError(
        ErrorCode.PAYLOAD_TOO_LARGE,
        f"the file has more than {max_file_bytes / _MIB:g} MiB, which is the limit",
    )
