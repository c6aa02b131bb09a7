"""Why the core has said no, in words that name the caller's next move.

Rules kept: every reason has its error, and whoever must go to another node learns its addresses.
"""

from __future__ import annotations

from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.core.types import NodeId, Refused, RefusedReason
from conveyor_raft.errors import (
    Busy,
    InvalidChange,
    LeaseUnavailable,
    NotLeader,
    RaftError,
    ShuttingDown,
    TransferInProgress,
)


class Refusals:
    """The errors of one node, from what its core knows at the moment."""

    def __init__(self, core: RaftCore, own_id: NodeId) -> None:
        self._core = core
        self._own_id = own_id

    def not_leader(self) -> NotLeader:
        """Return the error that sends a caller to the leader."""
        core = self._core
        leader_id, membership = core.leader_id, core.membership
        if leader_id is None or leader_id == self._own_id or membership is None:
            return NotLeader(term=core.term)
        leader = membership.get(leader_id)
        if leader is None:
            return NotLeader(term=core.term)
        return NotLeader(
            leader.node_id, leader.raft_address, leader.client_address or None, core.term
        )

    def busy(self) -> Busy:
        """Return the error of a full queue of proposals."""
        return Busy(
            "too many commands wait for agreement"
            " (RaftConfig.max_uncommitted_entries, max_uncommitted_bytes); try again after a pause"
        )

    def explain(self, refused: Refused) -> RaftError:
        """Return the error that tells a caller why the core has refused."""
        match refused.reason:
            case RefusedReason.BUSY:
                return self.busy()
            case RefusedReason.NOT_LEADER:
                return self.not_leader()
            case RefusedReason.TRANSFERRING:
                membership = self._core.membership
                assert membership is not None
                assert refused.leader_id is not None
                target = membership.get(refused.leader_id)
                assert target is not None
                return TransferInProgress(
                    target.node_id, target.raft_address, target.client_address or None, refused.term
                )
            case RefusedReason.NO_TARGET:
                return InvalidChange("leadership can only be handed over to another voter")
            case RefusedReason.NO_LEASE:
                return LeaseUnavailable(
                    "this leader holds no lease at the moment (RaftConfig.lease_reads); read with"
                    " consistency='linearizable', or try again"
                )
            case RefusedReason.FAILED:
                return ShuttingDown("this node's disk has failed; try another node")
            case other:
                return Busy(f"not now: {other.value}; try again after a pause")
