"""Opening records where an edge asks for it: conditions and keys.

Records travel closed. Only an edge with a ``when`` or with ``order: key`` needs a look at key,
type, headers or event time, and then a frame's records are opened once, however many edges ask: the
last body that was opened is remembered.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from google.protobuf.message import DecodeError

from conveyor_registry.model import Predicate
from conveyor_sdk.carrier import Frame, key_hash
from conveyor_sdk.carrier.frame import write_u64
from conveyor_sdk.wire import closed_pb2, record_pb2


class OpenedRecords:
    """Opens bodies; one per routing table, so that it lives as long as the conditions do."""

    def __init__(self) -> None:
        self._body = b""
        self._records: Sequence[record_pb2.Record] = ()

    def of(self, body: bytes) -> Sequence[record_pb2.Record]:
        """The records of a body that was checked when it came in."""
        if body is not self._body:
            try:
                self._records = closed_pb2.RecordRun.FromString(body).records
            except DecodeError:
                self._records = ()
            self._body = body
        return self._records

    def condition(self, predicate: Predicate) -> Callable[[Frame], Sequence[int]]:
        """For a frame the places of the records for which the predicate holds."""
        matches = predicate.matches

        def places(frame: Frame) -> Sequence[int]:
            return [
                place
                for place, record in enumerate(self.of(frame.body))
                if matches(record.key, record.type, _event_time_ms(record), record.headers)
            ]

        return places

    def key_hashes(self, body: bytes) -> bytes:
        """The u64 column of the records' key hashes."""
        hashes: dict[bytes, int] = {}
        column = array("Q")
        for record in self.of(body):
            key = record.key
            value = hashes.get(key)
            if value is None:
                value = hashes[key] = key_hash(key)
            column.append(value)
        return write_u64(column)


def _event_time_ms(record: record_pb2.Record) -> int:
    """Event time in Unix milliseconds; 0 where the record has none."""
    if not record.HasField("event_time"):
        return 0
    return record.event_time.seconds * 1000 + record.event_time.nanos // 1_000_000
