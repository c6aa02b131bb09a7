"""Consumer groups."""

from __future__ import annotations

from conveyor_grpc.wire import registry_pb2 as wire
from conveyor_raft.machines.router import GroupRecord
from conveyor_registry import PartitionAssignment


def group_message(record: GroupRecord) -> wire.Group:
    """Return the message for a recorded group."""
    return wire.Group(
        group_id=record.group_id,
        service_name=record.members[0].service_name if record.members else "",
        generation=record.generation,
        members=[
            wire.GroupAssignment(
                group_id=record.group_id,
                member_id=member.member_id,
                generation=record.generation,
                assigned_partitions=member.partitions,
            )
            for member in record.members
        ],
        topics=sorted({topic for member in record.members for topic in member.topics}),
        partition_names=record.partition_names,
    )


def assignment_message(assignment: PartitionAssignment) -> wire.GroupAssignment:
    """Return the message for what one member reads."""
    return wire.GroupAssignment(
        group_id=assignment.group_id,
        member_id=assignment.member_id,
        generation=assignment.generation,
        assigned_partitions=assignment.assigned_partitions,
    )
