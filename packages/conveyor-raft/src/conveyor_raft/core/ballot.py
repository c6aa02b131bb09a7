"""How a node votes, in whatever role it is (Raft §5.2, §5.4.1).

Rules kept: one vote for each term, durable before anybody hears of it; never for a candidate whose
log lacks something that may be committed, which is one that ends in an older term, or in the same
term at a lower index; a candidate that asks again gets the same answer again. Who is no voter here
gets a vote only if its log goes further than this one, because it may then be a voter by an entry
that is missing here; a node that was removed does not get one. A learner that is asked votes: the
candidate may know that it was promoted.

A node that may have forgotten what it promised votes for nobody (`suspicion`).

An answer to a pre-vote says what this node would do, and changes nothing here. A node that has just
heard its leader would not (`Replica.is_loyal_against`), nor would the leader itself; neither even
enters the term of a candidate for whom the leader did not ask, so nobody is deposed who is in reach
of a majority.
"""

from __future__ import annotations

from conveyor_raft.core.messages import Message, PreVote, PreVoteReply, RequestVote, VoteReply
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import LogId, NodeId


def at_least_as_complete(candidate: LogId, own: LogId) -> bool:
    """Compare the ends of two logs: first the terms, then the indexes."""
    return (candidate.term, candidate.index) >= (own.term, own.index)


def eligible(replica: Replica, candidate: NodeId, last: LogId) -> bool:
    """Whether a candidate with this log may lead, as far as this node can tell."""
    own = replica.log.last_id
    return at_least_as_complete(last, own) and (last != own or candidate in replica.voters)


def answer(replica: Replica, message: Message, request: RequestVote) -> bool:
    """Answer a candidate of the current term; tell whether the vote was granted."""
    free = not replica.is_suspect and replica.voted_for in {None, message.sender}
    granted = free and eligible(replica, message.sender, request.last)
    if granted:
        replica.adopt(replica.term, message.sender)
    replica.promise(message.sender, VoteReply(granted))
    return granted


def answer_pre_vote(replica: Replica, message: Message, request: PreVote, *, leads: bool) -> None:
    """Say whether the sender would get this node's vote in a term that is newer than its own."""
    granted = (
        request.term > replica.term
        and not leads
        and not replica.is_suspect
        and not replica.is_loyal_against(message.sender)
        and eligible(replica, message.sender, request.last)
    )
    replica.reveal_term(message.sender, PreVoteReply(granted, request.term, request.round))


def is_unwelcome(replica: Replica, message: Message, request: RequestVote, *, leads: bool) -> bool:
    """Whether the candidate would depose a leader that this node has just heard, or is."""
    return (
        replica.options.check_quorum
        and not request.forced
        and (leads or replica.is_loyal_against(message.sender))
    )
