"""`RegistryService`: services that register themselves, and consumer groups.

Thin: what registering, leases and groups mean is `conveyor_registry`'s; here messages become
    calls on the leader.
A service says all that it can do when it registers, not only its name and address, so a pipeline
can be validated against it.
"""

from __future__ import annotations

from conveyor_grpc.convert.groups import assignment_message, group_message
from conveyor_grpc.convert.services import (
    TYPE_OF_KIND,
    duration,
    health_of,
    offer_of,
    service_message,
)
from conveyor_grpc.errors import InvalidRequestError, NotFoundError
from conveyor_grpc.interceptors import Context
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_grpc.wire import registry_pb2 as wire
from conveyor_grpc.wire.registry_pb2_grpc import RegistryServiceServicer
from conveyor_raft.machines.router import RouterCommand, ServiceHealth, ServiceRecord
from conveyor_registry import GroupCoordinator, ServiceRegistry, model
from conveyor_sdk.wire.info_pb2 import KIND_UNSPECIFIED


class RegistryServicer(RegistryServiceServicer):
    """Answers on the leader."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._registry = ServiceRegistry(plane.node, liveness=plane.liveness)
        self._groups = GroupCoordinator(plane.node, liveness=plane.liveness)

    async def Register(  # noqa: N802
        self, request: wire.RegisterRequest, context: Context
    ) -> wire.RegisterResponse:
        """Register a service that has no sidecar."""
        plane = self._plane
        offer = offer_of(
            service_id=request.service_id,
            description=request.description,
            endpoint=request.endpoint,
            namespace=request.namespace,
            group_id=request.group_id,
        )
        lease_ms = plane.options.service_lease_ms
        if request.HasField("lease"):
            lease_ms = request.lease.ToMilliseconds()
        command = RouterCommand.RegisterService(**offer.model_dump(), lease_ms=lease_ms)
        outcome = await plane.propose(command)
        plane.liveness.beat_service(request.service_id, plane.now_ms())
        return wire.RegisterResponse(
            lease=duration(lease_ms),
            heartbeat_interval=duration(min(lease_ms // 3, plane.options.service_heartbeat_ms)),
            revision=outcome.revision,
        )

    async def Deregister(  # noqa: N802
        self, request: wire.DeregisterRequest, context: Context
    ) -> wire.DeregisterResponse:
        """Remove a service."""
        self._plane.require_leading()
        return wire.DeregisterResponse(existed=await self._registry.deregister(request.service_id))

    async def Heartbeat(  # noqa: N802
        self, request: wire.ServiceHeartbeatRequest, context: Context
    ) -> wire.ServiceHeartbeatResponse:
        """Renew a lease in the leader's memory."""
        self._plane.require_leading()
        lease = await self._registry.heartbeat(
            request.service_id, health_of(request.health), request.reason
        )
        return wire.ServiceHeartbeatResponse(lease=duration(round(lease.total_seconds() * 1000)))

    async def ListServices(  # noqa: N802
        self, request: wire.ListServicesRequest, context: Context
    ) -> wire.ListServicesResponse:
        """Return the services that match."""
        state = await self._plane.leader_state()
        if request.kind not in (KIND_UNSPECIFIED, *TYPE_OF_KIND):
            raise InvalidRequestError(f"{request.kind} is not a kind of services")
        services = [
            service_message(record, self._plane.heard_ms(service_id=record.service_id))
            for _, record in sorted(state.services.items())
            if _matches(record, request)
        ]
        return wire.ListServicesResponse(services=services, revision=state.revision)

    async def JoinGroup(  # noqa: N802
        self, request: wire.JoinGroupRequest, context: Context
    ) -> wire.JoinGroupResponse:
        """Join a consumer group."""
        self._plane.require_leading()
        assignment = await self._groups.join_group(
            request.group_id,
            request.member_id,
            request.service_name,
            list(request.topics),
            partitions=list(request.partition_names) or None,
        )
        return wire.JoinGroupResponse(assignment=assignment_message(assignment))

    async def LeaveGroup(  # noqa: N802
        self, request: wire.LeaveGroupRequest, context: Context
    ) -> wire.LeaveGroupResponse:
        """Leave a consumer group."""
        self._plane.require_leading()
        was_member = await self._groups.leave_group(request.group_id, request.member_id)
        return wire.LeaveGroupResponse(was_member=was_member)

    async def HeartbeatGroup(  # noqa: N802
        self, request: wire.HeartbeatGroupRequest, context: Context
    ) -> wire.HeartbeatGroupResponse:
        """Stay a member of a consumer group."""
        self._plane.require_leading()
        assignment = await self._groups.heartbeat(request.group_id, request.member_id)
        return wire.HeartbeatGroupResponse(assignment=assignment_message(assignment))

    async def GetGroup(  # noqa: N802
        self, request: wire.GetGroupRequest, context: Context
    ) -> wire.GetGroupResponse:
        """Return a consumer group."""
        state = await self._plane.leader_state()
        record = state.groups.get(request.group_id)
        if record is None:
            close = model.nearest(request.group_id, state.groups)
            hint = f"; did you mean {close!r}?" if close else ""
            raise NotFoundError(f"there is no group {request.group_id!r}{hint}")
        return wire.GetGroupResponse(group=group_message(record))


def _matches(record: ServiceRecord, request: wire.ListServicesRequest) -> bool:
    return (
        request.name in ("", record.service_name)
        and (request.kind == KIND_UNSPECIFIED or TYPE_OF_KIND[request.kind] is record.service_type)
        and (not request.healthy_only or record.health is ServiceHealth.HEALTHY)
        and all(record.labels.get(key) == value for key, value in request.labels.items())
    )
