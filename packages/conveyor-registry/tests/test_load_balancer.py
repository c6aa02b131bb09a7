"""`LoadBalancer`: turns, weights, health."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from conveyor_raft.machines.router import ServiceHealth, ServiceType
from conveyor_registry import LoadBalancer, RegisteredService
from conveyor_registry.load_balancer import NAMES_MAX, weight_of


def service(service_id, health=ServiceHealth.HEALTHY, name="svc", **labels):
    return RegisteredService(
        service_id=service_id,
        service_name=name,
        service_type=ServiceType.TRANSFORM,
        endpoint=f"{service_id}:1",
        labels=labels,
        health=health,
        group_id=None,
        registered_at=None,
        last_heartbeat=None,
        lease_duration=timedelta(seconds=30),
    )


def test_everybody_has_a_turn_also_when_the_list_changes():
    """Round robin over ids, not over places in a list."""
    balancer = LoadBalancer.new()
    three = [service("c"), service("a"), service("b")]
    assert [balancer.select(three) for _ in range(4)] == ["a:1", "b:1", "c:1", "a:1"]
    assert balancer.select([service("c"), service("a")]) == "c:1"
    assert balancer.select([]) is None


def test_health_decides_and_panic_does_not():
    """Healthy ones first, then those that may work, then anybody."""
    balancer = LoadBalancer()
    ill, slow, well = (
        service("ill", ServiceHealth.UNHEALTHY),
        service("slow", ServiceHealth.DEGRADED),
        service("well"),
    )
    assert {balancer.select([ill, slow, well]) for _ in range(3)} == {"well:1"}
    assert {balancer.select([ill, slow]) for _ in range(3)} == {"slow:1"}
    assert balancer.select([ill]) == "ill:1"


def test_weights_come_from_a_label():
    """Three to one; zero takes no calls; what is no number counts as one."""
    balancer = LoadBalancer()
    both = [service("a", weight="3"), service("b")]
    assert Counter(balancer.select_weighted(both) for _ in range(8)) == {"a:1": 6, "b:1": 2}
    assert balancer.select_weighted([service("a", weight="0"), service("b")]) == "b:1"
    assert balancer.select_weighted([service("a", weight="0")]) is None
    assert balancer.select_weighted([]) is None


def test_a_weightless_healthy_one_does_not_hide_a_working_one():
    """Weight 0 means drained: the degraded one is asked instead."""
    drained = service("a", weight="0")
    slow = service("b", ServiceHealth.DEGRADED)
    assert LoadBalancer().select_weighted([drained, slow]) == "b:1"


@pytest.mark.parametrize(
    ("text", "weight"), [("5", 5), ("-1", 1), ("many", 1), ("1000001", 1), ("0", 0)]
)
def test_weights_are_bounded(text, weight):
    """A label is a user's text."""
    assert weight_of(service("a", weight=text)) == weight


def test_memory_is_bounded():
    """The names used last are remembered."""
    balancer = LoadBalancer()
    for number in range(NAMES_MAX + 10):
        balancer.select([service("a", name=f"n{number}")])
    assert len(balancer._places) == NAMES_MAX
