"""Exit codes of the `reverie` command, and the one exception that ends it with a sentence."""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell sees; documented in `reverie --help` and the README."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMEOUT = 4
    CANCELLED = 5
    INTERRUPTED = 130


class Failure(Exception):
    """Ends the command: `message` says in one sentence what happened, `advice` what to do about it.

    `code` is what `--json` shows as the error's code: the server's own where there is one.
    """

    def __init__(
        self,
        exit_code: ExitCode,
        message: str,
        *,
        advice: str = "",
        code: str = "",
        job_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.advice = advice
        self.code = code or exit_code.name.lower()
        self.job_id = job_id

    @property
    def sentence(self) -> str:
        """Message and advice as they are shown to a person."""
        return f"{self.message} {self.advice}".strip()


def cannot_write(error: Exception) -> bool:
    """Whether an error is that of an output which takes no more: a full disk, a quota, a broken device."""
    return isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
    )


def output_failure(error: OSError, *, advice: str = "Write it elsewhere.") -> Failure:
    """What a person is told of it."""
    return Failure(ExitCode.FAILED, f"The output cannot be written: {error.strerror}.", advice=advice)
