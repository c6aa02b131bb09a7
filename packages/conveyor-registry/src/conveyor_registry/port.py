"""What the registry needs of a replicated log, and nothing more.

What for: a `RaftNode` with a `RouterStateMachine` is one; `conveyor_registry.testing.InProcessRaft`
is the fake that ships. One contract test runs over both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from conveyor_raft.machines.router import Outcome, RouterCommand, RouterState
from conveyor_raft.status import NodeEvent


class RaftPort(Protocol):
    """A replicated log of router commands."""

    @property
    def is_leader(self) -> bool:
        """Whether proposals are accepted here."""
        ...

    async def propose(self, command: RouterCommand, *, timeout: float | None = None) -> Outcome:
        """Have the command agreed and applied."""
        ...

    async def state(self) -> RouterState:
        """The applied state; valid until the next await."""
        ...

    def watch(self) -> AsyncIterator[NodeEvent]:
        """Newest levels of leadership and applied index, until shutdown."""
        ...
