"""Alerts begin, change their level and end once each, however the figures jitter."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie_monitor.alerts.book import AlertBook
from reverie_monitor.alerts.conditions import Conditions
from reverie_monitor.alerts.rules import Condition, Rule
from reverie_monitor.settings import AlertSettings
from reverie_protocol.instances import AlertCode, AlertLevel, SystemAlert
from reverie_protocol.nodes import Disk, Gpu, GpuState, Host, NodeStatus, ServiceHealth, ThrottleReason

HOT = Rule(code=AlertCode.GPU_HOT, warning=80.0, critical=90.0, margin=5.0, unit="°C", hold_s=5.0)
LOW = Rule(code=AlertCode.DISK_LOW, warning=10.0, critical=3.0, margin=2.0, unit="%", falling=True)
GPU = Gpu(
    index=0, uuid="GPU-1", name="Tesla T4", total_gb=16.0, used_gb=1.0, temperature_c=40.0, slowdown_c=93.0
)
HOST = Host(cores=8, cpu_percent=1.0, load=0.1, memory_total_gb=100.0, memory_available_gb=50.0)


class Book:
    """A book that is told one value after the other, a second apart."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.book = AlertBook(source="monitor/bench")
        self.now = 0.0

    def tell(self, *values: float | None) -> list[SystemAlert]:
        told = []
        for value in values:
            self.now += 1.0
            conditions = [Condition(rule=self.rule, subject="x", value=value, what=f"it is {value}")]
            told += self.book.observe(conditions, now=self.now, at=1000 + self.now)
        return told


def levels(alerts: list[SystemAlert]) -> list[str]:
    return ["resolved" if alert.resolved else alert.level.value for alert in alerts]


def test_an_alert_says_what_it_is_about() -> None:
    (alert,) = Book(HOT).tell(*[85.0] * 7)
    assert alert == SystemAlert(
        key="monitor/bench/gpu_hot:x",
        code="gpu_hot",
        level=AlertLevel.WARNING,
        source="monitor/bench",
        message="it is 85.0",
        value=85.0,
        threshold=80.0,
        unit="°C",
        at=1006.0,
    )


def test_a_peak_that_is_shorter_than_the_hold_is_no_alert() -> None:
    assert Book(HOT).tell(*[85.0, 85.0, 85.0, 70.0] * 10) == []


def test_a_figure_that_hovers_around_its_threshold_begins_once_and_does_not_end() -> None:
    assert levels(Book(HOT).tell(*[85.0] * 7, *[79.0, 81.0] * 20)) == ["warning"]


def test_it_ends_when_it_stayed_below_the_margin() -> None:
    book = Book(HOT)
    assert levels(book.tell(*[85.0] * 7, *[70.0] * 3, 78.0, *[70.0] * 5)) == ["warning"]
    (over,) = book.tell(*[70.0] * 2)
    assert (over.resolved, over.value, over.message) == (True, 70.0, "over: it is 85.0")
    assert book.book.open == []


def test_it_becomes_critical_and_a_warning_again() -> None:
    assert levels(Book(HOT).tell(*[85.0] * 7, *[95.0] * 7, *[82.0] * 7, *[10.0] * 7)) == [
        "warning",
        "critical",
        "warning",
        "resolved",
    ]


def test_a_figure_that_jumps_between_two_levels_is_told_after_the_hold_all_the_same() -> None:
    assert levels(Book(HOT).tell(*[85.0, 95.0] * 4))[:1] in (["warning"], ["critical"])


def test_low_values_alert_where_a_rule_falls() -> None:
    assert levels(Book(LOW).tell(50.0, 9.0, 11.0, 2.0, 4.0, 6.0, 13.0)) == [
        "warning",
        "critical",
        "warning",
        "resolved",
    ]


def test_what_is_not_measured_any_more_ends() -> None:
    assert levels(Book(HOT).tell(*[85.0] * 7, *[None] * 7)) == ["warning", "resolved"]
    book = AlertBook(source="s")
    condition = Condition(rule=LOW, subject="", value=1.0, what="low")
    assert levels(book.observe([condition], now=0.0, at=0.0)) == ["critical"]
    assert levels(book.observe([], now=1.0, at=1.0)) == ["resolved"]
    assert book.observe([], now=2.0, at=2.0) == []


