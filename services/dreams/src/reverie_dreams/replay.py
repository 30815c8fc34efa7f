"""Doing a session over from its log: the strategies choose again, and must choose the same.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from reverie_dreams.search.search import Search
from reverie_dreams.strategies.port import Strategy
from reverie_protocol.dream_log import DreamLogEntry, Proposed


class Difference(msgspec.Struct, frozen=True):
    """A candidate that came out otherwise; `made` is None where its strategy is not here."""

    logged: Proposed
    made: Proposed | None


def differences(entries: Sequence[DreamLogEntry], strategies: Mapping[str, Strategy]) -> list[Difference]:
    """Candidates of a log that a replay does not make; none, if nothing but the log decides."""
    search = Search()
    different = []
    for entry in entries:
        for event in entry.events:
            if isinstance(event, Proposed):
                made = _again(search, event, strategies)
                if made != event:
                    different.append(Difference(event, made))
            search.apply(event, at=entry.at)
    return different


def _again(search: Search, event: Proposed, strategies: Mapping[str, Strategy]) -> Proposed | None:
    strategy = strategies.get(event.strategy)
    if strategy is None:
        return None
    return search.propose(strategy.propose, job=event.job, strategy=event.strategy)
