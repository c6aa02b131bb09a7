"""A node that asks for votes in its own term (Raft §5.2).

Rules kept: the requests leave after the candidate's term and its vote for itself are durable, and
its own vote counts from then on too; answers are counted by voter, so a duplicate counts once; a
lost request or answer is made good by asking again within the term.
"""

from __future__ import annotations

from conveyor_raft.core.messages import Message, RequestVote, VoteReply
from conveyor_raft.core.quorum import VoteResult, joint_vote_result
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import NodeId, RaftRole, Term


class Candidate:
    """The votes so far, and when to ask again or to begin a new term."""

    __slots__ = ("_ask_again_ms", "_forced", "_own_vote_write", "_votes", "election_deadline_ms")

    role = RaftRole.CANDIDATE
    leader_id: NodeId | None = None

    def __init__(self, replica: Replica, *, forced: bool = False) -> None:
        """Enter the next term, vote for oneself and ask the others.

        `forced`: at the leader's wish, which holds for this one term.
        """
        self._forced = forced
        replica.adopt(Term(replica.term + 1), replica.identity.node_id)
        replica.counters["campaigns"] += 1
        self._votes: dict[NodeId, bool] = {}
        self._own_vote_write = replica.ledger.barrier()
        self.election_deadline_ms = replica.election_deadline()
        self._ask_again_ms = 0
        self._ask(replica)

    @property
    def deadline_ms(self) -> int:
        """When something is to be done."""
        return min(self._ask_again_ms, self.election_deadline_ms)

    def on_deadline(self, replica: Replica) -> bool:
        """Ask again; tell whether the election has taken too long and a new one is due."""
        if replica.identity.node_id not in self._votes:
            # One's own disk is slow; another term would only give it more to write.
            self.election_deadline_ms = replica.election_deadline()
            self._ask_again_ms = self.election_deadline_ms
            return False
        if replica.now_ms >= self.election_deadline_ms:
            return True
        self._ask(replica)
        return False

    def on_written(self, replica: Replica, write_id: int) -> VoteResult:
        """Count one's own vote once it is durable."""
        if write_id >= self._own_vote_write:
            self._votes[replica.identity.node_id] = True
        return self._result(replica)

    def on_vote_reply(self, replica: Replica, message: Message, reply: VoteReply) -> VoteResult:
        """Count an answer of this term, if it comes from a voter."""
        if message.sender in replica.voters:
            self._votes[message.sender] = reply.granted
        return self._result(replica)

    def _ask(self, replica: Replica) -> None:
        self._ask_again_ms = replica.now_ms + replica.options.heartbeat_interval_ms
        request = RequestVote(replica.log.last_id, self._forced)
        for peer in replica.voters:
            if peer not in self._votes and peer != replica.identity.node_id:
                replica.promise(peer, request)

    def _result(self, replica: Replica) -> VoteResult:
        return joint_vote_result(replica.halves, self._votes)
