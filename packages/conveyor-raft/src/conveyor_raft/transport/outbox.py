"""What waits for one peer: a bounded queue that prefers the newest.

Rules kept: everything in it can be replaced by something that the core sends later, so a full
outbox drops its oldest messages, heartbeats before entries; nothing is kept for a peer that is not
connected, because it would be stale when the peer comes back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from conveyor_raft.core.messages import AppendEntries, Heartbeat, Message
from conveyor_raft.transport.base import EntryTrace

_MESSAGE_OVERHEAD_BYTES = 64


class Outbox:
    """A queue with one reader; `put` never waits."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._queue: deque[tuple[Message, Sequence[EntryTrace], int]] = deque()
        self._wake = asyncio.Event()
        self.connected = False
        self.dropped = 0

    def put(self, message: Message, traces: Sequence[EntryTrace] = ()) -> None:
        """Queue the message; drop it if the peer is away, or older ones if there are too many."""
        if not self.connected:
            self.dropped += 1
            return
        size = _size(message)
        while self._queue and self._bytes + size > self._bytes_max:
            self._drop_one()
        self._queue.append((message, traces, size))
        self._bytes += size
        self._wake.set()

    async def take(self, bytes_max: int) -> list[tuple[Message, Sequence[EntryTrace]]]:
        """Wait for messages and return the oldest ones, about `bytes_max` bytes of them."""
        while not self._queue:
            self._wake.clear()
            await self._wake.wait()
        taken: list[tuple[Message, Sequence[EntryTrace]]] = []
        room = bytes_max
        while self._queue and (not taken or self._queue[0][2] <= room):
            message, traces, size = self._queue.popleft()
            taken.append((message, traces))
            self._bytes -= size
            room -= size
        return taken

    def clear(self) -> None:
        """Forget everything that waits."""
        self.dropped += len(self._queue)
        self._queue.clear()
        self._bytes = 0

    def _drop_one(self) -> None:
        position = next(
            (n for n, item in enumerate(self._queue) if isinstance(item[0].body, Heartbeat)), 0
        )
        self._bytes -= self._queue[position][2]
        del self._queue[position]
        self.dropped += 1


def _size(message: Message) -> int:
    body = message.body
    if isinstance(body, AppendEntries):
        return _MESSAGE_OVERHEAD_BYTES + sum([frame.size for frame in body.frames])
    return _MESSAGE_OVERHEAD_BYTES
