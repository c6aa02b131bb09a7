"""Handing the leader's office over to a chosen voter (Ongaro's thesis §3.10).

How it goes: the leader accepts no more proposals and no more reads, brings the target's log up to
its own, and then asks it to campaign at once (`TimeoutNow`); the target needs no pre-vote, and
nobody refuses it out of loyalty, because the leader itself wants it. After one election timeout
without success the leader goes on as before.

Rules kept: the target is asked only when the entries that the leader has are durable there, so it
can win, and nothing is appended between that and the end of the attempt; the request is bound to
the leader's term, and the exception from pre-vote and loyalty to the one term that follows; the
lease is dropped first, and after a request to campaign there is none for the rest of the term, for
the request may arrive late; the caller is told how it ended, whatever happens.
"""

from __future__ import annotations

from collections.abc import Mapping

from conveyor_raft.core.messages import TimeoutNow
from conveyor_raft.core.progress import Progress
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import NodeId, NotTransferred, TransferOutcome, Transferred


def choose_target(
    replica: Replica, progress: Mapping[NodeId, Progress], wish: NodeId | None
) -> NodeId | None:
    """Return the wished voter, or the one whose log is the furthest; None if there is none."""
    voters = [node for node in replica.voters if node in progress]
    if wish is not None:
        return wish if wish in voters else None
    return max(voters, key=lambda node: progress[node].match, default=None)


class Transfer:
    """One attempt, from the leader's side; it outlives the office until its end is known.

    At `deadline_ms` the leader takes its office up again, if it still has it; at `end_ms` whoever
    waits is told that nobody is known to lead.
    """

    __slots__ = ("_ask_again_ms", "asked", "deadline_ms", "end_ms", "target", "term", "token")

    def __init__(self, replica: Replica, target: NodeId, token: int) -> None:
        """Begin."""
        patience_ms = replica.options.election_timeout_max_ms
        self.target = target
        self.token = token
        self.term = replica.term
        self.asked = False
        self.deadline_ms = replica.now_ms + patience_ms
        self.end_ms = self.deadline_ms + patience_ms
        self._ask_again_ms = replica.now_ms
        replica.counters["transfers"] += 1

    def advance(self, replica: Replica, progress: Mapping[NodeId, Progress]) -> None:
        """Ask the target to campaign as soon as it has everything; again if that seems lost."""
        target = progress.get(self.target)
        if (
            target is not None
            and target.match == replica.log.last_index
            and replica.now_ms >= self._ask_again_ms
        ):
            self.asked = True
            self._ask_again_ms = replica.now_ms + replica.options.heartbeat_interval_ms
            replica.send(self.target, TimeoutNow())

    def outcome(
        self, replica: Replica, leader_id: NodeId | None, *, leads: bool
    ) -> TransferOutcome | None:
        """Say how it has ended; None while it has not."""
        if replica.term > self.term and leader_id is not None:
            if leader_id == self.target:
                return Transferred(leader_id, replica.term)
            return NotTransferred(f"node {leader_id} was elected instead of node {self.target}")
        if leads and replica.now_ms >= self.deadline_ms:
            return NotTransferred(
                f"node {self.target} has not taken over within an election timeout; node"
                f" {leader_id} leads on"
            )
        if replica.now_ms >= self.end_ms:
            return NotTransferred("nobody is known to lead after it")
        return None
