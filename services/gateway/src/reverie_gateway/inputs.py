"""Pictures that a job starts from: what the client named is looked up once, the record holds its storage key."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from reverie_gateway.objects import available
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import Job, JobParams, SuperResolutionParams
from reverie_protocol.sizes import enlarged
from reverie_storage.uploads import UploadRecord, Uploads

#: Parameters that name a stored picture, of whatever type of job.
FIELDS: Final = ("fileRef", "initImage", "maskImage", "inputImage")


def file_references(params: JobParams) -> dict[str, str]:
    """Which pictures a job needs, by field: references as a client sent them, storage keys in a record."""
    named = ((name, getattr(params, name, None)) for name in FIELDS)
    return {name: value for name, value in named if value is not None}


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
                    lost.append(FieldError((name,), error.message, error.code))
        if lost:
            names = ", ".join(str(field.loc[0]) for field in lost)
            raise ReverieError(ErrorCode.FILE_NOT_FOUND, f"{names}: {lost[0].msg}", fields=lost)
        for picture in found.values():
            require_enlargeable(job.params, picture)
        keys = {name: picture.key for name, picture in found.items()}
        return replace(job, params=replace(job.params, **keys)) if keys else job
