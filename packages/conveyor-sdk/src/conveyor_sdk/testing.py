"""Run a chain of services in a test: no cluster, no sockets, but the real messages.

`run_pipeline` plays the sidecar's part. It opens the source's partitions, grants credit, carries
frames through the transforms to the sink with the same codec and the same serialized requests as in
a cluster, repeats what failed, and says what became of every record. With `duplicate=True` the sink
gets every batch twice, as it may after a crash: an idempotent one does not care.

    assert run_pipeline(orders, priced, save).dead_letters == []
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from conveyor_sdk.calls import CalledService
from conveyor_sdk.carrier import (
    Frame,
    Origin,
    SourceAnswer,
    SourceRecords,
    derive,
    encode_call,
    from_records,
    output_paths,
    service_request,
    split_read_response,
    split_transform_response,
)
from conveyor_sdk.codec import decode_json
from conveyor_sdk.context import context_of
from conveyor_sdk.errors import CodecError, SdkError
from conveyor_sdk.sink import Sink
from conveyor_sdk.source import Source, source
from conveyor_sdk.source_stream import SourceStream
from conveyor_sdk.transform import Transform
from conveyor_sdk.wire import closed_pb2, record_pb2, sink_pb2, source_pb2, transform_pb2
from conveyor_sdk.workers import Workers

PIPELINE = "test"
CREDIT_RECORDS = 1_000
BUSY_TRIES_MAX = 100
MESSAGES_MAX = 16


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that did not get through.

    Attributes:
        stage: Name of the service that failed it.
        payload: What it was given.
        reason: The last failure's.
        detail: The stack trace, if there was one.
        attempts: How often it was tried.
    """

    stage: str
    payload: bytes
    reason: str
    detail: str
    attempts: int


@dataclass(slots=True)
class PipelineRun:
    """What became of the records.

    Attributes:
        records_read: Records that the source gave.
        filtered: Inputs of transforms that had no output and no failure.
        written: Values that the sink took (or that left the last transform), decoded from JSON
            where they are JSON.
        dead_letters: The others.
        oversize: Records above the limit, as the source named them.
        positions: For each partition that was read the position up to which all has ended.
        source_failures: For each partition that failed the reason.
    """

    records_read: int = 0
    filtered: int = 0
    written: list[object] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    oversize: list[source_pb2.Oversize] = field(default_factory=list)
    positions: dict[str, object] = field(default_factory=dict)
    source_failures: dict[str, str] = field(default_factory=dict)


def source_of(values: Iterable[object], *, name: str = "values") -> Source:
    """Return a bounded source of the given values, with their places as stable offsets."""
    listed = list(values)

    async def give(resume: int | None) -> AsyncIterator[tuple[object, int]]:
        for offset in range(resume or 0, len(listed)):
            yield listed[offset], offset

    return source(name=name, bounded=True, stable_offsets=True)(give)


def run_pipeline(
    origin: Source,
    *stages: CalledService,
    resume: Mapping[str, object] | None = None,
    records: int | None = None,
    attempts: int = 5,
    duplicate: bool = False,
    config: Mapping[str, str] | None = None,
) -> PipelineRun:
    """Run a pipeline to its end; see `run_pipeline_async`, which is the form for async tests."""
    return asyncio.run(
        run_pipeline_async(
            origin,
            *stages,
            resume=resume,
            records=records,
            attempts=attempts,
            duplicate=duplicate,
            config=config,
        )
    )


