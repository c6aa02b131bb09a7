"""The specification's samples in their Python form, on a replicated log of three in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from conveyor_raft.machines.router import RouterStateMachine
from conveyor_raft.testing.cluster import memory_cluster, wait_for_leader
from conveyor_registry import (
    GroupCoordinator,
    GroupMember,
    LoadBalancer,
    PartitionAssignment,
    RegisteredService,
    ServiceGroup,
    ServiceHealth,
    ServiceRegistry,
    ServiceType,
)

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def raft_node() -> AsyncIterator[object]:
    patient = {"election_timeout_min_ms": 1_000, "election_timeout_max_ms": 2_000}
    async with memory_cluster(3, RouterStateMachine, **patient) as nodes:
        yield await wait_for_leader(nodes)


async def test_service_registry(raft_node):
    """Register, query, stay alive, clean up."""
    labels = {"env": "prod"}
    registry = ServiceRegistry.new(raft_node)

    lease = await registry.register(
        "service-123",
        "kafka-source",
        ServiceType.Source,
        "10.0.0.1:50051",
        labels,
        "group-1",
    )
    sources = await registry.get_services_by_name("kafka-source")
    healthy = await registry.get_healthy_services_by_labels(labels)
    await registry.heartbeat("service-123")
    expired = await registry.cleanup_expired()

    assert lease == timedelta(seconds=30)
    assert sources == healthy
    assert expired == []
    (service,) = sources
    assert isinstance(service, RegisteredService)
    assert service.service_id == "service-123"
    assert service.service_name == "kafka-source"
    assert service.service_type is ServiceType.SOURCE
    assert service.endpoint == "10.0.0.1:50051"
    assert service.labels == labels
    assert service.health is ServiceHealth.Healthy
    assert service.group_id == "group-1"
    assert service.registered_at is not None
    assert service.last_heartbeat is not None
    assert service.lease_duration == timedelta(seconds=30)


async def test_group_coordinator(raft_node):
    """Join, read, leave; the generation counts."""
    coordinator = GroupCoordinator.new(raft_node)

    assignment = await coordinator.join_group("group-1", "member-1", "kafka-source", ["topic-1"])
    partitions = assignment.assigned_partitions
    group = await coordinator.get_group("group-1")
    await coordinator.leave_group("group-1", "member-1")

    assert assignment == PartitionAssignment("group-1", "member-1", 1, [0])
    assert partitions == [0]
    assert isinstance(group, ServiceGroup)
    assert isinstance(group.members[0], GroupMember)
    after = await coordinator.get_group("group-1")
    assert (after.generation, after.members) == (2, [])


async def test_load_balancer(raft_node):
    """Round robin and weights over what is registered."""
    registry = ServiceRegistry.new(raft_node)
    for number in (1, 2):
        await registry.register(f"s{number}", "svc", ServiceType.Transform, f"10.0.0.{number}:1")
    services = await registry.get_services_by_name("svc")

    balancer = LoadBalancer.new()
    endpoint = balancer.select(services)
    weighted = balancer.select_weighted(services)

    assert endpoint == "10.0.0.1:1"
    assert weighted in {"10.0.0.1:1", "10.0.0.2:1"}


@pytest.mark.parametrize("kind", ["Source", "Transform", "Sink"])
async def test_service_types(kind):
    """The names of the specification, and those of Python."""
    assert getattr(ServiceType, kind) is getattr(ServiceType, kind.upper())


@pytest.mark.parametrize("health", ["Healthy", "Degraded", "Unhealthy", "Unknown"])
async def test_service_healths(health):
    """The names of the specification, and those of Python."""
    assert getattr(ServiceHealth, health) is getattr(ServiceHealth, health.upper())
