"""How the streams of a router learn that its state has moved.

One task reads the node's events and wakes the waiting streams, each of which then reads the state
for itself: what is passed on is only that something is new, so a slow stream holds no backlog.
Streams of tables are woken at most each `TABLE_PAUSE_S`, because a burst of registrations moves
every table once per registration.
"""

from __future__ import annotations

import asyncio

from conveyor_raft.machines.router import Outcome, RouterCommand, RouterState
from conveyor_raft.node import RaftNode

TABLE_PAUSE_S = 0.1


class Level:
    """A number that only rises, and a way to wait for its next rise."""

    def __init__(self) -> None:
        self._value = 0
        self._next: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def value(self) -> int:
        """The newest value."""
        return self._value

    @property
    def closed(self) -> bool:
        """Whether it will never rise again."""
        return self._closed

    def raise_to(self, value: int) -> None:
        """Set a newer value and wake who waits."""
        if value > self._value:
            self._value = value
            self._wake()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self._closed = True
        self._wake()

    async def wait_above(self, value: int, timeout_s: float) -> bool:
        """Return True when it is above `value` or closed, False after `timeout_s`."""
        if self._value > value or self._closed:
            return True
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([self._next], timeout=timeout_s)
        return bool(done)

    def _wake(self) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._next = None


class StateFeed:
    """Follows one node; `run` is its task."""

    def __init__(self, node: RaftNode[RouterCommand, Outcome, RouterState]) -> None:
        self._node = node
        self._table_revision = 0
        self._quiet_until = 0.0
        self._publish_later: asyncio.TimerHandle | None = None
        self.state = RouterState()
        self.revision = Level()
        self.table_revision = Level()

    async def run(self) -> None:
        """Follow the node until it stops; then wake all streams so that they end."""
        try:
            self._take(await self._node.state())
            async for _ in self._node.watch():
                self._take(await self._node.state())
        finally:
            self.close()

    def close(self) -> None:
        """Wake all streams for the last time."""
        if self._publish_later is not None:
            self._publish_later.cancel()
        self.revision.close()
        self.table_revision.close()

    def _take(self, state: RouterState) -> None:
        self.state = state
        self.revision.raise_to(state.revision)
        self._table_revision = state.table_revision
        if self._publish_later is None and self._table_revision > self.table_revision.value:
            loop = asyncio.get_running_loop()
            if loop.time() < self._quiet_until:
                self._publish_later = loop.call_at(self._quiet_until, self._publish)
            else:
                self._publish()

    def _publish(self) -> None:
        self._publish_later = None
        self._quiet_until = asyncio.get_running_loop().time() + TABLE_PAUSE_S
        self.table_revision.raise_to(self._table_revision)
