"""Register services, find them, and take part in consumer groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conveyor_grpc.channel import TIMEOUT_S, LeaderChannel
from conveyor_grpc.wire import registry_pb2 as wire
from conveyor_grpc.wire.registry_pb2_grpc import RegistryServiceStub
from conveyor_sdk.wire.info_pb2 import KIND_UNSPECIFIED, Kind, ServiceDescription


class RegistryClient:
    """Calls `RegistryService` on the leader."""

    def __init__(self, channel: LeaderChannel, *, timeout_s: float = TIMEOUT_S) -> None:
        """Use `channel`, which stays the caller's to close; `timeout_s` bounds each call."""
        self._channel = channel
        self._timeout_s = timeout_s

    async def register(
        self,
        service_id: str,
        description: ServiceDescription,
        endpoint: str,
        *,
        group_id: str = "",
        lease_s: float | None = None,
    ) -> wire.RegisterResponse:
        """Register a service that has no sidecar; the answer says how often to send heartbeats."""
        request = wire.RegisterRequest(
            service_id=service_id, description=description, endpoint=endpoint, group_id=group_id
        )
        if lease_s is not None:
            request.lease.FromMilliseconds(round(lease_s * 1000))
        return await self._channel.call(
            lambda channel: RegistryServiceStub(channel).Register,
            request,
            timeout_s=self._timeout_s,
            repeatable=True,
        )

    async def deregister(self, service_id: str) -> bool:
        """Remove a service; True if it was there."""
        response = await self._channel.call(
            lambda channel: RegistryServiceStub(channel).Deregister,
            wire.DeregisterRequest(service_id=service_id),
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        return response.existed

    async def heartbeat(
        self,
        service_id: str,
        health: wire.ServiceHealth.ValueType = wire.SERVICE_HEALTH_HEALTHY,
        reason: str = "",
    ) -> wire.ServiceHeartbeatResponse:
        """Renew a service's lease.

        Raises:
            NotFoundError: the leader does not know it; register again.
        """
        return await self._channel.call(
            lambda channel: RegistryServiceStub(channel).Heartbeat,
            wire.ServiceHeartbeatRequest(service_id=service_id, health=health, reason=reason),
            timeout_s=self._timeout_s,
            repeatable=True,
        )

    async def list_services(
        self,
        *,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        kind: Kind.ValueType = KIND_UNSPECIFIED,
        healthy_only: bool = False,
    ) -> Sequence[wire.Service]:
        """Return the services that match all that is given."""
        response = await self._channel.call(
            lambda channel: RegistryServiceStub(channel).ListServices,
            wire.ListServicesRequest(
                name=name, labels=labels or {}, kind=kind, healthy_only=healthy_only
            ),
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        return response.services

    async def join_group(
        self,
        group_id: str,
        member_id: str,
        service_name: str,
        topics: Sequence[str],
        *,
        partition_names: Sequence[str] = (),
    ) -> wire.GroupAssignment:
        """Join a consumer group, or join it again; the answer holds the partitions to read."""
        response = await self._channel.call(
            lambda channel: RegistryServiceStub(channel).JoinGroup,
            wire.JoinGroupRequest(
                group_id=group_id,
                member_id=member_id,
                service_name=service_name,
                topics=topics,
                partition_names=partition_names,
            ),
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        return response.assignment

    async def heartbeat_group(
        self, group_id: str, member_id: str, generation: int
    ) -> wire.GroupAssignment:
        """Stay a member; the answer holds the present generation and its partitions."""
        response = await self._channel.call(
            lambda channel: RegistryServiceStub(channel).HeartbeatGroup,
            wire.HeartbeatGroupRequest(
                group_id=group_id, member_id=member_id, generation=generation
            ),
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        return response.assignment

    async def leave_group(self, group_id: str, member_id: str) -> bool:
        """Leave a group, which moves its partitions to the others; True if it was a member."""
        response = await self._channel.call(
            lambda channel: RegistryServiceStub(channel).LeaveGroup,
            wire.LeaveGroupRequest(group_id=group_id, member_id=member_id),
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        return response.was_member

    async def get_group(self, group_id: str) -> wire.Group:
        """Return a group with all its members and their partitions."""
        response = await self._channel.call(
            lambda channel: RegistryServiceStub(channel).GetGroup,
            wire.GetGroupRequest(group_id=group_id),
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        return response.group
