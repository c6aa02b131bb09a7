"""`SidecarService`: registration, heartbeats, tables.

Registrations go through the log; heartbeats stay in the leader's memory, and only a change of a
service's health that one reports is proposed. The table stream is the authority on what a sidecar
runs: any router serves it from what it has applied, whole, and only when it changed for this
sidecar. Progress messages between tell the sidecar that the stream lives and how far it is, so
that it can tell an old router from a quiet cluster.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from conveyor_grpc.convert.services import duration, health_of
from conveyor_grpc.convert.sidecars import register_command
from conveyor_grpc.convert.table import table_message
from conveyor_grpc.errors import NotReadyError
from conveyor_grpc.interceptors import Context
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_grpc.wire import sidecar_pb2 as wire
from conveyor_grpc.wire.sidecar_pb2_grpc import SidecarServiceServicer
from conveyor_grpc.wire.table_pb2 import BufferLimits
from conveyor_raft.machines.router import RouterCommand, RouterState, SidecarRecord
from conveyor_raft.machines.router.commands import SingleCommand
from conveyor_registry import SidecarTable, table_for

PROGRESS_INTERVAL_S = 5.0
CATCH_UP_MAX_S = 10.0
"""A router that stays behind what a sidecar already knows for so long sends it elsewhere."""


class SidecarServicer(SidecarServiceServicer):
    """The leader registers and listens; every router serves tables."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def RegisterSidecar(  # noqa: N802
        self, request: wire.RegisterSidecarRequest, context: Context
    ) -> wire.RegisterSidecarResponse:
        """Replace all that is known of the sidecar."""
        plane, options = self._plane, self._plane.options
        command = register_command(request, options.sidecar_lease_ms)
        outcome = await plane.propose(command)
        plane.liveness.beat_sidecar(request.sidecar_id, plane.now_ms())
        state = await plane.node.state()
        return wire.RegisterSidecarResponse(
            revision=state.table_revision,
            lease=duration(options.sidecar_lease_ms),
            heartbeat_interval=duration(options.sidecar_heartbeat_ms),
            buffer=BufferLimits(
                total_records_max=options.buffer_total_records_max,
                stage_records_max=options.buffer_stage_records_max,
                backpressure_threshold=options.buffer_backpressure_threshold,
            ),
            conflicts=[
                wire.ServiceConflict(
                    service_id=refusal.item,
                    endpoint=request.services[refusal.position].endpoint,
                    held_by_sidecar_id=refusal.holder,
                )
                for refusal in outcome.refused
            ],
            member_addresses=plane.member_addresses(),
        )

    async def Heartbeat(  # noqa: N802
        self, request: wire.SidecarHeartbeatRequest, context: Context
    ) -> wire.SidecarHeartbeatResponse:
        """Note that the sidecar lives; answer with what it should do."""
        plane = self._plane
        state = await plane.leader_state()
        response = wire.SidecarHeartbeatResponse(
            revision=state.table_revision,
            lease=duration(plane.options.sidecar_lease_ms),
            member_addresses=plane.member_addresses(),
        )
        record = state.sidecars.get(request.sidecar_id)
        stranger = _stranger(record, request)
        if record is None or stranger:
            command = wire.SidecarCommand(
                re_register=wire.SidecarCommand.ReRegister(reason=stranger)
            )
            response.commands.append(command)
            return response
        plane.liveness.beat_sidecar(record.sidecar_id, plane.now_ms())
        plane.counters.take(request, plane.now_ms())
        response.commands.extend(_commands(record, request, state))
        changes = _health_changes(request, state)
        if changes:
            await plane.propose(RouterCommand.Batch(commands=tuple(changes)))
        return response

    async def WatchTable(  # noqa: N802
        self, request: wire.WatchTableRequest, context: Context
    ) -> AsyncIterator[wire.TableUpdate]:
        """Send the table, then each changed one, and progress."""
        level = self._plane.feed.table_revision
        if not await level.wait_above(request.revision_known - 1, CATCH_UP_MAX_S):
            raise NotReadyError(
                f"this router is at table revision {level.value}, the sidecar already knows"
                f" {request.revision_known}; watch another router"
            )
        sent: SidecarTable | None = None
        while not level.closed:
            seen = level.value
            state = await self._plane.node.state()
            table = table_for(state, request.sidecar_id)
            update = wire.TableUpdate(
                revision=table.revision, registered=table.boot_id == request.boot_id != ""
            )
            if table != sent:
                update.table.CopyFrom(table_message(table))
                sent = table
            yield update
            update.ClearField("table")
            while not await level.wait_above(seen, PROGRESS_INTERVAL_S):
                yield update
        raise NotReadyError("this router is stopping; watch another one")

    async def DrainSidecar(  # noqa: N802
        self, request: wire.DrainSidecarRequest, context: Context
    ) -> wire.DrainSidecarResponse:
        """Take the sidecar's assignments away."""
        await self._plane.propose(
            RouterCommand.DrainSidecar(sidecar_id=request.sidecar_id, reason=request.reason)
        )
        state = await self._plane.node.state()
        return wire.DrainSidecarResponse(revision=state.table_revision)

    async def DeregisterSidecar(  # noqa: N802
        self, request: wire.DeregisterSidecarRequest, context: Context
    ) -> wire.DeregisterSidecarResponse:
        """Remove the sidecar with its services."""
        state = await self._plane.leader_state()
        existed = request.sidecar_id in state.sidecars
        await self._plane.propose(
            RouterCommand.DeregisterSidecar(sidecar_id=request.sidecar_id, boot_id=request.boot_id)
        )
        return wire.DeregisterSidecarResponse(existed=existed)


def _stranger(record: SidecarRecord | None, request: wire.SidecarHeartbeatRequest) -> str:
    """Return why the sidecar has to register again; empty: it has not."""
    if record is None:
        return "the routers do not know this sidecar (it was silent for too long, or never came)"
    if record.boot_id != request.boot_id:
        return f"another start of this sidecar is registered: {record.boot_id}"
    return ""


def _commands(
    record: SidecarRecord, request: wire.SidecarHeartbeatRequest, state: RouterState
) -> list[wire.SidecarCommand]:
    commands = []
    if record.draining:
        drain = wire.SidecarCommand.Drain(reason=record.health_reason)
        commands.append(wire.SidecarCommand(drain=drain))
    if request.revision_applied > state.table_revision:
        reason = (
            f"the table in force has revision {request.revision_applied}, the routers are at"
            f" {state.table_revision}: it comes from a past that they do not share"
        )
        commands.append(wire.SidecarCommand(resync=wire.SidecarCommand.Resync(reason=reason)))
    return commands


def _health_changes(
    request: wire.SidecarHeartbeatRequest, state: RouterState
) -> list[SingleCommand]:
    """Return what the sidecar reports of its own services and is not recorded yet."""
    changes: list[SingleCommand] = []
    for report in request.services:
        service = state.services.get(report.service_id)
        if service is None or service.sidecar_id != request.sidecar_id:
            continue
        health = health_of(report.health)
        if (service.health, service.health_reason) != (health, report.reason):
            changes.append(
                RouterCommand.UpdateServiceHealth(
                    service_id=report.service_id, health=health, reason=report.reason[:1024]
                )
            )
    return changes
