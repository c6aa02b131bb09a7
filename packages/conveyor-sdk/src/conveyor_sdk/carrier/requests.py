"""Between frames and the messages that services speak, without opening a record.

A service's answer is parsed with a *closed* schema (`wire/closed.proto`): the same fields, but
`records` are `bytes`, so that parsing learns where each record begins and nothing else. Serialized
again, such a message begins with its records as one run of tag 2, and that run is the body of a
frame, whatever order and encoding the service chose. The other way round, a request is the
serialized `Call`, the body of a frame and a short tail, joined.

Since an unopened record could be garbage that only the next service would notice, `opened=True`
(the default for answers) parses the run once; it costs a third of the rest.

Measured (500 records of 200 bytes): take a transform's answer apart 94 µs, check included; build a
request 3 µs (without lineage, which `Frame.lineage` computes in 180 µs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from conveyor_sdk.carrier.columns import varint, write_u32
from conveyor_sdk.carrier.errors import MalformedMessage
from conveyor_sdk.wire import closed_pb2

if TYPE_CHECKING:
    from conveyor_sdk.wire import record_pb2, source_pb2

_RECORD_TAG = b"\x12"
_LINEAGE_TAG = b"\x1a"
_BATCH_ID_TAG = b"\x20"
_BATCH_TAG = b"\x0a"


@dataclass(frozen=True, slots=True)
class TransformAnswer:
    """A `TransformResponse`, its records closed.

    Attributes:
        body: The records, a run of `records` fields.
        lengths: u32 column: bytes of each in `body`.
        parents: For each record the index of its input.
        routes: Empty, or for each record the stage that it is meant for ("" for every edge that
            takes it).
        failures: Inputs that failed.
        batch_id: The request's.
    """

    body: bytes
    lengths: bytes
    parents: Sequence[int]
    routes: Sequence[str]
    failures: Sequence[record_pb2.Failure]
    batch_id: int


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """A `ReadResponse`: one of the four, or none in an empty answer."""

    batch: SourceRecords | None = None
    revoked: source_pb2.Revoked | None = None
    finished: source_pb2.Finished | None = None
    failure: source_pb2.SourceFailure | None = None


@dataclass(frozen=True, slots=True)
class SourceRecords:
    """A `SourceBatch`, its records closed.

    Attributes:
        partition: Where they come from.
        body: The records, a run of `records` fields.
        lengths: u32 column: bytes of each in `body`.
        positions: For each record where to resume after it; empty with `offsets`.
        offsets: For each record its stable offset; empty with `positions`.
        oversize: Records above the limit, named instead of sent.
    """

    partition: str
    body: bytes
    lengths: bytes
    positions: Sequence[bytes]
    offsets: Sequence[int]
    oversize: Sequence[source_pb2.Oversize]


def split_transform_response(data: bytes, *, opened: bool = True) -> TransformAnswer:
    """Take a serialized `TransformResponse` apart.

    Raises:
        MalformedMessage: It is none, or (with `opened`) one of its records is not a record.
    """
    try:
        message = closed_pb2.ClosedTransformResponse.FromString(data)
    except DecodeError as error:
        raise MalformedMessage("the answer cannot be parsed as a TransformResponse") from error
    body, lengths = _run(message, message.records, opened)
    return TransformAnswer(
        body=body,
        lengths=lengths,
        parents=message.parents[:],
        routes=message.routes[:],
        failures=message.failures[:],
        batch_id=message.batch_id,
    )


def split_read_response(data: bytes, *, opened: bool = True) -> SourceAnswer:
    """Take a serialized `ReadResponse` of a source apart.

    Raises:
        MalformedMessage: It is none, or (with `opened`) one of its records is not a record.
    """
    try:
        message = closed_pb2.ClosedReadResponse.FromString(data)
    except DecodeError as error:
        raise MalformedMessage("the message cannot be parsed as a ReadResponse") from error
    match message.WhichOneof("message"):
        case "batch":
            batch = message.batch
            partition = batch.partition
            batch.ClearField("partition")
            body, lengths = _run(batch, batch.records, opened)
            return SourceAnswer(
                batch=SourceRecords(
                    partition=partition,
                    body=body,
                    lengths=lengths,
                    positions=batch.positions[:],
                    offsets=batch.offsets[:],
                    oversize=batch.oversize[:],
                )
            )
        case "revoked":
            return SourceAnswer(revoked=message.revoked)
        case "finished":
            return SourceAnswer(finished=message.finished)
        case "failure":
            return SourceAnswer(failure=message.failure)
        case _:
            return SourceAnswer()


def _run(
    message: closed_pb2.ClosedTransformResponse | closed_pb2.ClosedSourceBatch,
    records: Sequence[bytes],
    opened: bool,
) -> tuple[bytes, bytes]:
    """Return the records, which are the lowest field of `message`, as a body and its lengths."""
    lengths = [
        n + 2 if n < 0x80 else n + 3 if n < 0x4000 else n + 4 if n < 0x200000 else n + 5
        for n in map(len, records)
    ]
    body = message.SerializeToString()[: sum(lengths)]
    if opened:
        check_body(body)
    return body, write_u32(lengths)


def check_body(body: bytes) -> None:
    """Open every record of a body once.

    Raises:
        MalformedMessage: One is not a record, for instance because its type is not UTF-8.
    """
    try:
        closed_pb2.RecordRun.FromString(body)
    except DecodeError as error:
        raise MalformedMessage("a record in the message cannot be parsed as a Record") from error


def record_field(record: bytes) -> bytes:
    """Return one serialized record as an element of a body: tag, length, record."""
    return b"".join((_RECORD_TAG, varint(len(record)), record))


def encode_call(call: record_pb2.Call) -> bytes:
    """Return `call` as the first field of a request; it may serve many requests."""
    data = call.SerializeToString()
    return b"".join((b"\x0a", varint(len(data)), data))


def service_request(call: bytes, bodies: Sequence[bytes], lineage: bytes, batch_id: int) -> bytes:
    """Return a serialized `TransformRequest` or `SinkRequest`, which are the same on the wire.

    Args:
        call: From `encode_call`.
        bodies: Bodies of frames.
        lineage: 16 bytes per record, or empty.
        batch_id: Any number; the answer carries it.
    """
    parts = [call, *bodies]
    if lineage:
        parts += (_LINEAGE_TAG, varint(len(lineage)), lineage)
    if batch_id:
        parts += (_BATCH_ID_TAG, varint(batch_id))
    return b"".join(parts)
