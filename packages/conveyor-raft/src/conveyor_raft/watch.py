"""Watching a node: levels, not a journal.

Rules kept: a watcher costs the node one flag; whatever happened while it was busy is one event with
the newest value; it sees the level at the moment of `watch` first, so there is no gap between
looking and watching; a watcher that nobody refers to is forgotten.
"""

from __future__ import annotations

import asyncio
from weakref import WeakSet

from conveyor_raft.errors import Busy
from conveyor_raft.status import Applied, LeadershipChanged, NodeEvent


class Watcher:
    """An async iterator over `NodeEvent`; it ends when the node stops."""

    def __init__(self, leadership: LeadershipChanged, applied: Applied) -> None:
        self._leadership: LeadershipChanged | None = leadership
        self._applied: Applied | None = applied
        self._ended = False
        self._wake = asyncio.Event()

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> NodeEvent:
        """Return the newest change of leadership if there is one, else of the applied index."""
        while self._leadership is None and self._applied is None:
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        event: NodeEvent | None
        if self._leadership is not None:
            event, self._leadership = self._leadership, None
        else:
            event, self._applied = self._applied, None
        assert event is not None
        return event

    def notify(self, event: NodeEvent | None) -> None:
        """Replace what the watcher has not seen yet; None ends it."""
        match event:
            case LeadershipChanged():
                self._leadership = event
            case Applied():
                self._applied = event
            case None:
                self._ended = True
        self._wake.set()


class Watchers:
    """All watchers of a node."""

    def __init__(self, watchers_max: int) -> None:
        self._max = watchers_max
        self._all: WeakSet[Watcher] = WeakSet()
        self._ended = False

    def add(self, leadership: LeadershipChanged, applied: Applied) -> Watcher:
        """Return a new watcher, which begins with these levels."""
        if len(self._all) >= self._max:
            raise Busy(f"the node has {self._max} watchers already (RaftConfig.watchers_max)")
        watcher = Watcher(leadership, applied)
        if self._ended:
            watcher.notify(None)
        self._all.add(watcher)
        return watcher

    def notify(self, event: NodeEvent | None) -> None:
        """Tell all; None ends them."""
        self._ended = self._ended or event is None
        if self._all:
            for watcher in list(self._all):
                watcher.notify(event)
