"""Structured logs on standard error: JSON for machines, one coloured line for people; never what a user wrote."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor

from reverie_runtime.settings import LogSettings

REDACTED: Final = "[redacted]"
#: A key with one of these words in its name carries what a user wrote, or a secret.
PRIVATE_WORDS: Final = (
    "prompt",
    "params",
    "payload",
    "password",
    "secret",
    "token",
    "authorization",
    "cookie",
)


def configure_logs(settings: LogSettings, *, service: str) -> None:
    """Send structlog's and the standard library's records through one pipe; once per process, at its start."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        final += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # The plain traceback: the rich one shows local variables, and with them what a user wrote.
        final.append(
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # the bus says in its own words what went wrong
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


def bind_job(job_id: str) -> AbstractContextManager[None]:
    """Put `job_id` on every record of the block, also in tasks that it starts."""
    return structlog.contextvars.bound_contextvars(job_id=job_id)


def redact(_: Any, __: str, event: EventDict) -> EventDict:
    """Replace private values, however deep: a processor of structlog."""
    return {key: _clean(key, value) for key, value in event.items()}


def _clean(key: str, value: Any) -> Any:
    if any(word in str(key).lower() for word in PRIVATE_WORDS):
        return REDACTED
    if isinstance(value, dict):
        return {name: _clean(name, item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean("", item) for item in value]
    return value