async def run_pipeline_async(
    origin: Source,
    *stages: CalledService,
    resume: Mapping[str, object] | None = None,
    records: int | None = None,
    attempts: int = 5,
    duplicate: bool = False,
    config: Mapping[str, str] | None = None,
) -> PipelineRun:
    """Run a pipeline until its source is finished.

    Args:
        origin: The source.
        *stages: Transforms in order, and at last perhaps a sink.
        resume: For each partition the position to resume from, as the source yields it (with stable
            offsets: the offset of the first record to read).
        records: End after so many records; unbounded sources need it.
        attempts: Tries before a record becomes a dead letter.
        duplicate: Hand every batch to the sink twice.
        config: What `ctx.config` holds.

    Returns:
        What became of the records.

    Raises:
        SdkError: The stages are no pipeline, or an unbounded source has no end.
    """
    for place, stage in enumerate(stages):
        if isinstance(stage, Sink) and place != len(stages) - 1:
            raise SdkError(f"sink {stage.name} stands before the end of the pipeline")
    if not origin.bounded and records is None:
        raise SdkError(f"source {origin.name} is not bounded: say how many records to run")
    run = _Run(origin, stages, attempts, duplicate, dict(config or {}))
    try:
        for name in await origin.partition_names():
            left = None if records is None else records - run.result.records_read
            if left is None or left > 0:
                await run.partition(name, (resume or {}).get(name), left)
    finally:
        run.workers.close()
    return run.result


