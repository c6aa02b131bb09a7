"""The routers' state machine: what exists, who runs what, how far sources are done."""

from conveyor_raft.machines.router.apply import apply_command
from conveyor_raft.machines.router.commands import (
    AnyCommand,
    RouterCommand,
    SingleCommand,
)
from conveyor_raft.machines.router.machine import RouterStateMachine
from conveyor_raft.machines.router.outcome import Moment, Outcome, Refusal, RefusalCode
from conveyor_raft.machines.router.parts import (
    Expiry,
    LeaseRenewal,
    MemberPartitions,
    PartitionSlot,
    PositionCommit,
    ServiceOffer,
    StageSlot,
)
from conveyor_raft.machines.router.records import (
    GroupMemberRecord,
    GroupRecord,
    InstanceAssignment,
    LocationRecord,
    ManifestRecord,
    PartitionOwner,
    PipelinePhase,
    PipelineRecord,
    PositionRecord,
    Record,
    ServiceHealth,
    ServiceRecord,
    ServiceType,
    SidecarRecord,
    StageAssignment,
    TermFloor,
)
from conveyor_raft.machines.router.state import Change, RouterState, Table
from conveyor_raft.machines.router.unreadable import SnapshotRefused, UnknownCommand

__all__ = [
    "AnyCommand",
    "Change",
    "Expiry",
    "GroupMemberRecord",
    "GroupRecord",
    "InstanceAssignment",
    "LeaseRenewal",
    "LocationRecord",
    "ManifestRecord",
    "MemberPartitions",
    "Moment",
    "Outcome",
    "PartitionOwner",
    "PartitionSlot",
    "PipelinePhase",
    "PipelineRecord",
    "PositionCommit",
    "PositionRecord",
    "Record",
    "Refusal",
    "RefusalCode",
    "RouterCommand",
    "RouterState",
    "RouterStateMachine",
    "ServiceHealth",
    "ServiceOffer",
    "ServiceRecord",
    "ServiceType",
    "SidecarRecord",
    "SingleCommand",
    "SnapshotRefused",
    "StageAssignment",
    "StageSlot",
    "Table",
    "TermFloor",
    "UnknownCommand",
    "apply_command",
]
