"""One open partition of a source: reading, batching, sending within the credit.

Two tasks serve an open partition: the reader drives the user's
generator into a buffer of one batch, the sender empties it when it is full, when its oldest record
has waited for the linger time, or at once if the last batch went out longer ago than that, as far
as the credit reaches. So a generator that never waits is read in full batches, and one that
trickles is not held up.

A record above the limit is not sent; its size, digest and position are (`Oversize`), so that it is
missed by name and the source goes on. What the generator raises ends the partition with a failure
after everything that it had yielded; the sidecar opens it again when it sees fit.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

from conveyor_sdk.carrier import (
    FRAME_BYTES_MAX,
    FRAME_BYTES_TARGET,
    FRAME_RECORDS_MAX,
    RECORD_BYTES_MAX,
)
from conveyor_sdk.context import Context
from conveyor_sdk.failures import HANDLER_ERRORS, kind_of
from conveyor_sdk.position import checked_offset
from conveyor_sdk.record import to_wire
from conveyor_sdk.source import Source
from conveyor_sdk.wire import record_pb2, source_pb2

LINGER_S = 0.005
REOPEN_AFTER_S = 1.0
"""When the generator of an unbounded source returns, it is opened again after this."""
_log = logging.getLogger(__name__)

Write = Callable[[source_pb2.ReadResponse], Awaitable[None]]


class Credit:
    """What the sidecar has granted for the stream, and what was sent."""

    def __init__(self) -> None:
        self._records_limit = 0
        self._bytes_limit = 0
        self._records = 0
        self._bytes = 0
        self._granted = asyncio.Event()

    def grant(self, credit: record_pb2.Credit) -> None:
        """Raise the limits; a grant that is below an earlier one is old news."""
        self._records_limit = max(self._records_limit, credit.records_limit)
        self._bytes_limit = max(self._bytes_limit, credit.bytes_limit)
        if self._open():
            self._granted.set()

    async def available(self) -> int:
        """Return for how many records there is credit, as soon as there is some."""
        while not self._open():
            await self._granted.wait()
        return self._records_limit - self._records

    def spend(self, records: int, size: int) -> None:
        """Note what is being sent."""
        self._records += records
        self._bytes += size
        if not self._open():
            self._granted.clear()

    def _open(self) -> bool:
        return self._records < self._records_limit and self._bytes < self._bytes_limit


@dataclass(frozen=True, slots=True)
class _Item:
    """What the generator yielded: a record, or the name of one that is too large."""

    record: record_pb2.Record | None
    oversize: source_pb2.Oversize | None
    position: bytes
    offset: int
    size: int


class PartitionStream:
    """One open partition."""

    def __init__(
        self, source: Source, name: str, resume: bytes, credit: Credit, write: Write
    ) -> None:
        self.name = name
        self.position = resume
        self._source = source
        self._credit = credit
        self._write = write
        self._pending: list[_Item] = []
        self._pending_bytes = 0
        self._last_offset = -1
        self._last_sent_at = 0.0
        self._linger: asyncio.TimerHandle | None = None
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._exhausted = False
        self._writing = False
        self._stopping = False
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._final: source_pb2.ReadResponse | None = None

    async def run(self, context: Context) -> None:
        """Read and send until the partition ends; then say how it ended."""
        if self._stopping:
            return
        reader = asyncio.create_task(self._read(context))
        sender = asyncio.create_task(self._send())
        self._tasks = (reader, sender)
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in self._tasks:
                if task.done() and not task.cancelled():
                    task.result()
            if self._final is not None and not self._stopping:
                await self._write(self._final)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._linger is not None:
                self._linger.cancel()

    def stop(self) -> None:
        """Let `run` end soon: nothing more is read, what is not being sent yet is dropped."""
        self._stopping = True
        if self._tasks:
            reader, sender = self._tasks
            reader.cancel()
            if not self._writing:
                sender.cancel()

    async def _read(self, context: Context) -> None:
        try:
            resume = self._source.positions.decode(self.position) if self.position else None
            async with aclosing(self._source.open(self.name, resume, context)) as generator:
                async for item in generator:
                    self._take(item)
                    while self._full() and not self._stopping:
                        self._ready.set()
                        self._room.clear()
                        await self._room.wait()
                    if self._stopping:
                        return
            self._final = self._finished()
        except HANDLER_ERRORS as error:
            self._final = self._failed(error)
        self._exhausted = True
        self._ready.set()

    def _take(self, item: object) -> None:
        if not isinstance(item, tuple) or len(item) != 2:
            raise TypeError(f"a source yields pairs (value, position), not {item!r:.100}")
        value, position = item
        offset = 0
        data = b""
        if self._source.stable_offsets:
            offset = checked_offset(position)
            if offset <= self._last_offset:
                raise ValueError(
                    f"offset {offset} after {self._last_offset}: offsets grow within a partition"
                )
            self._last_offset = offset
        else:
            data = self._source.positions.encode(position)
        record = to_wire(value)
        size = record.ByteSize()
        if size > RECORD_BYTES_MAX:
            oversize = source_pb2.Oversize(
                position=self._source.positions.encode(position),
                offset=offset,
                size=size,
                sha256=hashlib.sha256(record.payload).digest(),
            )
            taken = _Item(None, oversize, data, offset, 0)
        else:
            taken = _Item(record, None, data, offset, size)
        if not self._pending:
            self._wake_sender()
        self._pending.append(taken)
        self._pending_bytes += taken.size

    def _wake_sender(self) -> None:
        loop = asyncio.get_running_loop()
        due = self._last_sent_at + LINGER_S
        if loop.time() >= due:
            self._ready.set()
        else:
            self._linger = loop.call_at(due, self._ready.set)

    def _full(self) -> bool:
        return len(self._pending) >= FRAME_RECORDS_MAX or self._pending_bytes >= FRAME_BYTES_TARGET

    async def _send(self) -> None:
        while not self._stopping and not (self._exhausted and not self._pending):
            await self._ready.wait()
            self._ready.clear()
            while self._pending and not self._stopping:
                items = self._cut(await self._credit.available())
                size = sum([item.size for item in items])
                self._credit.spend(len(items), size)
                self._room.set()
                self._writing = True
                await self._write(source_pb2.ReadResponse(batch=self._batch(items)))
                self._writing = False
                self.position = self._after(items[-1])
                self._last_sent_at = asyncio.get_running_loop().time()

    def _cut(self, records_max: int) -> list[_Item]:
        """Take the items of one batch out of what is pending; never none."""
        count = size = 0
        for item in self._pending:
            if count and (count == records_max or size + item.size > FRAME_BYTES_MAX):
                break
            count += 1
            size += item.size
        items = self._pending[:count]
        del self._pending[:count]
        self._pending_bytes -= size
        return items

    def _batch(self, items: list[_Item]) -> source_pb2.SourceBatch:
        sent = [item for item in items if item.record is not None]
        batch = source_pb2.SourceBatch(
            partition=self.name, records=[item.record for item in sent if item.record is not None]
        )
        if self._source.stable_offsets:
            batch.offsets.extend([item.offset for item in sent])
        else:
            batch.positions.extend([item.position for item in sent])
        if len(sent) < len(items):
            before = 0
            for item in items:
                if item.oversize is None:
                    before += 1
                else:
                    item.oversize.before = before
                    batch.oversize.append(item.oversize)
        return batch

    def _after(self, item: _Item) -> bytes:
        if self._source.stable_offsets:
            return self._source.positions.encode(item.offset)
        return item.position

    def _finished(self) -> source_pb2.ReadResponse:
        if self._source.bounded:
            return source_pb2.ReadResponse(finished=source_pb2.Finished(partition=self.name))
        return failure_of(
            self.name,
            record_pb2.FAILURE_KIND_BUSY,
            "the generator returned; it is not bounded, so there may be more",
            REOPEN_AFTER_S,
        )

    def _failed(self, error: BaseException) -> source_pb2.ReadResponse:
        kind, reason, after = kind_of(error)
        _log.error(
            "source %s, partition %s: %s", self._source.name, self.name, reason, exc_info=error
        )
        return failure_of(self.name, kind, reason, after)


def failure_of(
    partition: str, kind: record_pb2.FailureKind.ValueType, reason: str, after: float | None
) -> source_pb2.ReadResponse:
    """Return the message that ends a partition with a failure."""
    failure = source_pb2.SourceFailure(partition=partition, kind=kind, reason=reason)
    if after is not None:
        failure.retry_after.FromTimedelta(timedelta(seconds=after))
    return source_pb2.ReadResponse(failure=failure)
