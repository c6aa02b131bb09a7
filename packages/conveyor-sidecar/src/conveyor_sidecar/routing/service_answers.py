"""What services answer, checked against the contract and turned into the engine's words.

A service is a stranger's program. An answer that breaks the contract is refused as a whole
(``GARBAGE``), because nothing in it can be relied on: the records are tried again and become dead
letters in the end, with the sentence written here as their reason. Texts are bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from conveyor_sdk.carrier import (
    MalformedMessage,
    SourceRecords,
    TransformAnswer,
    split_transform_response,
)
from conveyor_sdk.carrier.frame import write_u64
from conveyor_sdk.wire import record_pb2, sink_pb2
from conveyor_sidecar.core.events import Failure, FailureKind, Oversize
from conveyor_sidecar.errors import ProtocolError

if TYPE_CHECKING:
    from conveyor_sdk.wire.source_pb2 import Oversize as WireOversize

_REASON_CHARACTERS_MAX = 1_024
_DETAIL_CHARACTERS_MAX = 8 * 1024
_POSITION_BYTES_MAX = 1_024
_RETRY_AFTER_MS_MAX = 3_600_000

FAILURE_KINDS = {
    record_pb2.FAILURE_KIND_UNSPECIFIED: FailureKind.RETRY,
    record_pb2.FAILURE_KIND_RETRY: FailureKind.RETRY,
    record_pb2.FAILURE_KIND_REJECT: FailureKind.REJECT,
    record_pb2.FAILURE_KIND_BUSY: FailureKind.BUSY,
}


def transform_answer(data: bytes, count: int) -> tuple[TransformAnswer, tuple[Failure, ...]]:
    """A transform's answer to ``count`` records.

    Raises:
        ProtocolError: it breaks the contract; the text says where.
    """
    try:
        answer = split_transform_response(data)
    except MalformedMessage as error:
        raise ProtocolError(str(error)) from error
    outputs = len(answer.lengths) // 4
    parents = answer.parents
    if len(parents) != outputs:
        raise ProtocolError(f"{outputs} records came with {len(parents)} parents")
    if outputs and max(parents) >= count:
        raise ProtocolError(f"a record names input {max(parents)}; the call had {count}")
    if answer.routes and len(answer.routes) != outputs:
        raise ProtocolError(f"{outputs} records came with {len(answer.routes)} routes")
    failures = record_failures(answer.failures, count)
    both = {failure.index for failure in failures}.intersection(parents) if failures else None
    if both:
        raise ProtocolError(f"input {min(both)} has an output and a failure")
    return answer, failures


def sink_answer(data: bytes, count: int) -> tuple[Failure, ...]:
    """The records that a sink did not write, of ``count``.

    Raises:
        ProtocolError: it breaks the contract; the text says where.
    """
    try:
        answer = sink_pb2.SinkResponse.FromString(data)
    except DecodeError as error:
        raise ProtocolError("the answer cannot be parsed as a SinkResponse") from error
    return record_failures(answer.failures, count)


def record_failures(failures: Iterable[record_pb2.Failure], count: int) -> tuple[Failure, ...]:
    """The failures of single records, one per record at most.

    Raises:
        ProtocolError: a failure names a record that the call did not have.
    """
    found: dict[int, Failure] = {}
    for failure in failures:
        index = failure.index
        if index >= count:
            raise ProtocolError(f"a failure names record {index}; the call had {count}")
        found.setdefault(
            index,
            Failure(
                index=index,
                kind=FAILURE_KINDS.get(failure.kind, FailureKind.RETRY),
                reason=failure.reason[:_REASON_CHARACTERS_MAX] or "the service gave no reason",
                detail=failure.detail[:_DETAIL_CHARACTERS_MAX],
                retry_after_ms=retry_after_ms(failure),
            ),
        )
    return tuple(found.values())


def retry_after_ms(message: record_pb2.Failure) -> int:
    """The wish for a pause, bounded to an hour; 0 without one."""
    if not message.HasField("retry_after"):
        return 0
    return max(0, min(message.retry_after.ToMilliseconds(), _RETRY_AFTER_MS_MAX))


def source_position(batch: SourceRecords, *, stable: bool) -> bytes:
    """Where reading resumes after the whole batch, tombstones included.

    Args:
        batch: Not empty.
        stable: The source has declared stable offsets.

    Raises:
        ProtocolError: positions or offsets break the contract.
    """
    count = len(batch.lengths) // 4
    oversize = batch.oversize
    if any(item.before > count for item in oversize):
        raise ProtocolError("a tombstone stands beyond the end of its batch")
    if stable:
        return _next_offset(batch.offsets, oversize, count)
    if batch.offsets:
        raise ProtocolError("a batch has offsets, but the source does not declare stable_offsets")
    if len(batch.positions) != count:
        raise ProtocolError(f"{count} records came with {len(batch.positions)} positions")
    positions = [*batch.positions, *(item.position for item in oversize)]
    for position in positions:
        if not 0 < len(position) <= _POSITION_BYTES_MAX:
            raise ProtocolError(
                f"a position has {len(position)} bytes; between 1 and {_POSITION_BYTES_MAX} are "
                "possible"
            )
    if oversize and oversize[-1].before == count:
        return oversize[-1].position
    return batch.positions[-1]


def _next_offset(offsets: Sequence[int], oversize: Sequence[WireOversize], count: int) -> bytes:
    """The offset after the last one, 8 bytes big-endian."""
    if len(offsets) != count:
        raise ProtocolError(f"{count} records came with {len(offsets)} offsets")
    last = max([*offsets[-1:], *(item.offset for item in oversize)])
    return (last + 1).to_bytes(8, "big")


def offsets_column(batch: SourceRecords) -> bytes:
    """The u64 column of a batch with stable offsets; empty otherwise."""
    return write_u64(batch.offsets) if batch.offsets else b""


def tombstones(batch: SourceRecords, stable: bool) -> tuple[tuple[Oversize, ...], tuple[int, ...]]:
    """The records that the source named instead of sending, and with stable offsets their own."""
    named = tuple(
        Oversize(before=item.before, size=item.size, sha256=item.sha256[:32])
        for item in batch.oversize
    )
    return named, tuple(item.offset for item in batch.oversize) if stable else ()
