"""Streams to local sources: ``Source.Read``, driven by credit and by the partitions asked for.

The engine numbers streams and says what to open, revoke and grant; here each stream is a task with
an outgoing queue (bounded; what cannot be queued breaks the stream) and a reader that turns answers
into events. Requests that come before the stream stands wait in the queue. A stream ends in exactly
one ``SourceFailed``, unless the engine closed it; the engine opens the next one.

Records stay closed: a batch's body goes on as it came. What breaks the contract (positions that do
not match the records, offsets that do not increase) breaks the stream, because nothing after it
could be trusted either.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import grpc
import grpc.aio
from opentelemetry.trace import SpanKind

from conveyor_sdk.carrier import MalformedMessage, SourceRecords, split_read_response
from conveyor_sdk.wire import record_pb2, source_pb2
from conveyor_sidecar.core.effects import OpenSource
from conveyor_sidecar.core.events import (
    Event,
    FailureKind,
    SourceBatchRead,
    SourceFailed,
    SourceFinished,
    SourceOpened,
    SourcePartitionFailed,
    SourceRevoked,
)
from conveyor_sidecar.core.routes import InstanceKey
from conveyor_sidecar.errors import ProtocolError
from conveyor_sidecar.routing.client_pool import ClientPool
from conveyor_sidecar.routing.routing_table import LocalService, RoutingTable
from conveyor_sidecar.routing.service_answers import (
    FAILURE_KINDS,
    offsets_column,
    source_position,
    tombstones,
)
from conveyor_sidecar.tracing import batch_span, traceparent_of

logger = logging.getLogger(__name__)

READ_METHOD = "/conveyor.service.v1.Source/Read"
_QUEUE_MAX = 16_384
_CONNECT_TIMEOUT_S = 5.0
_RETRY_AFTER_MS_MAX = 3_600_000

Post = Callable[[Event], None]
Withdraw = Callable[[str, str], None]
KeyHashes = Callable[[str, str, bytes], bytes]


class SourceStreams:
    """All source streams of this sidecar."""

    def __init__(
        self,
        pool: ClientPool,
        table: RoutingTable,
        post: Post,
        *,
        sidecar_id: str,
        withdraw: Withdraw,
        key_hashes: KeyHashes,
    ) -> None:
        self._pool = pool
        self._table = table
        self._post = post
        self._sidecar_id = sidecar_id
        self._withdraw = withdraw
        self._key_hashes = key_hashes
        self._streams: dict[tuple[InstanceKey, int], _Stream] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def open(self, effect: OpenSource) -> None:
        """Begin to connect; ``SourceOpened`` or ``SourceFailed`` follows."""
        stream = _Stream(effect, self)
        self._streams[effect.source, effect.stream] = stream
        stream.task = asyncio.create_task(
            stream.run(), name=f"source {effect.source.stage} {effect.stream}"
        )

    def send(self, source: InstanceKey, stream: int, request: source_pb2.ReadRequest) -> None:
        """Queue a request on a stream; nothing happens if the stream is over."""
        entry = self._streams.get((source, stream))
        if entry is not None:
            entry.put(request)

    def close_source(self, source: InstanceKey, stream: int) -> None:
        """Close a stream; no event follows."""
        entry = self._streams.pop((source, stream), None)
        if entry is not None and entry.task is not None:
            self._cancel(entry.task)

    async def close(self) -> None:
        """Close all streams and wait until they are gone."""
        for source, number in list(self._streams):
            self.close_source(source, number)
        if self._ending:
            await asyncio.wait(self._ending)

    @property
    def open_streams(self) -> int:
        """Streams that stand or are being opened."""
        return len(self._streams)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _over(self, effect: OpenSource, reason: str) -> None:
        """Report the end of a stream that the engine has not closed."""
        if self._streams.pop((effect.source, effect.stream), None) is not None:
            self._post(SourceFailed(effect.source, effect.stream, reason))


class _Stream:
    """One life of the connection between a source stage's instance and its service."""

    def __init__(self, effect: OpenSource, owner: SourceStreams) -> None:
        self.effect = effect
        self.task: asyncio.Task[None] | None = None
        self._owner = owner
        self._queue: deque[source_pb2.ReadRequest] = deque()
        self._wake = asyncio.Event()
        self._opened = False
        facts = owner._table.routes.stages.get((effect.source.pipeline, effect.source.stage))
        self._stable = facts is not None and facts.stable_offsets

    def put(self, request: source_pb2.ReadRequest) -> None:
        if len(self._queue) >= _QUEUE_MAX:
            self._owner._over(self.effect, "the source no longer reads what it is sent")
            if self.task is not None:
                self._owner._cancel(self.task)
            return
        last = self._queue[-1] if self._queue else None
        if request.HasField("credit") and last is not None and last.HasField("credit"):
            self._queue.pop()  # absolute totals: the newer grant says all
        self._queue.append(request)
        self._wake.set()

    async def run(self) -> None:
        effect, owner = self.effect, self._owner
        service = owner._table.routes.services.get(effect.service_id)
        if service is None:
            owner._over(effect, f"service {effect.service_id} is not beside this sidecar")
            return
        try:
            reason = await self._carry(service)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                owner._withdraw(
                    service.service_id, f"{service.name} does not implement Source.Read"
                )
            reason = f"{error.code().name}: {(error.details() or '')[:1_024]}"
        except (ProtocolError, MalformedMessage) as error:
            reason = f"the source breaks its contract: {error}"
            logger.warning("source %s: %s", service.name, error)
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            reason = f"the stream has ended: {error}"
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            reason = "the connection was closed"
        except Exception as error:
            logger.exception("source %s failed", service.name)
            reason = f"{type(error).__name__}: {error}"
        owner._over(effect, reason)

    async def _carry(self, service: LocalService) -> str:
        channel = self._owner._pool.channel(service.endpoint)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await channel.channel_ready()
        except TimeoutError:
            return f"no connection to {service.endpoint} within {_CONNECT_TIMEOUT_S} s"
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            READ_METHOD
        )
        call = method()
        writer = asyncio.create_task(self._write_all(call, service))
        reader = asyncio.create_task(self._read_all(call))
        try:
            done, _ = await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.cancelled():
                    return "the connection was closed"
                task.result()
            return "the source ended its stream"
        finally:
            for task in (writer, reader):
                task.cancel()
            await asyncio.wait((writer, reader))
            for task in (writer, reader):
                if not task.cancelled():
                    task.exception()
            call.cancel()

    async def _write_all(
        self, call: grpc.aio.StreamStreamCall[bytes, bytes], service: LocalService
    ) -> None:
        effect = self.effect
        header: record_pb2.Call | None = record_pb2.Call(
            service=service.name,
            pipeline=effect.source.pipeline,
            stage=effect.source.stage,
            assignment_term=effect.term,
            attempt=1,
            config=effect.config,
            sidecar=self._owner._sidecar_id,
        )
        while True:
            while self._queue:
                request = self._queue.popleft()
                if header is not None:
                    request.call.CopyFrom(header)
                    header = None
                await call.write(request.SerializeToString())
            if not self._opened:
                self._opened = True
                self._owner._post(SourceOpened(effect.source, effect.stream))
                continue
            self._wake.clear()
            await self._wake.wait()

    async def _read_all(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        effect, post = self.effect, self._owner._post
        while isinstance(data := await call.read(), bytes):
            answer = split_read_response(data)
            if answer.batch is not None:
                self._batch(answer.batch)
            elif answer.finished is not None:
                post(SourceFinished(effect.source, effect.stream, answer.finished.partition))
            elif answer.revoked is not None:
                post(SourceRevoked(effect.source, effect.stream, answer.revoked.partition))
            elif answer.failure is not None:
                post(self._partition_failed(answer.failure))

    def _batch(self, batch: SourceRecords) -> None:
        if not batch.lengths and not batch.oversize:
            return
        effect, owner = self.effect, self._owner
        pipeline, stage, _ = effect.source
        position = source_position(batch, stable=self._stable)
        named, named_offsets = tombstones(batch, self._stable)
        with batch_span(
            "conveyor.read",
            "",
            SpanKind.PRODUCER,
            {
                "conveyor.pipeline": pipeline,
                "conveyor.stage": stage,
                "conveyor.partition": batch.partition,
                "conveyor.records": len(batch.lengths) // 4,
            },
        ) as span:
            event = SourceBatchRead(
                effect.source,
                effect.stream,
                batch.partition,
                body=batch.body,
                lengths=batch.lengths,
                position=position,
                offsets=offsets_column(batch),
                oversize=named,
                oversize_offsets=named_offsets,
                key_hashes=owner._key_hashes(pipeline, stage, batch.body),
                traceparent=traceparent_of(span),
            )
        owner._post(event)

    def _partition_failed(self, failure: source_pb2.SourceFailure) -> SourcePartitionFailed:
        after_ms = failure.retry_after.ToMilliseconds() if failure.HasField("retry_after") else 0
        return SourcePartitionFailed(
            self.effect.source,
            self.effect.stream,
            failure.partition,
            FAILURE_KINDS.get(failure.kind, FailureKind.RETRY),
            failure.reason[:1_024],
            max(0, min(after_ms, _RETRY_AFTER_MS_MAX)),
        )
