"""When a figure is worth an alert: thresholds with a margin, so that it does not begin and end all the time."""

from __future__ import annotations

from typing import Final

import msgspec

from reverie_protocol.instances import AlertCode, AlertLevel

_RANK: Final = {None: 0, AlertLevel.INFO: 1, AlertLevel.WARNING: 2, AlertLevel.CRITICAL: 3}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of alert.  `falling` is one of low values.

    A level begins at its threshold and ends a margin before it.  Either has to last `hold_s` before it is told; 0
    tells at once.
    """

    code: AlertCode
    warning: float | None = None
    critical: float | None = None
    margin: float = 0.0
    unit: str = ""
    falling: bool = False
    hold_s: float = 0.0

    def level(self, value: float | None, told: AlertLevel | None) -> AlertLevel | None:
        """The level that a value deserves, given the one that is told; None for a value that is not measured."""
        if value is None:
            return None
        for level in (AlertLevel.CRITICAL, AlertLevel.WARNING):
            threshold = self.threshold(level)
            if threshold is None:
                continue
            margin = self.margin if rank(told) >= rank(level) else 0.0
            if value <= threshold + margin if self.falling else value >= threshold - margin:
                return level
        return None

    def threshold(self, level: AlertLevel | None) -> float | None:
        """Where a level begins; None if there is none."""
        return self.critical if level is AlertLevel.CRITICAL else self.warning


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One thing at one moment: its value under a rule, and what to say if that is an alert.

    `subject` tells it from others of its kind; a fact (worker gone) has the value 1 or 0, and `is_fact`.
    """

    rule: Rule
    subject: str
    value: float | None
    what: str
    is_fact: bool = False

    @property
    def key(self) -> str:
        """Names the alert as long as it lasts."""
        return f"{self.rule.code}:{self.subject}" if self.subject else str(self.rule.code)


def rank(level: AlertLevel | None) -> int:
    """Levels in order; none is the lowest."""
    return _RANK[level]
