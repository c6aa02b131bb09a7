"""Registration, heartbeats and tables."""

import asyncio
from typing import Any

import pytest

from conveyor_grpc import errors
from conveyor_grpc.wire import registry_pb2, sidecar_pb2
from conveyor_raft.machines.router import RouterCommand


def beat(sidecar: str = "a", boot: str = "boot-1", **fields: Any) -> Any:
    return sidecar_pb2.SidecarHeartbeatRequest(sidecar_id=sidecar, boot_id=boot, **fields)


async def next_table(updates: Any) -> Any:
    """Skip progress messages."""
    async with asyncio.timeout(5):
        async for update in updates:
            if update.HasField("table"):
                return update
    raise AssertionError


@pytest.mark.asyncio
async def test_registration_hands_out_what_a_sidecar_needs(cluster: Any) -> None:
    """Lease, heartbeat interval, buffer limits and all routers."""
    answer = await cluster.register("a", ("source", "in"))
    assert (answer.lease.seconds, answer.heartbeat_interval.seconds) == (15, 5)
    assert answer.buffer.total_records_max == 100_000
    assert answer.member_addresses == [cluster.leader.address]
    assert not answer.conflicts
    assert answer.revision > 0


@pytest.mark.asyncio
async def test_the_first_sidecar_to_register_an_endpoint_keeps_it(cluster: Any) -> None:
    """The second one is told who has it."""
    first = cluster.local("a", "sink", "out")
    second = sidecar_pb2.LocalService()
    second.CopyFrom(first)
    second.service_id = "b-out"
    for sidecar, service in (("a", first), ("b", second)):
        answer = await cluster.sidecars.register_sidecar(
            sidecar_pb2.RegisterSidecarRequest(
                sidecar_id=sidecar, boot_id="1", endpoint="127.0.0.1:9091", services=[service]
            )
        )
    (conflict,) = answer.conflicts
    assert (conflict.service_id, conflict.held_by_sidecar_id) == ("b-out", "a")
    assert conflict.endpoint == second.endpoint


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sidecar_id": "no spaces please"}, "sidecar_id"),
        ({"endpoint": ""}, "endpoint"),
        ({"labels": {"k": "v" * 1000}}, "labels"),
    ],
)
async def test_a_registration_out_of_bounds_is_refused(
    cluster: Any, change: dict[str, Any], complaint: str
) -> None:
    """The message names the field."""
    fields = {"sidecar_id": "a", "boot_id": "1", "endpoint": "a:1", **change}
    with pytest.raises(errors.InvalidRequestError, match=complaint):
        await cluster.sidecars.register_sidecar(sidecar_pb2.RegisterSidecarRequest(**fields))


@pytest.mark.asyncio
async def test_a_service_without_a_kind_is_refused(cluster: Any) -> None:
    """What it cannot be used for is not registered."""
    service = sidecar_pb2.LocalService(service_id="x", endpoint="127.0.0.1:1")
    with pytest.raises(errors.InvalidRequestError, match="kind"):
        await cluster.sidecars.register_sidecar(
            sidecar_pb2.RegisterSidecarRequest(
                sidecar_id="a", boot_id="1", endpoint="a:1", services=[service]
            )
        )


@pytest.mark.asyncio
async def test_heartbeats_write_nothing(cluster: Any) -> None:
    """A thousand of them cost no log entry."""
    await cluster.register("a", ("source", "in"))
    before = cluster.leader.node.status().last_index
    for _ in range(20):
        answer = await cluster.sidecars.heartbeat(beat())
    assert cluster.leader.node.status().last_index == before
    assert not answer.commands
    assert answer.revision == (await cluster.leader.state()).table_revision


@pytest.mark.asyncio
async def test_a_stranger_is_told_to_register(cluster: Any) -> None:
    """Unknown sidecars, and starts that another one has replaced."""
    answer = await cluster.sidecars.heartbeat(beat())
    assert answer.commands[0].HasField("re_register")
    await cluster.register("a", boot="boot-2")
    answer = await cluster.sidecars.heartbeat(beat(boot="boot-1"))
    assert "boot-2" in answer.commands[0].re_register.reason


@pytest.mark.asyncio
async def test_a_reported_change_of_health_is_recorded_once(cluster: Any) -> None:
    """Only the change costs an entry."""
    await cluster.register("a", ("source", "in"))
    report = sidecar_pb2.ServiceReport(
        service_id="a-in", health=registry_pb2.SERVICE_HEALTH_UNHEALTHY, reason="refused a call"
    )
    await cluster.sidecars.heartbeat(beat(services=[report]))
    before = cluster.leader.node.status().last_index
    await cluster.sidecars.heartbeat(beat(services=[report]))
    assert cluster.leader.node.status().last_index == before
    resource = await cluster.admin.get("Service", "a-in")
    assert resource.service.health == registry_pb2.SERVICE_HEALTH_UNHEALTHY
    assert resource.service.health_reason == "refused a call"


@pytest.mark.asyncio
async def test_a_draining_sidecar_hears_of_it(cluster: Any) -> None:
    """By its heartbeat, and its work goes to others."""
    await cluster.run_flights()
    await cluster.sidecars.drain_sidecar("a", "node maintenance")
    answer = await cluster.sidecars.heartbeat(beat())
    assert answer.commands[0].drain.reason == "node maintenance"


