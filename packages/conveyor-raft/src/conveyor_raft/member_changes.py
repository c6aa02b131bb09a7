"""Changes of the membership that callers of this node wait for.

Rules kept: every caller gets an answer: the change is in force for good, it surely does not take
place (`RejectedError`), or nobody can say (`UnknownOutcome`), as for commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.core.types import Applied, Outcome, Refused, RefusedReason, Unknown
from conveyor_raft.errors import (
    ChangeRefused,
    NotLeader,
    RaftError,
    ShuttingDown,
    UnknownOutcome,
)

ChangeFuture = asyncio.Future[None]


class MemberChanges:
    """The open changes of one driver, by their tokens; the core allows one at a time."""

    def __init__(self, core: RaftCore, not_leader: Callable[[], NotLeader]) -> None:
        self._core = core
        self._not_leader = not_leader
        self._open: dict[int, ChangeFuture] = {}

    def begin(self, change: MembershipChange, token: int, future: ChangeFuture) -> None:
        """Hand a change to the core."""
        if future.done():
            return
        try:
            answer = self._core.change_membership(change, token=token)
        except RaftError as error:
            future.set_exception(error)
            return
        if isinstance(answer, Refused):
            future.set_exception(self._error(answer.reason))
        else:
            self._open[token] = future

    def finish(self, token: int, outcome: Outcome) -> bool:
        """End a change; tell whether the token was one."""
        future = self._open.pop(token, None)
        if future is None:
            return False
        if not future.done():
            if isinstance(outcome, Applied):
                future.set_result(None)
            elif isinstance(outcome, Unknown):
                error = UnknownOutcome(outcome.reason, outcome.first_index, outcome.term)
                future.set_exception(error)
            else:
                future.set_exception(ChangeRefused(outcome.reason))
        return True

    def abandon(self, reason: str) -> None:
        """Nothing more will happen here."""
        for future in self._open.values():
            if not future.done():
                future.set_exception(UnknownOutcome(reason))
        self._open.clear()

    def _error(self, reason: RefusedReason) -> RaftError:
        if reason is RefusedReason.NOT_LEADER:
            return self._not_leader()
        if reason is RefusedReason.FAILED:
            return ShuttingDown("this node's disk has failed; try another node")
        return ChangeRefused(reason.value)
