"""Counting voters: when an election is decided, and which index a majority has stored.

Any two majorities of the same voters share a member; everything that Raft promises rests on it.
While a configuration is joint (Raft §6), the voters stand in two halves, the old and the new, and
whatever is decided needs a majority of each: it then shares a member with every decision of either.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence

from conveyor_raft.core.types import LogIndex, NodeId


class VoteResult(enum.Enum):
    """How far an election is."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(voters: int) -> int:
    """Return the smallest number of voters of which two groups always share one."""
    return voters // 2 + 1


def vote_result(voters: Sequence[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    """Count voters, not messages: `votes` holds one answer for each node that has answered."""
    needed = majority(len(voters))
    granted = sum(votes.get(voter, False) for voter in voters)
    if granted >= needed:
        return VoteResult.WON
    open_votes = sum(voter not in votes for voter in voters)
    return VoteResult.PENDING if granted + open_votes >= needed else VoteResult.LOST


def joint_vote_result(
    halves: Sequence[Sequence[NodeId]], votes: Mapping[NodeId, bool]
) -> VoteResult:
    """Count in each half; one lost half loses, and without any voter nothing can be won."""
    results = [vote_result(half, votes) for half in halves]
    if not results or VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON


def is_quorum(halves: Sequence[Sequence[NodeId]], nodes: Collection[NodeId]) -> bool:
    """Whether these nodes hold a majority of each half."""
    return bool(halves) and all(
        sum(voter in nodes for voter in half) >= majority(len(half)) for half in halves
    )


def joint_quorum_index(
    halves: Sequence[Sequence[NodeId]], stored: Mapping[NodeId, LogIndex]
) -> LogIndex:
    """Return the highest index that a majority of each half has stored."""
    return min(quorum_index([stored[voter] for voter in half]) for half in halves)


def quorum_index(stored: Iterable[LogIndex]) -> LogIndex:
    """Return the highest index that a majority has stored; `stored` has one index per voter."""
    descending = sorted(stored, reverse=True)
    return descending[len(descending) // 2]
