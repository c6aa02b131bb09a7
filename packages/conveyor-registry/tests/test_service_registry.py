"""`ServiceRegistry` beyond its samples: refusals, idempotence, followers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from conveyor_raft.errors import CommandRejected, NotLeader
from conveyor_raft.machines.router import ServiceHealth, ServiceType
from conveyor_registry import InvalidRegistration, NotRegistered, ServiceRegistry

pytestmark = pytest.mark.asyncio


class Clock:
    now = 0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(world, clock):
    return ServiceRegistry(world.raft, clock=clock)


async def register(registry, service_id="s1", **more):
    return await registry.register(
        service_id, "kafka-source", ServiceType.SOURCE, "10.0.0.1:50051", **more
    )


async def test_the_lease_is_thirty_seconds_unless_told(registry):
    """Bounds: one second to one hour."""
    assert await register(registry) == timedelta(seconds=30)
    assert await register(registry, lease=timedelta(seconds=1)) == timedelta(seconds=1)
    for wrong in (0.5, 3_601):
        with pytest.raises(InvalidRegistration, match="lease_ms"):
            await register(registry, lease=timedelta(seconds=wrong))


async def test_what_breaks_a_bound_is_named(registry, world):
    """And nothing is proposed."""
    for more, field in (
        ({"service_id": "a b"}, "service_id"),
        ({"labels": {"k": "v" * 257}}, "labels.k"),
        ({"namespace": "x" * 64}, "namespace"),
    ):
        with pytest.raises(InvalidRegistration, match=field):
            await register(registry, **more)
    assert world.raft.proposals == 0


async def test_a_heartbeat_costs_no_entry(registry, world):
    """Only a change of health is recorded."""
    await register(registry)
    before = world.raft.proposals
    assert await registry.heartbeat("s1") == timedelta(seconds=30)
    assert world.raft.proposals == before
    await registry.heartbeat("s1", ServiceHealth.DEGRADED, "queue is long")
    await registry.heartbeat("s1", ServiceHealth.DEGRADED, "queue is long")
    assert world.raft.proposals == before + 1
    service = await registry.get_service("s1")
    assert (service.health, service.health_reason) == (ServiceHealth.DEGRADED, "queue is long")


async def test_an_unknown_service_is_told_to_register(registry):
    """With the nearest name, in case it is a slip."""
    await register(registry, "service-1")
    with pytest.raises(NotRegistered, match="did you mean 'service-1'"):
        await registry.heartbeat("service-2")


async def test_silence_is_recorded_then_ends_the_registration(registry, clock):
    """Unhealthy after one lease, removed after two more."""
    await register(registry)
    clock.now = 30_000
    assert await registry.cleanup_expired() == []
    (service,) = await registry.get_services_by_name("kafka-source")
    assert service.health is ServiceHealth.UNHEALTHY
    assert await registry.get_healthy_services_by_labels({}) == []
    clock.now = 90_000
    assert await registry.cleanup_expired() == ["s1"]
    assert await registry.get_services() == []


async def test_a_heartbeat_makes_it_healthy_again(registry, clock):
    """At once, by the heartbeat itself."""
    await register(registry)
    clock.now = 30_000
    await registry.cleanup_expired()
    await registry.heartbeat("s1")
    assert (await registry.get_service("s1")).health is ServiceHealth.HEALTHY


async def test_queries_filter_and_sort(registry, world):
    """By name, kind, labels, health, namespace; on the agreed state of sidecars as well."""
    await register(registry, "s2", labels={"zone": "a", "tier": "1"})
    await register(registry, "s1", labels={"zone": "a"})
    world.sidecar("pod", "sink:out")
    assert [one.service_id for one in await registry.get_services_by_labels({"zone": "a"})] == [
        "s1",
        "s2",
    ]
    assert len(await registry.get_services_by_labels({"zone": "a", "tier": "1"})) == 1
    (sink,) = await registry.get_services_by_type(ServiceType.SINK)
    assert (sink.sidecar_id, sink.group_id) == ("pod", None)
    assert await registry.get_services(namespace="other") == []
    assert await registry.get_service("nobody") is None


async def test_deregistering_tells_whether_it_was_there(registry, world):
    """And leaves a sidecar's services to the sidecar."""
    await register(registry)
    assert await registry.deregister("s1")
    assert not await registry.deregister("s1")
    world.sidecar("pod", "sink:out")
    with pytest.raises(CommandRejected, match="belongs to sidecar 'pod'"):
        await registry.deregister("pod/50051/out")


async def test_a_follower_refuses_writes_and_answers_queries(registry, world):
    """And a node that leads again begins with a full lease for everybody."""
    await register(registry)
    world.raft.is_leader = False
    for call in (register(registry), registry.heartbeat("s1"), registry.cleanup_expired()):
        with pytest.raises(NotLeader):
            await call
    assert len(await registry.get_services()) == 1
    assert not registry.liveness.leading
    world.raft.is_leader = True
    await registry.heartbeat("s1")
    assert registry.liveness.leading
