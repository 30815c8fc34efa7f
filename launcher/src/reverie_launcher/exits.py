"""Exit codes of the `reverie` command, and the one exception that ends it with a sentence."""

from __future__ import annotations

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
