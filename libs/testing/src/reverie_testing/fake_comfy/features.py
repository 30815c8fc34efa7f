"""What each version of ComfyUI does: the table of `docs/comfyui.md` as a value that a test can ask."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The versions whose traffic was recorded; any other version gets what the table says of it.
RECORDED = ("0.33.0", "0.3.43", "2024-06")
#: A server that does not name its version is taken for the oldest one recorded.
UNNAMED = "2024-06"


@dataclass(frozen=True)
class Features:
    """One version's abilities; each name says what is so since some release."""

    version: str
    #: (0, 0, 0) for the versions before there were numbers.
    number: tuple[int, ...]

    def since(self, *number: int) -> bool:
        """Whether this version is at least that one."""
        return self.number >= number

    @property
    def numbered(self) -> bool:
        """Names its version, has `/api`, `/models`, an Origin check, `execution_success` and time stamps."""
        return self.number > (0, 0, 0)

    @property
    def fetch_site_check(self) -> bool:
        """Refuses `Sec-Fetch-Site: cross-site`; the release is not known, recorded is 0.33.0."""
        return self.since(0, 33)

    @property
    def text_frames(self) -> bool:
        """Text about a running node as a binary frame of type 3."""
        return self.since(0, 3, 34)

    @property
    def progress_state(self) -> bool:
        """State of all nodes, feature flags, previews with metadata, own prompt ids, async nodes."""
        return self.since(0, 3, 45)

    @property
    def progress_state_to_all(self) -> bool:
        """The first releases with it told it to every client."""
        return self.progress_state and not self.since(0, 3, 58)

    @property
    def interrupt_by_id(self) -> bool:
        """Before, an interrupt hits whatever runs, also with an id."""
        return self.since(0, 3, 57)

    @property
    def history_offset(self) -> bool:
        """`/history?offset=`."""
        return self.since(0, 3, 60)

    @property
    def create_time(self) -> bool:
        """`extra_data.create_time` is set by the server."""
        return self.since(0, 3, 69)

    @property
    def preview_method(self) -> bool:
        """`extra_data.preview_method` chooses previews per prompt."""
        return self.since(0, 5)

    @property
    def jobs(self) -> bool:
        """`/api/jobs`."""
        return self.since(0, 6)

    @property
    def throttle(self) -> bool:
        """Progress without a preview is told at most every 100 ms."""
        return self.since(0, 9, 2)

    @property
    def missing_node_type(self) -> bool:
        """An unknown class has an error type of its own; before it was `invalid_prompt`."""
        return self.since(0, 12)

    @property
    def cycle_check(self) -> bool:
        """A cycle is found at submission."""
        return self.since(0, 20)

    @property
    def uuid_check(self) -> bool:
        """A prompt id must be a canonical lowercase UUID."""
        return self.since(0, 25)

    @property
    def jobs_cancel(self) -> bool:
        """`/api/jobs/{id}/cancel` and `/api/jobs/cancel`."""
        return self.since(0, 26)

    @property
    def cache_by_memory(self) -> bool:
        """Results stay cached while there is memory, not just for the next prompt; recorded with 0.33.0."""
        return self.since(0, 33)

    @property
    def outputs_without_client(self) -> bool:
        """The history of a cached run has its outputs also if nobody's client_id was given."""
        return self.since(0, 28)


def features_of(version: str | None) -> Features:
    """The abilities of a version as `/system_stats` names it; None: it names none."""
    version = version or UNNAMED
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    number = tuple(int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    return Features(version, number)
