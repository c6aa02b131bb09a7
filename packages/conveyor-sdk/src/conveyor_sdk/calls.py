"""A call of a sidecar as its handler sees it: values that could be read, and the context.

Handlers that run in a thread and handlers that run on the event loop share their code. It is
written as coroutines; for plain functions and generators these never wait, so `run_unwaiting`
drives one to its end inside a thread, in one step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from conveyor_sdk.carrier import LINEAGE_BYTES
from conveyor_sdk.context import Context, context_of
from conveyor_sdk.definition import Input, Options, Service, input_of
from conveyor_sdk.errors import CodecError, SdkError
from conveyor_sdk.failures import unreadable
from conveyor_sdk.wire import info_pb2, record_pb2, sink_pb2, transform_pb2

T = TypeVar("T")

BATCH_RECORDS_MAX = 100_000
CONCURRENCY_MAX = 64


class MalformedCall(SdkError):  # noqa: N818 - it names what the call is
    """The request contradicts itself; nothing was handled."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the handler's work may be asked for at once.

    Attributes:
        batch: Records in one call; 0 leaves it to the sidecar.
        batch_bytes: Bytes in one call; 0 leaves it to the sidecar.
        concurrency: Calls of the handler at the same time. One more call may wait in the process.
    """

    batch: int = 0
    batch_bytes: int = 0
    concurrency: int = 1

    def check(self, service: Service) -> None:
        """Refuse numbers that make no sense, with the service's error."""
        if not 0 <= self.batch <= BATCH_RECORDS_MAX:
            raise service.refused(f"batch={self.batch}: use 0 (no limit) to {BATCH_RECORDS_MAX}")
        if self.batch_bytes < 0:
            raise service.refused(f"batch_bytes={self.batch_bytes}: use 0 (no limit) or more")
        if not 1 <= self.concurrency <= CONCURRENCY_MAX:
            raise service.refused(f"concurrency={self.concurrency}: use 1 to {CONCURRENCY_MAX}")

    def describe(self, description: info_pb2.ServiceDescription) -> None:
        """Put the limits into a description."""
        description.batch_records_max = self.batch
        description.batch_bytes_max = self.batch_bytes
        description.concurrency_max = self.concurrency + 1


class CalledService(Service, ABC):
    """A service that is handed records: what transforms and sinks have in common."""

    def __init__(self, function: Any, options: Options, limits: Limits) -> None:
        super().__init__(function, options)
        limits.check(self)
        self.limits = limits
        self.input = input_of(self)

    @abstractmethod
    async def answer(self, request: Any, traceparent: str = "") -> bytes:
        """Return the serialized answer to a request; never waits unless the handler is async.

        Args:
            request: The kind's request message.
            traceparent: W3C trace context of the call, or empty.

        Raises:
            MalformedCall: The request contradicts itself.
        """

    async def describe(self) -> info_pb2.ServiceDescription:
        """Return what `Describe` says of it."""
        description = await super().describe()
        self.limits.describe(description)
        return description


@dataclass(frozen=True, slots=True)
class Values:
    """The records of a request that could be read.

    Attributes:
        indexes: Their places in the request.
        values: What the handler gets, in the same order.
        lineages: Of all records of the request.
        errors: The records that could not be read, by place.
    """

    indexes: Sequence[int]
    values: list[object]
    lineages: Sequence[bytes]
    errors: dict[int, BaseException]


def read_values(
    asked: Input, request: transform_pb2.TransformRequest | sink_pb2.SinkRequest
) -> Values:
    """Read the records of a request.

    Raises:
        MalformedCall: The lineage is not that of the records.
    """
    count = len(request.records)
    lineage = request.lineage
    if lineage and len(lineage) != LINEAGE_BYTES * count:
        raise MalformedCall(
            f"lineage has {len(lineage)} bytes; {count} records need {LINEAGE_BYTES * count}"
        )
    values: list[object] = []
    errors: dict[int, BaseException] = {}
    read = asked.read
    for index, record in enumerate(request.records):
        try:
            values.append(read(record))
        except CodecError as error:
            errors[index] = unreadable(error)
    indexes = range(count) if not errors else [i for i in range(count) if i not in errors]
    lineages = [lineage[at : at + LINEAGE_BYTES] for at in range(0, len(lineage), LINEAGE_BYTES)]
    return Values(indexes, values, lineages or [b""] * count, errors)


@dataclass(frozen=True, slots=True)
class Arguments:
    """Makes the keyword arguments of a handler."""

    wants_context: bool
    call: record_pb2.Call
    lineages: Sequence[bytes]
    traceparent: str

    def of(self, indexes: Sequence[int]) -> dict[str, Context]:
        """Return the keyword arguments for a call with the records at `indexes`."""
        if not self.wants_context:
            return {}
        lineages = [self.lineages[index] for index in indexes]
        return {"ctx": context_of(self.call, lineages, self.traceparent)}


def run_unwaiting(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits.

    Raises:
        RuntimeError: It waited.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a plain handler waited for something outside an event loop")
