"""Writing on a gRPC stream so that it can always be ended.

A write that has begun cannot be called back. Cancelling the coroutine only stops waiting for it:
gRPC still has the operation, and refuses both a second write and the closing status while it does
(`GRPC_CALL_ERROR_TOO_MANY_OPERATIONS`), after which the call never ends and keeps a closing server
for its whole drain time. So a write, once begun, is left to finish, the next one waits for it, and
whoever ends the stream waits for it too (`settle`). It ends by itself at the latest when the
connection does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class StreamWriter:
    """The one way to write on a stream.

    Args:
        write: Writes a message; `context.write` of a servicer.
    """

    def __init__(self, write: Callable[[Any], Awaitable[None]]) -> None:
        self._write = write
        self._turn = asyncio.Lock()
        self._begun: asyncio.Future[None] | None = None

    async def write(self, message: Any) -> None:
        """Write a message after those before it; cancelling this only stops the waiting."""
        async with self._turn:
            await self.settle()
            self._begun = asyncio.ensure_future(self._write(message))
            await asyncio.shield(self._begun)

    async def settle(self) -> None:
        """Wait until no write is under way, however it ends."""
        while (begun := self._begun) is not None:
            await asyncio.wait({begun})
            if not begun.cancelled():
                begun.exception()  # seen: it was raised where the write was awaited, if anywhere
            if begun is self._begun:
                return
