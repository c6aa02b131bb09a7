"""Services that register themselves, and consumer groups."""

from typing import Any

import pytest

from conveyor_grpc import errors
from conveyor_grpc.wire import registry_pb2 as wire
from conveyor_sdk.wire import info_pb2

KAFKA = info_pb2.ServiceDescription(
    name="kafka-source", kind=info_pb2.KIND_SOURCE, labels={"zone": "a"}, stable_offsets=True
)


@pytest.mark.asyncio
async def test_a_service_registers_with_a_lease_and_is_found(cluster: Any) -> None:
    """By name, by labels, by kind, and with all that it said of itself."""
    answer = await cluster.registry.register("service-123", KAFKA, "10.0.0.1:50051", group_id="g")
    assert (answer.lease.seconds, answer.heartbeat_interval.seconds) == (30, 10)
    (found,) = await cluster.registry.list_services(name="kafka-source")
    assert (found.service_id, found.endpoint, found.group_id) == (
        "service-123",
        "10.0.0.1:50051",
        "g",
    )
    assert found.description.stable_offsets
    assert await cluster.registry.list_services(labels={"zone": "a"}, healthy_only=True)
    assert not await cluster.registry.list_services(labels={"zone": "b"})
    assert not await cluster.registry.list_services(kind=info_pb2.KIND_SINK)


@pytest.mark.asyncio
async def test_heartbeats_keep_it_and_report_its_health(cluster: Any) -> None:
    """Whoever is not registered is told to do so."""
    with pytest.raises(errors.NotFoundError, match="register"):
        await cluster.registry.heartbeat("service-123")
    await cluster.registry.register("service-123", KAFKA, "10.0.0.1:50051", lease_s=60)
    assert (await cluster.registry.heartbeat("service-123")).lease.seconds == 60
    await cluster.registry.heartbeat("service-123", wire.SERVICE_HEALTH_DEGRADED, "slow disk")
    assert not await cluster.registry.list_services(healthy_only=True)
    (found,) = await cluster.registry.list_services()
    assert found.health_reason == "slow disk"
    assert found.last_heartbeat.seconds > 0
    assert await cluster.registry.deregister("service-123")
    assert not await cluster.registry.deregister("service-123")


@pytest.mark.asyncio
@pytest.mark.parametrize("lease_s", [0.5, 4000])
async def test_a_lease_out_of_bounds_is_refused(cluster: Any, lease_s: float) -> None:
    """A lease lasts from one second to one hour."""
    with pytest.raises(errors.InvalidRequestError, match="lease"):
        await cluster.registry.register("s", KAFKA, "h:1", lease_s=lease_s)


@pytest.mark.asyncio
async def test_a_group_shares_its_partitions(cluster: Any) -> None:
    """Each join makes a generation, and every member learns its part."""
    names = ["x", "y", "z", "w"]
    first = await cluster.registry.join_group(
        "group-1", "member-1", "kafka-source", ["topic-1"], partition_names=names
    )
    assert first.assigned_partitions == [0, 1, 2, 3]
    second = await cluster.registry.join_group(
        "group-1", "member-2", "kafka-source", ["topic-1"], partition_names=names
    )
    assert len(second.assigned_partitions) == 2
    assert second.generation > first.generation
    now = await cluster.registry.heartbeat_group("group-1", "member-1", first.generation)
    assert now.generation == second.generation
    assert sorted([*now.assigned_partitions, *second.assigned_partitions]) == [0, 1, 2, 3]
    group = await cluster.registry.get_group("group-1")
    assert len(group.partition_names) == 4
    assert await cluster.registry.leave_group("group-1", "member-2")
    assert not await cluster.registry.leave_group("group-1", "member-2")
    with pytest.raises(errors.NotFoundError):
        await cluster.registry.heartbeat_group("group-1", "member-2", second.generation)
    with pytest.raises(errors.NotFoundError, match="group-1"):
        await cluster.registry.get_group("group-2")
