"""Where handlers run: threads for plain functions, the loop for async ones, never more at once than
was declared.

A call that the sidecar gives up (its deadline passed) ends for the sidecar, but a thread cannot be
stopped: its place stays taken until the handler returns, so that a handler declared for one call at
a time is never entered twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conveyor_sdk.calls import CalledService, run_unwaiting
from conveyor_sdk.definition import Service
from conveyor_sdk.source import Source

THREADS_MAX = 64


class Workers:
    """The threads and places of one server."""

    def __init__(self, services: Iterable[Service]) -> None:
        listed = list(services)
        called = [s for s in listed if isinstance(s, CalledService)]
        threads = sum(s.limits.concurrency for s in called if not s.shape.on_loop)
        threads += sum(1 for s in listed if isinstance(s, Source) and s.on_ended)
        self._pool = ThreadPoolExecutor(
            max_workers=max(1, min(threads, THREADS_MAX)), thread_name_prefix="handler"
        )
        self._places = {s.name: asyncio.Semaphore(s.limits.concurrency) for s in called}
        self._busy = 0

    @property
    def busy(self) -> int:
        """Handlers that are running in threads."""
        return self._busy

    async def answer(
        self, service: CalledService, answer: Callable[[], Coroutine[Any, Any, bytes]]
    ) -> bytes:
        """Return what `answer` returns, run where the handler of `service` belongs."""
        places = self._places[service.name]
        await places.acquire()
        if service.shape.on_loop:
            try:
                return await answer()
            finally:
                places.release()
        # The coroutine is made in the thread: a call that is dropped before it begins leaves none.
        running = asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: run_unwaiting(answer())
        )
        self._busy += 1

        def left(_: asyncio.Future[bytes]) -> None:
            self._busy -= 1
            places.release()

        running.add_done_callback(left)
        return await asyncio.shield(running)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `function` returns, run in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def close(self) -> None:
        """Take no more work; what runs in threads is left to itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
