"""A complete Raft library for asyncio: sans-I/O core, durable SQLite log, gRPC transport."""

from conveyor_raft.client_session import ClientSession, SessionToken
from conveyor_raft.config import RaftConfig
from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.core.types import ClusterId, LogIndex, Member, NodeId, RaftRole, Term
from conveyor_raft.errors import (
    Busy,
    ChangeRefused,
    CommandRejected,
    Corrupt,
    Failed,
    FormationError,
    InvalidChange,
    InvariantViolation,
    LeaseUnavailable,
    ListenError,
    Locked,
    NodeStopped,
    NoQuorum,
    NotLeader,
    NotReady,
    PayloadTooLarge,
    RaftError,
    ReadError,
    RejectedError,
    SessionExpired,
    ShuttingDown,
    StorageError,
    TransferFailed,
    TransferInProgress,
    UnknownInSession,
    UnknownOutcome,
    WrongIdentity,
)
from conveyor_raft.machines.base import Entry, StateMachine
from conveyor_raft.machines.key_value import (
    KeyValueCommand,
    KeyValueResult,
    KeyValueStateMachine,
)
from conveyor_raft.machines.router import RouterCommand, RouterState, RouterStateMachine
from conveyor_raft.network import Peers, RaftNetwork
from conveyor_raft.node import RaftNode
from conveyor_raft.status import (
    Applied,
    LeadershipChanged,
    NodeEvent,
    PeerStatus,
    RaftStatus,
)
from conveyor_raft.storage.base import LogStorage
from conveyor_raft.storage.memory import MemoryLogStorage
from conveyor_raft.storage.sqlite import SQLiteLogStorage
from conveyor_raft.transport.base import RaftTransport
from conveyor_raft.transport.grpc import GrpcTransport
from conveyor_raft.transport.memory import MemoryNetwork, MemoryTransport
from conveyor_raft.transport.service import RaftTransportService
from conveyor_raft.watch import Watcher

__all__ = [
    "Applied",
    "Busy",
    "ChangeRefused",
    "ClientSession",
    "ClusterId",
    "CommandRejected",
    "Corrupt",
    "Entry",
    "Failed",
    "FormationError",
    "GrpcTransport",
    "InvalidChange",
    "InvariantViolation",
    "KeyValueCommand",
    "KeyValueResult",
    "KeyValueStateMachine",
    "LeadershipChanged",
    "LeaseUnavailable",
    "ListenError",
    "Locked",
    "LogIndex",
    "LogStorage",
    "Member",
    "MembershipChange",
    "MemoryLogStorage",
    "MemoryNetwork",
    "MemoryTransport",
    "NoQuorum",
    "NodeEvent",
    "NodeId",
    "NodeStopped",
    "NotLeader",
    "NotReady",
    "PayloadTooLarge",
    "PeerStatus",
    "Peers",
    "RaftConfig",
    "RaftCore",
    "RaftError",
    "RaftNetwork",
    "RaftNode",
    "RaftRole",
    "RaftStatus",
    "RaftTransport",
    "RaftTransportService",
    "ReadError",
    "RejectedError",
    "RouterCommand",
    "RouterState",
    "RouterStateMachine",
    "SQLiteLogStorage",
    "SessionExpired",
    "SessionToken",
    "ShuttingDown",
    "StateMachine",
    "StorageError",
    "Term",
    "TransferFailed",
    "TransferInProgress",
    "UnknownInSession",
    "UnknownOutcome",
    "Watcher",
    "WrongIdentity",
]
