"""The alerts that are open: told once as they begin, change their level and end.  Pure: no clock, no bus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec.structs import replace

from reverie_monitor.alerts.rules import Condition, rank
from reverie_protocol.instances import AlertLevel, SystemAlert


class _Line(msgspec.Struct):
    """One key: what is told of it, and since when it has deserved another level, up or down."""

    condition: Condition
    told: SystemAlert | None = None
    towards: int = 0
    since: float = 0.0

    @property
    def level(self) -> AlertLevel | None:
        return self.told.level if self.told is not None else None


class AlertBook:
    """Folds conditions into alerts; `source` says who noticed."""

    def __init__(self, *, source: str) -> None:
        self._source = source
        self._lines: dict[str, _Line] = {}

    @property
    def open(self) -> list[SystemAlert]:
        """Alerts that last."""
        return [line.told for line in self._lines.values() if line.told is not None]

    def observe(self, conditions: Iterable[Condition], *, now: float, at: float) -> list[SystemAlert]:
        """What is to be told after a complete round; `now` in monotonic seconds, `at` in seconds since the epoch.

        What was alerted about and is not measured any more ends like what has become well.
        """
        seen: dict[str, Condition] = {condition.key: condition for condition in conditions}
        for key, line in self._lines.items():
            if key not in seen:
                seen[key] = replace(line.condition, value=None)
        alerts = [alert for key, condition in seen.items() for alert in self._step(key, condition, now, at)]
        self._lines = {
            key: line for key, line in self._lines.items() if line.told is not None or line.towards
        }
        return alerts

    def _step(self, key: str, condition: Condition, now: float, at: float) -> Iterator[SystemAlert]:
        line = self._lines.setdefault(key, _Line(condition))
        line.condition = condition
        wanted = condition.rule.level(condition.value, line.level)
        towards = _sign(rank(wanted) - rank(line.level))
        if towards != line.towards:
            line.towards, line.since = towards, now
        if towards == 0 or now - line.since < condition.rule.hold_s:
            return
        line.towards = 0
        if wanted is not None:
            line.told = self._begun(key, condition, wanted, at)
            yield line.told
        elif line.told is not None:
            yield self._ended(line.told, condition, at)
            line.told = None

    def _begun(self, key: str, condition: Condition, level: AlertLevel, at: float) -> SystemAlert:
        threshold = condition.rule.threshold(level)
        return SystemAlert(
            key=f"{self._source}/{key}",
            code=condition.rule.code,
            level=level,
            source=self._source,
            message=condition.what,
            value=None if condition.is_fact else condition.value,
            threshold=None if condition.is_fact else threshold,
            unit=condition.rule.unit,
            at=at,
        )

    def _ended(self, told: SystemAlert, condition: Condition, at: float) -> SystemAlert:
        value = None if condition.is_fact else condition.value
        return replace(told, message=f"over: {told.message}", value=value, resolved=True, at=at)


def _sign(difference: int) -> int:
    return (difference > 0) - (difference < 0)
