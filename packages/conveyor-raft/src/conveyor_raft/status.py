"""What a node says about itself: one picture (`RaftStatus`) and a stream of changes (`NodeEvent`).

Rules kept: both are plain frozen records, cheap to make and safe to keep. The events are levels,
not a journal: a watcher that was slow sees the newest term and the newest applied index, and never
makes the node hold a backlog for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conveyor_raft.core.types import LogIndex, Member, NodeId, RaftRole, Term


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One of the others."""

    node_id: NodeId
    raft_address: str
    connected: bool


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """One node at one moment."""

    node_id: NodeId
    cluster_id: str
    role: RaftRole
    term: Term
    leader_id: NodeId | None
    last_index: LogIndex
    commit_index: LogIndex
    applied_index: LogIndex
    snapshot_index: LogIndex
    members: tuple[Member, ...]
    peers: tuple[PeerStatus, ...]
    waiting_for: tuple[str, ...] = ()
    """While the cluster is not formed: whom the node waits for, and why."""
    stopped_because: str | None = None
    statistics: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeadershipChanged:
    """Role, term or leader changed."""

    role: RaftRole
    term: Term
    leader_id: NodeId | None


@dataclass(frozen=True, slots=True)
class Applied:
    """Everything up to `index` is in the state now (a restored snapshot included)."""

    index: LogIndex


NodeEvent = LeadershipChanged | Applied
