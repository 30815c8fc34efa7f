"""The bytes of forms under way: files on the disk and fields in memory, of all clients together within a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from reverie_protocol.errors import ErrorCode, ReverieError

#: Files of the largest size that may be under way at once, as many as fit on the disk of a small machine (1 GiB at
#: the default of 64 MiB); who comes later is told to come again.
AT_ONCE: Final = 16
_RETRY_S: Final = 2.0
_MIB: Final = 1 << 20


class FormBytes:
    """Counts what arrives in forms until their files are kept."""

    def __init__(self, *, max_file_mb: float) -> None:
        self.max_file_bytes = int(max_file_mb * _MIB)
        self._held_bytes = 0

    @contextmanager
    def counted(self) -> Iterator[Callable[[int], None]]:
        """A function to call with the size of each piece of one form; `rate_limited` for too many at once."""
        own_bytes = 0

        def add(size: int) -> None:
            nonlocal own_bytes
            own_bytes += size
            self._held_bytes += size
            if self._held_bytes > AT_ONCE * self.max_file_bytes:
                raise ReverieError(
                    ErrorCode.RATE_LIMITED, "too many files arrive at once", retry_after=_RETRY_S
                )

        try:
            yield add
        finally:
            self._held_bytes -= own_bytes
