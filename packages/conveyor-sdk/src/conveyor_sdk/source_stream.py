"""One stream between a sidecar and a source.

The sidecar opens partitions, grants credit for the whole stream in absolute numbers, tells what has
ended and takes partitions back; the source sends batches, and per partition at last one of
`revoked`, `finished` or `failure`. What happens inside a partition is in `partition_stream.py`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from conveyor_sdk.context import Context
from conveyor_sdk.failures import HANDLER_ERRORS, kind_of
from conveyor_sdk.partition_stream import Credit, PartitionStream, Write, failure_of
from conveyor_sdk.source import Source
from conveyor_sdk.stream_writer import StreamWriter
from conveyor_sdk.wire import record_pb2, source_pb2

STOP_WITHIN_S = 10.0
"""How long a generator may take over its `finally` blocks when its partition is taken away."""

InThread = Callable[..., Awaitable[Any]]

_log = logging.getLogger(__name__)


class SourceStream:
    """One stream with a sidecar."""

    def __init__(self, source: Source, context: Context, write: Write, in_thread: InThread) -> None:
        self._source = source
        self._context = context
        self._in_thread = in_thread
        self._writer = StreamWriter(write)
        self._write = self._writer.write
        self._credit = Credit()
        self._open: dict[str, tuple[PartitionStream, asyncio.Task[None]]] = {}
        self._ended: dict[str, bytes] = {}
        self._ended_ready = asyncio.Event()

    async def run(self, requests: AsyncIterator[source_pb2.ReadRequest]) -> None:
        """Serve until the stream is closed or this is cancelled; no write is left begun."""
        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell_ended())
                async for request in requests:
                    await self._handle(request, group)
                for partition, task in self._open.values():
                    partition.stop()
                    task.cancel()
                telling.cancel()
                await asyncio.wait({telling})
                await self._tell_pending()
        finally:
            await self._writer.settle()

    async def _handle(self, request: source_pb2.ReadRequest, group: asyncio.TaskGroup) -> None:
        match request.WhichOneof("message"):
            case "open":
                await self._open_partition(request.open, group)
            case "credit":
                self._credit.grant(request.credit)
            case "revoke":
                await self._revoke(request.revoke.partition)
            case "ended":
                if self._source.on_ended is not None:
                    self._ended[request.ended.partition] = request.ended.position
                    self._ended_ready.set()

    async def _open_partition(
        self, request: source_pb2.OpenPartition, group: asyncio.TaskGroup
    ) -> None:
        name = request.partition
        await self._close(name)
        try:
            names = await self._source.partition_names()
        except HANDLER_ERRORS as error:
            kind, reason, after = kind_of(error)
            await self._write(failure_of(name, kind, f"partitions: {reason}", after))
            return
        if name not in names:
            await self._write(
                failure_of(
                    name,
                    record_pb2.FAILURE_KIND_REJECT,
                    f"there is no partition {name!r}; there is: {', '.join(names[:20])}",
                    None,
                )
            )
            return
        resume = b"" if request.from_start else request.resume
        partition = PartitionStream(self._source, name, resume, self._credit, self._write)
        task = group.create_task(partition.run(self._context))
        self._open[name] = (partition, task)
        task.add_done_callback(lambda done: self._forget(name, done))

    def _forget(self, name: str, task: asyncio.Task[None]) -> None:
        if name in self._open and self._open[name][1] is task:
            del self._open[name]

    async def _close(self, name: str) -> PartitionStream | None:
        """Stop a partition and return it once it has stopped, or None if it is not open."""
        if name not in self._open:
            return None
        partition, task = self._open[name]
        partition.stop()
        _, unfinished = await asyncio.wait({task}, timeout=STOP_WITHIN_S)
        if unfinished:
            _log.error(
                "source %s, partition %s: not stopped within %s s; the generator goes on unheard",
                self._source.name,
                name,
                STOP_WITHIN_S,
            )
        return partition

    async def _revoke(self, name: str) -> None:
        partition = await self._close(name)
        position = partition.position if partition is not None else b""
        await self._write(
            source_pb2.ReadResponse(revoked=source_pb2.Revoked(partition=name, position=position))
        )

    async def _tell_ended(self) -> None:
        while True:
            await self._ended_ready.wait()
            await self._tell_pending()

    async def _tell_pending(self) -> None:
        """Call the function for ended, with the newest position of each partition."""
        self._ended_ready.clear()
        ended, self._ended = self._ended, {}
        tell = self._source.on_ended
        if tell is None:
            return
        for partition, position in ended.items():
            try:
                decoded = self._source.positions.decode(position)
                both = len(inspect.signature(tell).parameters) == 2
                arguments = (partition, decoded) if both else (decoded,)
                if inspect.iscoroutinefunction(tell):
                    await tell(*arguments)
                else:
                    await self._in_thread(tell, *arguments)
            except HANDLER_ERRORS:
                _log.exception(
                    "source %s, partition %s: the function for ended failed; it is called "
                    "again with the next position",
                    self._source.name,
                    partition,
                )