@given(st.lists(st.one_of(st.none(), st.floats(0, 120)), max_size=80), st.sampled_from([0.0, 3.0]))
def test_alerts_of_one_key_alternate_and_never_repeat_a_level(
    values: list[float | None], hold_s: float
) -> None:
    rule = Rule(code=AlertCode.GPU_HOT, warning=80.0, critical=90.0, margin=5.0, hold_s=hold_s)
    book = Book(rule)
    told = levels(book.tell(*values))
    assert all(before != after for before, after in pairwise(told))
    assert told[:1] != ["resolved"]
    open_levels = [alert.level.value for alert in book.book.open]
    assert open_levels == ([told[-1]] if told and told[-1] != "resolved" else [])


@given(st.lists(st.floats(-4.9, 4.9), min_size=1, max_size=60))
def test_jitter_within_the_margin_never_flaps(noise: list[float]) -> None:
    rule = Rule(code=AlertCode.GPU_HOT, warning=80.0, margin=5.0)
    assert len(Book(rule).tell(*(80.0 + each for each in noise))) <= 1


def told(
    node: NodeStatus, *, storage_reason: str = "", silence: dict[str, float] | None = None, **settings: float
) -> list[tuple[str, str, float | None, float | None]]:
    conditions = Conditions(AlertSettings(**{"hold_s": 0.0, "service_down_s": 0.0, **settings}))
    alerts = AlertBook(source="s").observe(
        conditions.of(node, storage_reason=storage_reason, silence=silence or {}), now=0.0, at=0.0
    )
    return [(alert.code, alert.level.value, alert.value, alert.threshold) for alert in alerts]


def gpu(**fields: object) -> NodeStatus:
    base = {name: getattr(GPU, name) for name in GPU.__struct_fields__}
    return NodeStatus(node="n", gpus=(Gpu(**{**base, **fields}),))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (gpu(used_gb=15.9), ("vram_high", "warning", 99.4, 97.0)),
        (gpu(temperature_c=88.0), ("gpu_hot", "warning", 88.0, 87.0)),
        (gpu(temperature_c=93.0), ("gpu_hot", "critical", 93.0, 93.0)),
        (gpu(temperature_c=85.0, slowdown_c=84.0), ("gpu_hot", "critical", 85.0, 84.0)),
        (gpu(throttled=(ThrottleReason.HARDWARE_THERMAL,)), ("gpu_throttled", "warning", None, None)),
        (gpu(ecc_uncorrected=1), ("gpu_ecc", "critical", 1.0, 1.0)),
        (gpu(ecc_corrected=2000), ("gpu_ecc", "warning", 2000.0, 1000.0)),
        (gpu(state=GpuState.LOST), ("gpu_lost", "critical", None, None)),
        (NodeStatus(node="n", driver_error="it hangs"), ("gpu_unreadable", "warning", None, None)),
        (
            NodeStatus(node="n", disk=Disk(path="/d", total_gb=100.0, free_gb=5.0)),
            ("disk_low", "warning", 5.0, 10.0),
        ),
        (
            NodeStatus(node="n", disk=Disk(path="/d", total_gb=100.0, free_gb=0.0)),
            ("disk_low", "critical", 0.0, 3.0),
        ),
        (
            NodeStatus(node="n", services=(ServiceHealth(name="gateway", ok=False, reason="no"),)),
            ("service_down", "critical", None, None),
        ),
    ],
)
def test_each_trouble_of_a_node_has_its_code_level_value_and_threshold(
    node: NodeStatus, expected: tuple[str, str, float | None, float | None]
) -> None:
    assert told(node) == [expected]


def test_the_store_and_silent_workers_are_troubles_too() -> None:
    assert told(NodeStatus(node="n"), storage_reason="read-only") == [
        ("storage_broken", "critical", None, None)
    ]
    assert told(NodeStatus(node="n"), silence={"a": 5.9, "b": 6.0}) == [
        ("worker_gone", "critical", None, None)
    ]


def test_a_healthy_node_is_no_trouble() -> None:
    healthy = NodeStatus(
        node="n",
        gpus=(GPU, Gpu(index=1, uuid="GPU-2", name="NVIDIA GeForce GT 1030")),
        host=HOST,
        disk=Disk(path="/d", total_gb=100.0, free_gb=50.0),
        services=(ServiceHealth(name="gateway", ok=True),),
    )
    assert told(healthy, silence={"painter": 0.8}) == []


def test_reaching_its_power_limit_is_what_a_gpu_is_for() -> None:
    assert told(gpu(throttled=(ThrottleReason.POWER_CAP,))) == []


def test_a_critical_threshold_before_the_warning_is_refused() -> None:
    with pytest.raises(ValueError, match="memory_critical_percent"):
        AlertSettings(memory_percent=95.0, memory_critical_percent=90.0)
    with pytest.raises(ValueError, match="disk_free_critical_percent"):
        AlertSettings(disk_free_percent=5.0, disk_free_critical_percent=9.0)
