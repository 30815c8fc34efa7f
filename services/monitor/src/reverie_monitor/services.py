"""Asking other services whether they are ready."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from reverie_protocol.nodes import ServiceHealth

ASK_TIMEOUT_S: Final = 3.0
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_REASON_CHARS: Final = 200

#: A proxy that the environment names is for the outside, not for services of ours.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def questions(services: Sequence[str]) -> dict[str, Callable[[], ServiceHealth]]:
    """A blocking question by name for each `name=url`."""
    pairs = (service.partition("=") for service in services)
    return {name: partial(ask, name, url) for name, _, url in pairs}


def ask(name: str, url: str) -> ServiceHealth:
    """What `/ready` of a service answers; takes at most about `ASK_TIMEOUT_S`."""
    try:
        with _opener.open(url, timeout=ASK_TIMEOUT_S) as answer:
            answer.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            return ServiceHealth(name=name, ok=False, reason=_reason(error))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return ServiceHealth(name=name, ok=False, reason=f"does not answer: {reason}"[:MAX_REASON_CHARS])
    return ServiceHealth(name=name, ok=True)


def _reason(answer: urllib.error.HTTPError) -> str:
    """The reasons in a 503 of ours, else the status."""
    try:
        body = json.loads(answer.read(MAX_ANSWER_BYTES))
        reasons = "; ".join(f"{part}: {reason}" for part, reason in body["reasons"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        reasons = ""
    return (reasons or f"it answers {answer.code}")[:MAX_REASON_CHARS]
