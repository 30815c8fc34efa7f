"""How long a client may take over a request: the arithmetic, without a connection."""

from __future__ import annotations

import msgspec


class Patience(msgspec.Struct, frozen=True):
    """What is borne: silence for `silence_s` seconds, and on average no fewer than `bytes_per_s` of a body."""

    silence_s: float
    bytes_per_s: float


class Deadline:
    """Until when more has to come; in seconds of the clock whose `now` it is given.

    A request's head is due as a whole.  Each byte of a body puts the end off by the time that it may take at the
    least speed, but never to more than `silence_s` from now: speed is not saved up for a later silence.
    """

    def __init__(self, patience: Patience, now: float) -> None:
        self._patience = patience
        self.at = now + patience.silence_s

    def arrived(self, size_bytes: int, now: float) -> None:
        """Part of a body came."""
        earned = self.at + size_bytes / self._patience.bytes_per_s
        self.at = min(earned, now + self._patience.silence_s)

    def restart(self, now: float) -> None:
        """The client could not send until now: we did not read."""
        self.at = now + self._patience.silence_s
