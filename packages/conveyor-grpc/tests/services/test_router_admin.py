"""What operators see."""

import asyncio
from typing import Any

import pytest

from conveyor_grpc import errors
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire import sidecar_pb2


@pytest.mark.asyncio
async def test_listing_and_getting(cluster: Any) -> None:
    """Documents, services and sidecars are resources of one form."""
    await cluster.run_flights()
    services = (await cluster.admin.list("Service")).resources
    assert [one.name for one in services] == ["a-in", "a-mid", "b-out"]
    assert services[0].service.description.partitions == ["p0", "p1"]
    sidecars = (await cluster.admin.list("Sidecar", namespace="default")).resources
    assert [one.sidecar.endpoint for one in sidecars] == ["a:9091", "b:9091"]
    assert not (await cluster.admin.list("Sidecar", namespace="elsewhere")).resources
    pipeline = await cluster.admin.get("Pipeline", "flights")
    assert (pipeline.pipeline.phase, pipeline.version) == ("Running", 1)


@pytest.mark.asyncio
async def test_what_is_not_there_names_the_nearest(cluster: Any) -> None:
    """Kinds and names alike."""
    await cluster.admin.apply([cluster.pipeline()])
    with pytest.raises(errors.NotFoundError, match="did you mean 'flights'"):
        await cluster.admin.get("Pipeline", "fligths")
    with pytest.raises(errors.NotFoundError, match="flights"):
        await cluster.admin.pipeline_status("fligths")
    with pytest.raises(errors.InvalidRequestError, match="did you mean Pipeline"):
        await cluster.admin.list("Pipelines")


@pytest.mark.asyncio
async def test_a_pipelines_status_shows_who_runs_what_and_how_far(cluster: Any) -> None:
    """Stages in order, their instances and counters, positions of all partitions."""
    await cluster.run_flights()
    counters = sidecar_pb2.StageCounters(
        pipeline="default/flights", stage="mid", records_in=10, filtered=3
    )
    await cluster.sidecars.heartbeat(
        sidecar_pb2.SidecarHeartbeatRequest(
            sidecar_id="a", boot_id="boot-1", revision_applied=1, stages=[counters]
        )
    )
    status = await cluster.admin.pipeline_status("flights")
    assert status.summary.phase == "Running"
    assert [stage.stage for stage in status.stages] == ["in", "mid", "out"]
    source, middle, sink = status.stages
    assert source.instances[0].partitions == 2
    assert middle.instances[0].counters.records_in == 10
    assert middle.total.filtered == 3
    assert sink.instances[0].instance.sidecar_endpoint == "b:9091"
    assert status.counters_since.seconds > 0


@pytest.mark.asyncio
async def test_each_router_tells_its_own_view(three: Any) -> None:
    """Status needs no leader, and agrees about who leads."""
    await three.register("a", ("source", "in"))
    views = [await three.admin.cluster_status(endpoint=router.address) for router in three.routers]
    assert {view.node_id for view in views} == {1, 2, 3}
    leader = three.leader.node.node_id
    assert {view.leader_id for view in views} == {leader}
    assert [view.role for view in views].count("leader") == 1
    assert {len(view.members) for view in views} == {3}
    assert views[0].sidecars == 1
    assert views[0].leader_address == three.leader.address


@pytest.mark.asyncio
async def test_a_client_that_knows_a_follower_reaches_the_leader(three: Any) -> None:
    """The redirection carries the leader's client address, and all members are learned."""
    await three.admin.apply([three.pipeline()])
    assert three.channel.leader == three.leader.address
    assert set(three.channel.endpoints) == {router.address for router in three.routers}


@pytest.mark.asyncio
async def test_a_leader_that_has_not_caught_up_does_not_answer(cluster: Any) -> None:
    """Until it has applied what earlier leaders agreed on, acknowledged facts may be missing."""
    cluster.leader.plane.end_leading()
    impatient = RouterAdminClient(cluster.channel, timeout_s=1.0)
    with pytest.raises(errors.NotReadyError):
        await impatient.list("Pipeline")
    await cluster.leader.plane.begin_leading()
    assert not (await impatient.list("Pipeline")).resources


@pytest.mark.asyncio
async def test_events_come_in_the_order_of_the_log(cluster: Any) -> None:
    """A watcher begins with a bookmark and then sees each change of what it asked for."""
    events = cluster.admin.watch_events(kind="Pipeline")
    first = await anext(events)
    assert first.type == wire.EVENT_TYPE_BOOKMARK
    await cluster.register("a", ("source", "in"))
    await cluster.admin.apply([cluster.pipeline()])
    created = await asyncio.wait_for(anext(events), 5)
    assert (created.kind, created.name, created.type) == (
        "Pipeline",
        "default/flights",
        wire.EVENT_TYPE_CREATED,
    )
    assert created.revision > first.revision
    await cluster.admin.delete("Pipeline", "flights")
    updated = await asyncio.wait_for(anext(events), 5)
    assert updated.type == wire.EVENT_TYPE_UPDATED
    await events.aclose()


@pytest.mark.asyncio
async def test_a_watcher_that_fell_behind_is_told(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no longer kept is not silently left out."""
    monkeypatch.setattr("conveyor_raft.machines.router.state.HISTORY_MAX", 1)
    events = cluster.admin.watch_events()
    await anext(events)
    await cluster.register("a", ("source", "in"), ("sink", "out"))
    with pytest.raises(errors.FellBehindError, match="list"):
        await asyncio.wait_for(anext(events), 5)
