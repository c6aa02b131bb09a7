"""`InProcessRaft`: a replicated log of one, without a log.

What for: tests of everything above the consensus. Commands take the same way as on a real node,
through canonical bytes and the real state machine, so a command that could not be logged fails here
too. Time is in the test's hand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from conveyor_raft.core.types import LogIndex, NodeId, RaftRole, Term
from conveyor_raft.errors import NotLeader, ShuttingDown
from conveyor_raft.machines.base import Entry
from conveyor_raft.machines.router import Outcome, RouterCommand, RouterState, RouterStateMachine
from conveyor_raft.status import Applied, LeadershipChanged, NodeEvent
from conveyor_raft.watch import Watchers

WATCHERS_MAX = 1_000


class InProcessRaft:
    """A `RaftPort` that applies at once.

    Attributes:
        machine: The real state machine.
        now_ms: The wall time that entries are stamped with.
        is_leader: Set it to False to be refused as by a follower.
    """

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.machine = RouterStateMachine()
        self.now_ms = now_ms
        self.is_leader = True
        self.proposals = 0
        self._index = 0
        self._closed = False
        self._watchers = Watchers(WATCHERS_MAX)

    async def propose(self, command: RouterCommand, *, timeout: float | None = None) -> Outcome:
        """Apply the command as the next entry."""
        if self._closed:
            raise ShuttingDown("the node is stopping")
        if not self.is_leader:
            raise NotLeader
        return self.apply(command)

    def apply(self, command: RouterCommand) -> Outcome:
        """Apply the command now, without asking who leads."""
        decoded = self.machine.decode_command(self.machine.encode_command(command))
        self._index += 1
        self.proposals += 1
        try:
            return self.machine.apply(Entry(self._index, 1, self.now_ms, decoded))
        finally:
            self._watchers.notify(self._applied())

    async def state(self) -> RouterState:
        """The state."""
        return self.machine.state

    def watch(self) -> AsyncIterator[NodeEvent]:
        """The newest levels of leadership and applied index, until `shutdown`."""
        role = RaftRole.LEADER if self.is_leader else RaftRole.FOLLOWER
        leadership = LeadershipChanged(role=role, term=Term(1), leader_id=NodeId(1))
        return self._watchers.add(leadership, self._applied())

    async def shutdown(self) -> None:
        """End all watches."""
        self._closed = True
        self._watchers.notify(None)

    def _applied(self) -> Applied:
        return Applied(index=LogIndex(self._index))