@pytest.mark.asyncio
async def test_a_table_from_another_past_is_opened_again(cluster: Any) -> None:
    """A revision that the cluster does not have cannot be caught up with."""
    await cluster.register("a")
    answer = await cluster.sidecars.heartbeat(beat(revision_applied=10_000))
    assert answer.commands[0].HasField("resync")


@pytest.mark.asyncio
async def test_a_table_comes_first_and_then_whenever_it_changes(cluster: Any) -> None:
    """Assignments reach the sidecar; what concerns others does not send its table again."""
    await cluster.register("a", ("source", "in"), ("transform", "mid"))
    updates = cluster.sidecars.watch_table("a", "boot-1")
    first = await next_table(updates)
    assert first.registered
    assert not first.table.pipelines
    await cluster.register("b", ("sink", "out"))
    await cluster.admin.apply([cluster.pipeline()])
    await cluster.leader.plan()
    update = await next_table(updates)
    while not update.table.pipelines or not update.table.pipelines[0].partitions:
        update = await next_table(updates)
    (pipeline,) = update.table.pipelines
    assert (pipeline.pipeline, pipeline.version) == ("default/flights", 1)
    assert {(one.stage, one.sidecar_id) for one in pipeline.instances} == {
        ("in", "a"),
        ("mid", "a"),
        ("out", "b"),
    }
    assert [one.partition for one in pipeline.partitions] == ["p0", "p1"]
    assert all(one.term > 0 for one in pipeline.partitions)
    assert not pipeline.partitions[0].HasField("resume_position")
    assert update.revision >= first.revision
    await updates.aclose()


@pytest.mark.asyncio
async def test_what_concerns_others_is_progress_only(cluster: Any) -> None:
    """The table is not sent again, the revision is."""
    await cluster.register("a", ("source", "in"))
    updates = cluster.sidecars.watch_table("a", "boot-1")
    first = await next_table(updates)
    await cluster.register("b", ("sink", "out"))
    async with asyncio.timeout(5):
        progress = await anext(updates)
    assert not progress.HasField("table")
    assert progress.revision > first.revision
    await updates.aclose()


@pytest.mark.asyncio
async def test_a_sidecar_that_is_gone_sees_it_in_its_table(cluster: Any) -> None:
    """It is not registered any more, and has nothing to do."""
    await cluster.run_flights()
    updates = cluster.sidecars.watch_table("b", "boot-1")
    assert (await next_table(updates)).table.pipelines
    assert await cluster.sidecars.deregister_sidecar("b", "boot-1")
    update = await next_table(updates)
    assert not update.registered
    assert not update.table.pipelines
    await updates.aclose()


@pytest.mark.asyncio
async def test_an_old_start_cannot_deregister_a_new_one(cluster: Any) -> None:
    """A slow shutdown does not take its successor away."""
    await cluster.register("a", boot="boot-2")
    with pytest.raises(errors.FencedError, match="boot-2"):
        await cluster.sidecars.deregister_sidecar("a", "boot-1")


@pytest.mark.asyncio
async def test_every_router_serves_tables_and_a_watch_moves_on(three: Any) -> None:
    """When the router of a watch goes away, the watch goes on at another one."""
    await three.register("a", ("source", "in"))
    updates = three.sidecars.watch_table("a", "boot-1")
    first = await next_table(updates)
    for router in three.routers[1:]:
        router.plane.feed.close()
        await router.server.stop(0)
    again = await next_table(updates)
    assert again.revision >= first.revision
    await updates.aclose()


@pytest.mark.asyncio
async def test_a_router_behind_the_sidecar_sends_it_elsewhere(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table from the past is never sent."""
    monkeypatch.setattr("conveyor_grpc.services.sidecar.CATCH_UP_MAX_S", 0.05)
    await cluster.register("a")
    request = sidecar_pb2.WatchTableRequest(sidecar_id="a", boot_id="boot-1", revision_known=10_000)
    from conveyor_grpc.wire.sidecar_pb2_grpc import SidecarServiceStub

    stream = cluster.channel.stream_any(
        lambda channel: SidecarServiceStub(channel).WatchTable, request, silence_s=5
    )
    with pytest.raises(errors.NotReadyError, match="already knows"):
        await anext(stream)


@pytest.mark.asyncio
async def test_silence_becomes_a_decision_and_the_table_tells(cluster: Any) -> None:
    """Expiry is recorded, and the next heartbeat asks for a registration."""
    await cluster.register("a")
    record = (await cluster.leader.state()).sidecars["a"]
    plane = cluster.leader.plane
    now = plane.now_ms()
    assert not plane.liveness.decide(await cluster.leader.state(), now)
    later = now + 3 * record.lease_ms
    commands = plane.liveness.decide(await cluster.leader.state(), later)
    assert any(isinstance(command, RouterCommand.ExpireSidecars) for command in commands)
    for command in commands:
        await plane.propose(command)
    answer = await cluster.sidecars.heartbeat(beat())
    assert answer.commands[0].HasField("re_register")
