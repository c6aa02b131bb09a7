"""Whom a leader has heard lately, and which of its heartbeats they have answered.

Rules kept: a leader without a quorum in reach is none for long (Raft's thesis §6.2): it steps down
when it has not heard from one for the longest time in which its followers stay patient. Answers are
kept for each peer, never counted by message.
"""

from __future__ import annotations

from conveyor_raft.core.quorum import is_quorum
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import NodeId


class Contact:
    """The account of one leader in one term. `beat` counts its rounds of heartbeats."""

    __slots__ = ("_heard_ms", "_since_ms", "beat")

    def __init__(self, replica: Replica) -> None:
        """Begin with the benefit of the doubt: everybody has just been heard."""
        self.beat = 0
        self._since_ms = replica.now_ms
        self._heard_ms: dict[NodeId, int] = {}

    def heard(self, peer: NodeId, now_ms: int) -> None:
        """A peer has answered something in this term."""
        self._heard_ms[peer] = now_ms

    def in_reach(self, replica: Replica) -> bool:
        """Whether a quorum has been heard since the longest patience of a follower began."""
        own = replica.identity.node_id
        since_ms = replica.now_ms - replica.options.election_timeout_max_ms
        reached = {
            voter
            for voter in replica.voters
            if voter == own or self._heard_ms.get(voter, self._since_ms) >= since_ms
        }
        return is_quorum(replica.halves, reached)
