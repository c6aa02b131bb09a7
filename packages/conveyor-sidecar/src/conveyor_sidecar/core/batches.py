"""A source's batch, checked and numbered before anything of it is used.

A source may be written by anybody. A batch that breaks the contract is refused as a whole, with
words that say what is wrong; what was read before it stays.

Its records are numbered in the order in which they stood in the source: by ordinals that follow
those given before, or by the source's own offsets where it promises that they are stable. Records
that the source only named, because they are above the limit, have their place and their number
like all others; they become dead letters.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

from conveyor_sdk.carrier.errors import MalformedFrame
from conveyor_sdk.carrier.frame import Frame, check_frame, from_records, read_u64
from conveyor_sdk.carrier.lineage import Origin
from conveyor_sidecar.core.events import Failure, FailureKind, Oversize, SourceBatchRead

POSITION_BYTES_MAX = 1024
"""Longest position that a source may give."""


class BatchRefused(ValueError):  # noqa: N818 - it says what happened to the batch
    """The batch breaks the contract; the text says how."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that can be taken into custody.

    Attributes:
        frame: Its records; path 0.
        named: The records that were only named, each with the reason of its dead letter.
        end: First number after the batch.
    """

    frame: Frame
    named: tuple[tuple[Oversize, Failure], ...]
    end: int


def number_batch(event: SourceBatchRead, origin: Origin, first: int, stable: bool) -> Batch:
    """Check a batch and number its records.

    Args:
        event: What came.
        origin: Of the partition.
        first: The first number that is free.
        stable: The source numbers its records itself.

    Raises:
        BatchRefused: Nothing of it may be used.
    """
    _check_form(event)
    offsets, named, end = (_own if stable else _ordinals)(event, first)
    try:
        frame = from_records(
            event.body, event.lengths, origin, offsets, traceparent=event.traceparent
        )
        if event.key_hashes:
            frame = replace(frame, key_hashes_column=event.key_hashes)
            check_frame(frame)
    except MalformedFrame as error:
        raise BatchRefused(str(error)) from error
    reasons = [
        f"record {offset} of partition {origin.partition!r} has {large.size} bytes, "
        "which is above the limit; its source named it instead of sending it"
        for large, offset in zip(event.oversize, named, strict=True)
    ]
    failures = [Failure(0, FailureKind.REJECT, reason) for reason in reasons]
    return Batch(frame, tuple(zip(event.oversize, failures, strict=True)), end)


def _check_form(event: SourceBatchRead) -> None:
    size = len(event.position)
    if not 0 < size <= POSITION_BYTES_MAX:
        raise BatchRefused(f"a position has {size} bytes; it must have 1 to {POSITION_BYTES_MAX}")
    places = [0, *[named.before for named in event.oversize], len(event.lengths) // 4]
    if places != sorted(places):
        raise BatchRefused("a named record stands outside of its batch, or before another one")


def _ordinals(event: SourceBatchRead, first: int) -> tuple[Sequence[int], Sequence[int], int]:
    """Number a batch: its records, its named records, and the next one."""
    count = len(event.lengths) // 4
    if not event.oversize:
        return range(first, first + count), (), first + count
    offsets = array("Q")
    named: list[int] = []
    ordinal = first
    waiting = list(reversed(event.oversize))
    for place in range(count + 1):
        while waiting and waiting[-1].before <= place:
            waiting.pop()
            named.append(ordinal)
            ordinal += 1
        if place < count:
            offsets.append(ordinal)
            ordinal += 1
    return offsets, named, ordinal


def _own(event: SourceBatchRead, first: int) -> tuple[Sequence[int], Sequence[int], int]:
    """Take the source's own offsets, if they keep its promise; and the first one after them."""
    count = len(event.lengths) // 4
    offsets = read_u64(event.offsets) if len(event.offsets) == 8 * count else ()
    if len(offsets) != count or len(event.oversize_offsets) != len(event.oversize):
        raise BatchRefused(
            f"{count} records came with {len(event.offsets) // 8} offsets, and "
            f"{len(event.oversize)} named ones with {len(event.oversize_offsets)}; "
            "it declares stable offsets, one for each"
        )
    together = list(offsets)
    pairs = zip(reversed(event.oversize), reversed(event.oversize_offsets), strict=True)
    for named, offset in pairs:
        together.insert(named.before, offset)
    last = first - 1
    for offset in together:
        if offset <= last:
            raise BatchRefused(
                f"offset {offset} came after {last}; it declares stable offsets, "
                "which only grow in a partition, on every replay"
            )
        last = offset
    return offsets, event.oversize_offsets, last + 1