class _Run:
    """One run of a pipeline."""

    def __init__(
        self,
        origin: Source,
        stages: Sequence[CalledService],
        attempts: int,
        duplicate: bool,
        config: dict[str, str],
    ) -> None:
        self.result = PipelineRun()
        self.workers = Workers([origin, *stages])
        self._source = origin
        self._stages = stages
        self._attempts = attempts
        self._duplicate = duplicate
        self._config = config
        self._ordinal = 0

    async def partition(self, name: str, resume: object, records: int | None) -> None:
        """Read one partition to its end, or so many records of it."""
        requests: asyncio.Queue[source_pb2.ReadRequest | None] = asyncio.Queue(MESSAGES_MAX)
        answers: asyncio.Queue[bytes] = asyncio.Queue(MESSAGES_MAX)

        async def asked() -> AsyncIterator[source_pb2.ReadRequest]:
            while (request := await requests.get()) is not None:
                yield request

        async def write(message: source_pb2.ReadResponse) -> None:
            await answers.put(message.SerializeToString())

        context = context_of(self._call(self._source.name, 1))
        stream = SourceStream(self._source, context, write, self.workers.run)
        position = b"" if resume is None else self._resume(resume)
        opening = source_pb2.OpenPartition(partition=name, resume=position, assignment_term=1)
        await requests.put(source_pb2.ReadRequest(open=opening))
        serving = asyncio.create_task(stream.run(asked()))
        try:
            await self._drain(name, requests, answers, records)
        finally:
            await requests.put(None)
            while not serving.done():  # a writer may still wait for room
                if not answers.empty():
                    answers.get_nowait()
                await asyncio.sleep(0)
            await serving

    async def _drain(
        self,
        name: str,
        requests: asyncio.Queue[source_pb2.ReadRequest | None],
        answers: asyncio.Queue[bytes],
        records: int | None,
    ) -> None:
        read = 0
        while records is None or read < records:
            grant = (
                read + CREDIT_RECORDS if records is None else min(read + CREDIT_RECORDS, records)
            )
            credit = record_pb2.Credit(records_limit=grant, bytes_limit=2**63)
            await requests.put(source_pb2.ReadRequest(credit=credit))
            answer = split_read_response(await answers.get())
            if answer.batch is None:
                self._closed(name, answer)
                return
            count, position = await self._carry(answer.batch)
            read += count
            ended = source_pb2.Ended(partition=name, position=position)
            await requests.put(source_pb2.ReadRequest(ended=ended))

    def _closed(self, name: str, answer: SourceAnswer) -> None:
        if answer.failure is not None:
            self.result.source_failures[name] = answer.failure.reason

    async def _carry(self, batch: SourceRecords) -> tuple[int, bytes]:
        """Carry a batch to its end; return how many records it had and the position after it."""
        count = len(batch.lengths) // 4
        stable = self._source.stable_offsets
        offsets = batch.offsets if stable else range(self._ordinal, self._ordinal + count)
        self._ordinal += count
        self.result.records_read += count
        self.result.oversize.extend(batch.oversize)
        origin = Origin(PIPELINE, self._source.name, batch.partition, term=0 if stable else 1)
        await self._through(0, from_records(batch.body, batch.lengths, origin, offsets))
        position = batch.oversize[-1].position if batch.oversize else b""
        if count and not (batch.oversize and batch.oversize[-1].before == count):
            position = (batch.offsets[-1] + 1).to_bytes(8, "big") if stable else batch.positions[-1]
        self.result.positions[batch.partition] = self._source.positions.decode(position)
        return count + len(batch.oversize), position

    async def _through(self, place: int, frame: Frame) -> None:
        """Carry a frame through the stages from `place` on."""
        if not frame.count:
            return
        if place == len(self._stages):
            self._written(frame)
            return
        stage = self._stages[place]
        attempt, busy = 1, 0
        while frame.count:
            if isinstance(stage, Transform):
                failures, outputs = await self._transform(stage, frame, attempt)
                await self._through(place + 1, outputs)
            else:
                failures = await self._sink(stage, frame, attempt)
            again = self._sort_out(stage, frame, failures, attempt, busy)
            if all(f.kind == record_pb2.FAILURE_KIND_BUSY for f in failures):
                busy += 1
            else:
                attempt += 1
            frame = frame.select(again)

    async def _transform(
        self, stage: Transform, frame: Frame, attempt: int
    ) -> tuple[Sequence[record_pb2.Failure], Frame]:
        data = await self._request(stage, frame, attempt)
        request = transform_pb2.TransformRequest.FromString(data)
        answer = split_transform_response(
            await self.workers.answer(stage, partial(stage.answer, request))
        )
        paths = output_paths(answer.parents, frame.paths, stage.name)
        outputs = derive(frame, answer.body, answer.lengths, answer.parents, paths)
        ended = len(set(answer.parents)) + len(answer.failures)
        self.result.filtered += frame.count - ended
        return answer.failures, outputs

    async def _sink(
        self, stage: CalledService, frame: Frame, attempt: int
    ) -> Sequence[record_pb2.Failure]:
        data = await self._request(stage, frame, attempt)
        for _ in range(2 if self._duplicate else 1):
            request = sink_pb2.SinkRequest.FromString(data)
            written = await self.workers.answer(stage, partial(stage.answer, request))
        failures = sink_pb2.SinkResponse.FromString(written).failures
        failed = {failure.index for failure in failures}
        self._written(frame.select([i for i in range(frame.count) if i not in failed]))
        return failures

    def _sort_out(
        self,
        stage: CalledService,
        frame: Frame,
        failures: Sequence[record_pb2.Failure],
        attempt: int,
        busy: int,
    ) -> list[int]:
        """Return which records to try again; the other failures become dead letters."""
        again: list[int] = []
        records = _payloads(frame)
        for failure in failures:
            is_busy = failure.kind == record_pb2.FAILURE_KIND_BUSY
            retried = busy < BUSY_TRIES_MAX if is_busy else attempt < self._attempts
            if failure.kind != record_pb2.FAILURE_KIND_REJECT and retried:
                again.append(failure.index)
                continue
            self.result.dead_letters.append(
                DeadLetter(
                    stage.name, records[failure.index], failure.reason, failure.detail, attempt
                )
            )
        return again

    async def _request(self, stage: CalledService, frame: Frame, attempt: int) -> bytes:
        call = encode_call(self._call(stage.name, attempt))
        return service_request(call, [frame.body], frame.lineage(), 1)

    def _call(self, name: str, attempt: int) -> record_pb2.Call:
        return record_pb2.Call(
            service=name,
            pipeline=PIPELINE,
            stage=name,
            assignment_term=1,
            attempt=attempt,
            config=self._config,
            sidecar="test",
        )

    def _resume(self, position: object) -> bytes:
        if self._source.stable_offsets and isinstance(position, int):
            return position.to_bytes(8, "big")
        return self._source.positions.encode(position)

    def _written(self, frame: Frame) -> None:
        for payload in _payloads(frame):
            try:
                self.result.written.append(decode_json(payload))
            except CodecError:
                self.result.written.append(payload)


def _payloads(frame: Frame) -> list[bytes]:
    return [record.payload for record in closed_pb2.RecordRun.FromString(frame.body).records]
