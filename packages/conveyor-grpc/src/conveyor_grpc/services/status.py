"""What `ClusterStatus`, `PipelineStatus` and `WatchEvents` show."""

from __future__ import annotations

from conveyor_grpc.convert.positions import position_message
from conveyor_grpc.convert.problems import problem_message
from conveyor_grpc.convert.services import timestamp
from conveyor_grpc.convert.table import instance_message
from conveyor_grpc.errors import NotFoundError
from conveyor_grpc.services.apply import offers_for
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_grpc.services.resources import summary_message
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.table_pb2 import StageInstance
from conveyor_raft.machines.router import Change, RouterState, Table
from conveyor_registry import Matcher, model, table_for

EVENT_KINDS: dict[Table, str] = {
    Table.SERVICES: "Service",
    Table.SIDECARS: "Sidecar",
    Table.PIPELINES: "Pipeline",
    Table.INSTANCES: "Instance",
    Table.PARTITIONS: "Partition",
    Table.GROUPS: "Group",
}
"""Kinds of events by table; documents have their own kinds, and the other tables make none."""


def cluster_status(plane: ControlPlane, state: RouterState) -> wire.ClusterStatusResponse:
    """Return how this router sees the cluster."""
    node, status = plane.node, plane.node.status()
    leader = node.leader_member
    return wire.ClusterStatusResponse(
        node_id=node.node_id,
        role=status.role.value,
        term=status.term,
        leader_id=status.leader_id or 0,
        leader_address=leader.client_address if leader is not None else "",
        last_log_index=status.last_index,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        snapshot_index=status.snapshot_index,
        revision=state.revision,
        cluster_id=status.cluster_id,
        version=plane.options.version,
        members=[
            wire.Member(
                node_id=member.node_id,
                raft_address=member.raft_address,
                client_address=member.client_address,
                leader=member.node_id == status.leader_id,
            )
            for member in status.members
        ],
        sidecars=len(state.sidecars),
        services=len(state.services),
        pipelines=len(state.pipelines),
        held_expiries=[
            wire.HeldExpiry(
                sidecar_id=held.sidecar_id, silent_ms=held.silent_ms, reason=held.reason
            )
            for held in plane.liveness.held
        ],
    )


def pipeline_status(
    plane: ControlPlane, state: RouterState, namespace: str, name: str
) -> wire.PipelineStatusResponse:
    """Return everything that is known of a running pipeline.

    Raises:
        NotFoundError: there is none of this name; the message names the nearest.
    """
    pipeline_id = f"{namespace or model.DEFAULT_NAMESPACE}/{name}"
    record = state.pipelines.get(pipeline_id)
    if record is None:
        close = model.nearest(pipeline_id, state.pipelines)
        hint = f"; did you mean {close!r}?" if close else ""
        raise NotFoundError(f"there is no pipeline {pipeline_id!r}{hint}")
    pipeline = model.Pipeline.parse(record.manifest)
    matcher = Matcher(state)
    problems = model.validate(pipeline, offers_for(pipeline, matcher, state), matcher.documents)
    instances = _instances(state, pipeline_id)
    return wire.PipelineStatusResponse(
        revision=state.revision,
        pipeline=pipeline_id,
        version=record.version,
        summary=summary_message(record),
        stages=[
            _stage(plane, state, pipeline_id, pipeline.stage(stage), instances)
            for stage in model.Graph.of(pipeline).order()
        ],
        positions=[position_message(position) for position in state.positions_of(pipeline_id)],
        counters_since=timestamp(plane.counters.since_ms),
        problems=[problem_message(problem, f"Pipeline {pipeline_id}") for problem in problems],
    )


def _instances(state: RouterState, pipeline_id: str) -> dict[tuple[str, int], StageInstance]:
    """Return the messages of all instances of a pipeline: every table that has one has all."""
    rows = state.instances_of(pipeline_id)
    if not rows:
        return {}
    for pipeline in table_for(state, rows[0].sidecar_id).pipelines:
        if pipeline.pipeline_id == pipeline_id:
            return {(one.stage, one.index): instance_message(one) for one in pipeline.instances}
    return {}


def _stage(
    plane: ControlPlane,
    state: RouterState,
    pipeline_id: str,
    stage: model.Stage,
    instances: dict[tuple[str, int], StageInstance],
) -> wire.StageStatus:
    owned: dict[int, int] = {}
    for partition in state.partitions_of(pipeline_id, stage.id):
        if partition.owned:
            owned[partition.index] = owned.get(partition.index, 0) + 1
    return wire.StageStatus(
        stage=stage.id,
        kind=stage.kind.value,
        service_name=stage.service,
        wanted=stage.parallelism or 0,
        instances=[
            wire.InstanceStatus(
                instance=instances.get((stage.id, instance.index)),
                counters=plane.counters.at(instance.sidecar_id, pipeline_id, stage.id),
                partitions=owned.get(instance.index, 0),
            )
            for instance in state.instances_of(pipeline_id, stage.id)
        ],
        total=plane.counters.total(pipeline_id, stage.id),
        records_per_second=plane.counters.rate(pipeline_id, stage.id, plane.now_ms()),
    )


def event_of(change: Change) -> wire.Event | None:
    """Return the event for a change, or None if watchers are not told of it."""
    parts = (change.key,) if isinstance(change.key, str) else tuple(map(str, change.key))
    if change.table is Table.MANIFESTS:
        return _event(change, parts[0], "/".join(parts[1:]))
    kind = EVENT_KINDS.get(change.table)
    return None if kind is None else _event(change, kind, "/".join(parts))


def _event(change: Change, kind: str, name: str) -> wire.Event:
    kind_of_event = wire.EVENT_TYPE_UPDATED
    if change.dropped:
        kind_of_event = wire.EVENT_TYPE_DELETED
    elif change.created:
        kind_of_event = wire.EVENT_TYPE_CREATED
    return wire.Event(
        revision=change.revision,
        at=timestamp(change.timestamp_ms),
        kind=kind,
        name=name,
        type=kind_of_event,
        reason=change.reason,
    )


def concerns(event: wire.Event, request: wire.WatchEventsRequest) -> bool:
    """Tell whether a watcher asked for this event."""
    if request.kind and event.kind != request.kind:
        return False
    if not request.namespace and not request.name:
        return True
    namespace, _, name = event.name.partition("/")
    return request.namespace in ("", namespace) and request.name in ("", name, event.name)
