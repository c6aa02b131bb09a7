"""The storage lane: one write in flight, and everything else in between.

Rules kept: writes go to the disk in the order of the core, one at a time; while one is in flight
the core gathers the next, so the disk itself is the clock of the group commit, and nothing lingers.
Compaction, snapshots and maintenance wait until no write does. A failure ends the lane, and with it
the node.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from conveyor_raft.core.output import Write
from conveyor_raft.storage.base import LogStorage

_IDLE_SECONDS = 0.2

Chore = Callable[[], Awaitable[None]]


class StorageLane:
    """Feeds one `LogStorage`; `written` is called after each durable write."""

    def __init__(self, storage: LogStorage, written: Callable[[int], None]) -> None:
        self._storage = storage
        self._written = written
        self._write: Write | None = None
        self._chores: deque[Chore] = deque()
        self._wake: asyncio.Future[None] | None = None
        self.flushes = 0
        self.busy = False
        """Whether a write is in flight or waits; hand over the next one when it is not."""

    def submit(self, write: Write) -> None:
        """Take the next write; the lane must not be busy."""
        assert not self.busy
        self.busy = True
        self._write = write
        self._rouse()

    def add_chore(self, chore: Chore) -> None:
        """Do something with the storage when no write waits; the core asks for few such things."""
        self._chores.append(chore)
        self._rouse()

    async def run(self) -> None:
        """Work until cancelled, or until the disk fails."""
        storage = self._storage
        restless = True
        while True:
            if self._write is not None:
                write, self._write = self._write, None
                await storage.write(write)
                self.flushes += 1
                self.busy = False
                self._written(write.write_id)
                await storage.maintain(idle=False)
                restless = True
            elif self._chores:
                await self._chores.popleft()()
                restless = True
            elif await self._sleep(_IDLE_SECONDS if restless else None):
                await storage.maintain(idle=True)
                restless = False

    async def _sleep(self, seconds: float | None) -> bool:
        """Wait for work; return whether the time passed without any."""
        loop = asyncio.get_running_loop()
        wake = self._wake = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._rouse)
        try:
            await wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()
        return self._write is None and not self._chores

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
