"""A node that asks whether it would be elected, before it campaigns (Ongaro's thesis, §9.6).

What for: a node that was cut off for a while would otherwise come back with a higher term and force
a leader out of office that everybody else was content with.

Rules kept: nothing changes by asking, neither a term nor a vote nor anything on a disk, and
answering renews nobody's patience; answers are counted by voter, and only those to this very
attempt, so that a late one elects nobody; a refusal from a newer term ends the attempt, because the
term of its envelope is adopted like any other (two nodes of which one has the newer term and the
other the longer log would otherwise refuse each other for ever).
"""

from __future__ import annotations

from conveyor_raft.core.messages import Message, PreVote, PreVoteReply
from conveyor_raft.core.quorum import VoteResult, joint_vote_result
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import NodeId, RaftRole, Term


class PreCandidate:
    """The answers so far, and when to ask again or to make another attempt."""

    __slots__ = ("_ask_again_ms", "_request", "_votes", "election_deadline_ms")

    role = RaftRole.PRE_CANDIDATE
    leader_id: NodeId | None = None

    def __init__(self, replica: Replica) -> None:
        """Ask the others about the next term; the own answer is known."""
        replica.counters["pre_campaigns"] += 1
        self._votes = {replica.identity.node_id: True}
        self.election_deadline_ms = replica.election_deadline()
        self._ask_again_ms = 0
        self._request = PreVote(replica.log.last_id, Term(replica.term + 1), replica.now_ms)
        self._ask(replica)

    @property
    def deadline_ms(self) -> int:
        """When something is to be done."""
        return min(self._ask_again_ms, self.election_deadline_ms)

    def on_deadline(self, replica: Replica) -> bool:
        """Ask again; tell whether this attempt has taken too long and another one is due."""
        if replica.now_ms >= self.election_deadline_ms:
            return True
        self._ask(replica)
        return False

    def on_reply(self, replica: Replica, message: Message, reply: PreVoteReply) -> VoteResult:
        """Count an answer to this attempt, if it comes from a voter."""
        asked = (self._request.term, self._request.round)
        if message.sender in replica.voters and (reply.term, reply.round) == asked:
            self._votes[message.sender] = reply.granted
        else:
            replica.counters["stale"] += 1
        return joint_vote_result(replica.halves, self._votes)

    def _ask(self, replica: Replica) -> None:
        self._ask_again_ms = replica.now_ms + replica.options.heartbeat_interval_ms
        for peer in replica.voters:
            if peer not in self._votes:
                replica.reveal_term(peer, self._request)
