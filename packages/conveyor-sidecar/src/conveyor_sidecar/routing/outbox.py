"""What waits to be written on one lane stream: bounded, and joined while it waits.

Serialized protobuf messages of one type, joined, are their merge. So whatever queued up while the
last write was under way leaves as one message, and an idle stream writes each part at once: no
timer, no delay, and the fixed price of a gRPC message is paid once per bundle. A message that opens
lanes stands alone, because its parts must not be mixed with those of the lanes' earlier life.

The bound is bytes. Credit keeps data far below it; reaching it means that the peer no longer reads,
and the stream is given up (the frames stay with their sender, who holds them until they are done).
"""

from __future__ import annotations

import asyncio
from collections import deque

BUNDLE_BYTES_TARGET = 512 * 1024
OUTBOX_BYTES_MAX = 64 * 1024 * 1024


class Outbox:
    """A queue of serialized messages with one reader."""

    def __init__(self, bytes_max: int = OUTBOX_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._parts: deque[tuple[bytes, bool]] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, message: bytes, *, alone: bool = False) -> bool:
        """Queue a message; False when the bound is reached or the outbox is closed."""
        if self._closed or self._bytes + len(message) > self._bytes_max:
            return False
        self._parts.append((message, alone))
        self._bytes += len(message)
        self._wake.set()
        return True

    async def take(self) -> bytes | None:
        """The next bundle, waiting for one; None once closed and empty."""
        while not self._parts:
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()
        message, alone = self._parts.popleft()
        bundle, size = [message], len(message)
        while self._parts and not alone and not self._parts[0][1] and size < BUNDLE_BYTES_TARGET:
            message, _ = self._parts.popleft()
            bundle.append(message)
            size += len(message)
        self._bytes -= size
        return bundle[0] if len(bundle) == 1 else b"".join(bundle)

    def close(self) -> None:
        """No more puts; ``take`` hands out what is left, then None."""
        self._closed = True
        self._wake.set()

    @property
    def bytes_waiting(self) -> int:
        """Bytes that are queued now."""
        return self._bytes
