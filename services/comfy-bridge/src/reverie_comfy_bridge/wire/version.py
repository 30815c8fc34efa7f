"""What a ComfyUI of a version can do.  What is not known is taken not to be there.

The first releases with a feature are from ComfyUI's own history; a checkout between two releases calls itself by
the earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

Release = tuple[int, int, int]

FEATURE_FLAGS: Final[Release] = (0, 3, 45)
OWN_PROMPT_ID: Final[Release] = (0, 3, 45)
INTERRUPT_BY_ID: Final[Release] = (0, 3, 57)
HISTORY_OFFSET: Final[Release] = (0, 3, 60)
PREVIEW_METHOD: Final[Release] = (0, 5, 0)
JOBS: Final[Release] = (0, 6, 0)
PROMPT_ID_IS_UUID: Final[Release] = (0, 25, 0)
CANCEL_JOBS: Final[Release] = (0, 26, 0)

_VERSION = re.compile(r"^\s*v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?(?P<rest>.*)$", re.DOTALL)
#: Such a release was made before the one whose number it has.
_EARLIER = re.compile(r"^[-_.]?(a|b|rc|alpha|beta|dev|pre)", re.IGNORECASE)


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What may be relied on.

    `interrupt_by_id`: `/interrupt` looks at `prompt_id`; without it any interrupt stops whatever runs.
    `own_prompt_id`: `/prompt` takes our id; without it the answered one counts.  `prompt_id_is_uuid`: it refuses
    ids that are no lowercase UUID.  `preview_method`: `extra_data.preview_method` chooses how previews are made.
    `feature_flags`: the socket understands our flags and then says whose a preview is.  `jobs`: `/api/jobs`;
    `cancel_jobs`: `/api/jobs/<id>/cancel`.  `history_offset`: `/history` knows `offset`.
    """

    release: Release | None = None
    own_prompt_id: bool = False
    prompt_id_is_uuid: bool = True
    interrupt_by_id: bool = False
    feature_flags: bool = False
    history_offset: bool = False
    preview_method: bool = False
    jobs: bool = False
    cancel_jobs: bool = False


def features_of(version: object, flags: Mapping[str, object] | None = None) -> Features:
    """The features of a version as `/system_stats` tells it, with what `/features` (None: no such path) adds."""
    release = read_release(version)
    if release is None:
        known = flags is not None
        return Features(own_prompt_id=known, feature_flags=known)
    return Features(
        release=release,
        own_prompt_id=release >= OWN_PROMPT_ID,
        prompt_id_is_uuid=release >= PROMPT_ID_IS_UUID,
        interrupt_by_id=release >= INTERRUPT_BY_ID,
        feature_flags=release >= FEATURE_FLAGS or flags is not None,
        history_offset=release >= HISTORY_OFFSET,
        preview_method=release >= PREVIEW_METHOD,
        jobs=release >= JOBS,
        cancel_jobs=release >= CANCEL_JOBS,
    )


def read_release(version: object) -> Release | None:
    """The release that a version is or follows, such as (0, 3, 57); None if it names none.

    A release made before its number (`0.25.0rc1`) counts as the one before.
    """
    match = _VERSION.match(version) if isinstance(version, str) else None
    if match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.group(1, 2, 3))
    if not _EARLIER.match(match["rest"]):
        return (major, minor, patch)
    if patch:
        return (major, minor, patch - 1)
    return (major, minor - 1, 999_999) if minor else None
