"""The data directory of one `reverie up`: what lies where, and that only one uses it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from reverie_launcher.exits import ExitCode, Failure


class DataDirectory:
    """Paths below DATA, held by a lock from `open` to `close` (or to the death of this process)."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> DataDirectory:
        """Make the directory if it is absent, and lock it; Failure in one sentence otherwise."""
        path = path.expanduser().absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / "reverie.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Failure(
                ExitCode.USAGE,
                f"The data directory {path} cannot be used: {error.strerror}.",
                advice="Choose another with --data.",
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(lock, 200).decode("utf-8", "replace").strip()
            os.close(lock)
            raise Failure(
                ExitCode.USAGE,
                f"{path} is in use by another reverie up{f' ({holder})' if holder else ''}.",
                advice="Stop that one, or choose another directory with --data.",
            ) from None
        return cls(path, lock)

    def describe_holder(self, text: str) -> None:
        """What a second `reverie up` on this directory is told about this one."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, text.encode(), 0)

    def close(self) -> None:
        """Give the directory free; idempotent."""
        if self._lock >= 0:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1

    @property
    def nats(self) -> Path:
        """Configuration and JetStream store of our own nats-server."""
        return self.path / "nats"

    @property
    def storage(self) -> Path:
        """Outputs and uploads."""
        return self.path / "storage"

    @property
    def first_picture(self) -> Path:
        """The picture that `reverie up` makes when everything is ready."""
        return self.path / "first-picture.png"
