"""Services, leases, health, consumer groups, load balancing and planning on a replicated log."""

from conveyor_raft.machines.router import ServiceHealth, ServiceType
from conveyor_registry.core.assignors import assign
from conveyor_registry.core.matching import Candidate, Matcher
from conveyor_registry.core.tables import (
    SidecarTable,
    TableDocument,
    TableInstance,
    TablePartition,
    TablePipeline,
    table_for,
)
from conveyor_registry.errors import (
    Contended,
    InvalidRegistration,
    NotRegistered,
    RegistryError,
    TooManyWatchers,
    WatchOverflow,
)
from conveyor_registry.group_coordinator import GroupCoordinator
from conveyor_registry.liveness import HeldExpiry, Liveness, LivenessOptions
from conveyor_registry.load_balancer import LoadBalancer
from conveyor_registry.planner import Observations, plan
from conveyor_registry.port import RaftPort
from conveyor_registry.service_registry import ServiceRegistry
from conveyor_registry.views import (
    GroupMember,
    PartitionAssignment,
    RegisteredService,
    ServiceGroup,
)
from conveyor_registry.watch import StateWatch

__all__ = [
    "Candidate",
    "Contended",
    "GroupCoordinator",
    "GroupMember",
    "HeldExpiry",
    "InvalidRegistration",
    "Liveness",
    "LivenessOptions",
    "LoadBalancer",
    "Matcher",
    "NotRegistered",
    "Observations",
    "PartitionAssignment",
    "RaftPort",
    "RegisteredService",
    "RegistryError",
    "ServiceGroup",
    "ServiceHealth",
    "ServiceRegistry",
    "ServiceType",
    "SidecarTable",
    "StateWatch",
    "TableDocument",
    "TableInstance",
    "TablePartition",
    "TablePipeline",
    "TooManyWatchers",
    "WatchOverflow",
    "assign",
    "plan",
    "table_for",
]
