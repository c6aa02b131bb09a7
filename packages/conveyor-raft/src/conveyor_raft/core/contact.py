"""Whom a leader has heard lately, and which of its heartbeats they have answered.

Rules kept:

* A leader without a quorum in reach is none for long (Ongaro's thesis §6.2): it steps down when it
  has not heard from one for the longest time in which its followers stay patient.
* Answers are kept for each peer, never counted by message; the answer to a heartbeat proves that
  its sender followed this leader after that heartbeat left.
* The lease (§6.4.1) runs from the time at which a heartbeat left that a quorum has answered, never
  from that of the answers, and is shorter than its followers' loyalty by what two clocks may differ
  in speed. It ends at once, together with every heartbeat that is still unanswered, when the
  configuration changes or the office is to be handed over.
* A node that does not remember for whom it was loyal, because it was restarted, is loyal against
  everybody for as long as it might have been (`Replica`).
"""

from __future__ import annotations

from collections import deque

from conveyor_raft.core.quorum import is_quorum, joint_quorum_index
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import LogIndex, NodeId


class Contact:
    """The account of one leader in one term. `beat` counts its rounds of heartbeats."""

    __slots__ = (
        "_answered",
        "_forgone",
        "_heard_ms",
        "_lease_until_ms",
        "_sent",
        "_since_ms",
        "beat",
    )

    def __init__(self, replica: Replica) -> None:
        """Begin with the benefit of the doubt: everybody has just been heard."""
        self.beat = 0
        self._since_ms = replica.now_ms
        self._heard_ms: dict[NodeId, int] = {}
        self._answered: dict[NodeId, int] = {}
        self._sent: deque[tuple[int, int]] = deque()  # beat, when it left; for the lease only
        self._lease_until_ms = replica.now_ms
        self._forgone = not replica.options.lease_reads

    def heard(self, peer: NodeId, now_ms: int) -> None:
        """A peer has answered something in this term."""
        self._heard_ms[peer] = now_ms

    def is_alive(self, replica: Replica, peer: NodeId) -> bool:
        """Whether a peer has answered within the longest patience of a follower."""
        since_ms = replica.now_ms - replica.options.election_timeout_max_ms
        return self._heard_ms.get(peer, since_ms - 1) >= since_ms

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

    def next_beat(self, replica: Replica) -> int:
        """Number a round of heartbeats that leaves now."""
        self.beat += 1
        if not self._forgone:
            sent, now_ms = self._sent, replica.now_ms
            while sent and sent[0][1] <= now_ms - replica.options.election_timeout_min_ms:
                sent.popleft()
            sent.append((self.beat, now_ms))
        return self.beat

    def answered(self, replica: Replica, peer: NodeId, beat: int) -> None:
        """A peer has answered a heartbeat; a quorum of such answers renews the lease."""
        if beat > self.beat:
            replica.counters["malformed"] += 1
        elif beat > self._answered.get(peer, 0):
            self._answered[peer] = beat
            self._renew(replica)

    def confirmed(self, replica: Replica) -> int:
        """Return the newest round that a quorum has answered; the own answer is immediate."""
        own = replica.identity.node_id
        answered = {
            voter: LogIndex(self.beat if voter == own else self._answered.get(voter, 0))
            for voter in replica.voters
        }
        return joint_quorum_index(replica.halves, answered)

    def has_lease(self, replica: Replica, now_ms: int) -> bool:
        """Whether no other node can lead at this time, if all clocks keep to their bound."""
        if self._sent and replica.voters == (replica.identity.node_id,):
            self._renew(replica)
        return now_ms < self._lease_until_ms

    def void_lease(self, *, for_good: bool = False) -> None:
        """End the lease; only a later heartbeat can renew it, or none in this term."""
        self._sent.clear()
        self._lease_until_ms = self._since_ms
        self._forgone |= for_good

    def _renew(self, replica: Replica) -> None:
        confirmed = self.confirmed(replica) if self._sent else 0
        options = replica.options
        while self._sent and self._sent[0][0] <= confirmed:
            length_ms = options.election_timeout_min_ms * (1_000_000 - options.lease_drift_ppm)
            self._lease_until_ms = self._sent.popleft()[1] + length_ms // 1_000_000
