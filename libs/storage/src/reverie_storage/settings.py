"""The section `storage`, the same for every service that uses the store."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from reverie_storage.filesystem import FilesystemStorage
from reverie_storage.pictures import Limits
from reverie_storage.port import Storage

GIB: Final = 1 << 30
MIB: Final = 1 << 20
_S3: Final = re.compile(r"s3://[^/?#@\s]+(/[^?#\s]*)?")


class StorageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where outputs and uploads are."""

    path: Annotated[str, Meta(min_length=1, description="Folder that all services share")] = "data/storage"
    url: Annotated[
        str,
        Meta(
            description="`s3://bucket/prefix` in place of a folder; endpoint, region and credentials come from "
            "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
    ] = ""
    quota_gb: Annotated[
        float,
        Meta(
            ge=0,
            description="Size in GiB beyond which pictures that no job and no upload refers to any more are "
            "removed, those not used for longest first; 0 keeps them for ever",
        ),
    ] = 20.0
    upload_mb: Annotated[float, Meta(gt=0, le=4096, description="Largest upload in MiB")] = 64.0
    upload_megapixels: Annotated[
        float, Meta(gt=0, le=1000, description="Largest picture that is decoded, in millions of pixels")
    ] = 64.0

    def __post_init__(self) -> None:
        """ValueError for a store that we do not know."""
        if self.url and _S3.fullmatch(self.url) is None:
            raise ValueError(
                "storage.url must be s3://bucket or s3://bucket/prefix, or empty for storage.path"
            )


def limits_of(settings: StorageSettings) -> Limits:
    """What one picture may cost, for whoever takes it and for whoever uses it."""
    return Limits(max_pixels=int(settings.upload_megapixels * 1e6))


def open_storage(settings: StorageSettings, *, environ: Mapping[str, str] = os.environ) -> Storage:
    """The store that the settings choose."""
    if settings.url:
        from reverie_storage.s3 import S3Storage

        return S3Storage(settings.url, environ=environ)
    return FilesystemStorage(Path(settings.path))
