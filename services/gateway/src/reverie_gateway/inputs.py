"""Pictures that a job starts from: what the client named is looked up once, the record holds its storage key.

A ComfyUI workflow may take several: besides `inputImage` a parameter of it that is `fileRef:<reference>` names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from reverie_gateway.objects import available
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import ComfyParams, Job, JobParams, SuperResolutionParams
from reverie_protocol.sizes import enlarged
from reverie_storage.uploads import PREFIX, UploadRecord, Uploads

#: Parameters that name a stored picture, of whatever type of job.
FIELDS: Final = ("fileRef", "initImage", "maskImage", "inputImage")
#: Before the name of a workflow's own parameter.
_OWN: Final = "params."


def file_references(params: JobParams) -> dict[str, str]:
    """Which pictures a job needs, by field: references as a client sent them, storage keys in a record."""
    named = ((name, getattr(params, name, None)) for name in FIELDS)
    found = {name: value for name, value in named if value is not None}
    if isinstance(params, ComfyParams):
        found |= {
            f"{_OWN}{name}": value.removeprefix(PREFIX)
            for name, value in params.params.items()
            if isinstance(value, str) and value.startswith(PREFIX)
        }
    return found


def _with_keys(params: JobParams, keys: Mapping[str, str]) -> JobParams:
    """The parameters with a storage key in each field that `file_references` names."""
    fields = {name: key for name, key in keys.items() if not name.startswith(_OWN)}
    settled = replace(params, **fields)
    if isinstance(settled, ComfyParams) and len(fields) < len(keys):
        own = {name.removeprefix(_OWN): f"{PREFIX}{key}" for name, key in keys.items() if name not in fields}
        settled = replace(settled, params={**settled.params, **own})
    return settled


def _loc(name: str) -> tuple[str, ...]:
    """Where a field that `file_references` names stands in a request."""
    return ("params", name.removeprefix(_OWN)) if name.startswith(_OWN) else (name,)


def require_enlargeable(params: JobParams, picture: UploadRecord) -> None:
    """Raise what `enlarged` says of super-resolution of an uploaded picture."""
    if isinstance(params, SuperResolutionParams):
        enlarged((picture.width, picture.height), params.magnitude, field="magnitude")


class Inputs:
    """Puts storage keys in place of references."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def settled(self, job: Job) -> Job:
        """The job with the storage key in each field that names a picture, and none of them swept meanwhile.

        `file_not_found` names the fields whose picture is unknown, expired or somebody else's; `invalid_field`
        where it is too large for what is to be done with it.
        """
        found: dict[str, UploadRecord] = {}
        lost: list[FieldError] = []
        async with available():
            for name, reference in file_references(job.params).items():
                try:
                    found[name] = await self._uploads.resolve(reference, owner=job.owner)
                except ReverieError as error:
                    lost.append(FieldError(_loc(name), error.message, error.code))
        if lost:
            names = ", ".join(".".join(map(str, field.loc)) for field in lost)
            raise ReverieError(ErrorCode.FILE_NOT_FOUND, f"{names}: {lost[0].msg}", fields=lost)
        for picture in found.values():
            require_enlargeable(job.params, picture)
        keys = {name: picture.key for name, picture in found.items()}
        return replace(job, params=_with_keys(job.params, keys)) if keys else job
