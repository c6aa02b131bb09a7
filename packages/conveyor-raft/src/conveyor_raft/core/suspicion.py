"""A node that may have lost entries which it has acknowledged, and how it is trusted again.

What for: a disk that forgets is worse than one that is gone. Others have counted on the lost
entries; a vote of this node could elect a leader that never had them. The storage finds it out and
says so when the node starts (`LoadedState.suspect`); the term must still be the newest that this
node knew, for what it promised by entering it holds.

Rules kept: such a node takes entries and acknowledges truthfully, but votes for nobody and never
campaigns. It tells the leader, which forgets what this node once acknowledged and begins a new
stream, so that late acknowledgements of the time before count no more. It is trusted again when it
has stored everything up to a commit index that a live leader, confirmed by a majority, noted after
that; it then counts as having voted for that leader, because it may have forgotten a vote as well.
"""

from __future__ import annotations

from conveyor_raft.core.messages import ReadReply, ReadRequest
from conveyor_raft.core.reads import ForwardedReads
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import LogIndex, NodeId, Term


class Suspicion:
    """What a suspect node has asked its leader, and what it heard."""

    __slots__ = ("_asked_ms", "_batch", "_leader", "_recovery_write", "_target")

    def __init__(self) -> None:
        """Begin with nobody asked."""
        self._leader: tuple[NodeId, Term] | None = None
        self._batch = 0
        self._asked_ms = 0
        self._target: LogIndex | None = None
        self._recovery_write: int | None = None

    def lift(self, replica: Replica, numbers: ForwardedReads, leader_id: NodeId | None) -> bool:
        """Trust this node again when it has caught up with a live leader, and that is durable."""
        if self._recovery_write is None and leader_id is not None:
            self._ask(replica, numbers, leader_id)
            if self._is_over(replica):
                if replica.voted_for is None:
                    replica.adopt(replica.term, leader_id)
                self._recovery_write = replica.ledger.barrier()
        if self._recovery_write is None or not replica.ledger.is_durable(self._recovery_write):
            return False
        replica.is_suspect = False
        replica.counters["recoveries"] += 1
        return True

    def _ask(self, replica: Replica, numbers: ForwardedReads, leader_id: NodeId) -> None:
        """Ask a new leader, or the same one again after a while."""
        leader = leader_id, replica.term
        if leader != self._leader:
            self._leader, self._target = leader, None
            self._batch = numbers.next_batch(replica)
        elif (
            self._target is not None
            or replica.now_ms < self._asked_ms + replica.options.heartbeat_interval_ms
        ):
            return
        self._asked_ms = replica.now_ms
        replica.reveal_term(leader_id, ReadRequest(self._batch, suspect=True))

    def on_reply(self, reply: ReadReply) -> None:
        """The leader has said how far to go."""
        if reply.batch == self._batch:
            self._target = reply.index

    def _is_over(self, replica: Replica) -> bool:
        """Whether everything up to there is proved equal to the leader's log, and durable."""
        target = self._target
        return (
            target is not None
            and self._leader is not None
            and self._leader[1] == replica.term
            and replica.commit_index >= target
            and replica.ledger.durable_index >= target
        )
