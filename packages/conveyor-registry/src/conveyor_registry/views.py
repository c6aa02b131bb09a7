"""What users of the registry see: services and groups in the words of the specification.

What for: the agreed records are made for the log; these views are made for callers, with dates and
durations instead of milliseconds. They are built on demand and never written back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from conveyor_raft.machines.router import (
    GroupMemberRecord,
    GroupRecord,
    ServiceHealth,
    ServiceRecord,
    ServiceType,
)


@dataclass(frozen=True, slots=True)
class RegisteredService:
    """One service, as it is registered."""

    service_id: str
    service_name: str
    service_type: ServiceType
    endpoint: str
    labels: Mapping[str, str]
    health: ServiceHealth
    group_id: str | None
    registered_at: datetime | None
    last_heartbeat: datetime | None
    """When it was last heard of, as recorded: the leader's memory may know better."""
    lease_duration: timedelta
    health_reason: str = ""
    sidecar_id: str | None = None
    namespace: str = "default"

    @classmethod
    def of(cls, record: ServiceRecord) -> RegisteredService:
        """The view of a record."""
        return cls(
            service_id=record.service_id,
            service_name=record.service_name,
            service_type=record.service_type,
            endpoint=record.endpoint,
            labels=dict(record.labels),
            health=record.health,
            group_id=record.group_id or None,
            registered_at=_moment(record.registered_ms),
            last_heartbeat=_moment(record.last_heartbeat_ms),
            lease_duration=timedelta(milliseconds=record.lease_ms),
            health_reason=record.health_reason,
            sidecar_id=record.sidecar_id or None,
            namespace=record.namespace,
        )


@dataclass(frozen=True, slots=True)
class PartitionAssignment:
    """What one member of a group reads in one generation."""

    group_id: str
    member_id: str
    generation: int
    assigned_partitions: list[int]

    @classmethod
    def of(cls, group: GroupRecord, member: GroupMemberRecord) -> PartitionAssignment:
        """The view of a member's record."""
        return cls(group.group_id, member.member_id, group.generation, list(member.partitions))


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member of a group."""

    member_id: str
    service_name: str
    topics: list[str]
    assigned_partitions: list[int]
    joined_at: datetime | None


@dataclass(frozen=True, slots=True)
class ServiceGroup:
    """One consumer group; `partition_names[i]` is what partition i is called."""

    group_id: str
    generation: int
    members: list[GroupMember]
    partition_names: list[str]
    offsets: Mapping[int, int]

    @classmethod
    def of(cls, group: GroupRecord) -> ServiceGroup:
        """The view of a record."""
        return cls(
            group_id=group.group_id,
            generation=group.generation,
            members=[
                GroupMember(
                    member_id=one.member_id,
                    service_name=one.service_name,
                    topics=list(one.topics),
                    assigned_partitions=list(one.partitions),
                    joined_at=_moment(one.joined_ms),
                )
                for one in group.members
            ],
            partition_names=list(group.partition_names),
            offsets=dict(group.offsets),
        )


def _moment(milliseconds: int) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1_000, tz=UTC) if milliseconds else None
