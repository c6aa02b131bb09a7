"""Counting voters: when an election is decided, and which index a majority has stored.

Any two majorities of the same voters share a member; everything that Raft promises rests on it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence

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


def quorum_index(stored: Iterable[LogIndex]) -> LogIndex:
    """Return the highest index that a majority has stored; `stored` has one index per voter."""
    descending = sorted(stored, reverse=True)
    return descending[len(descending) // 2]
