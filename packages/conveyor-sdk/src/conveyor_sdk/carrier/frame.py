"""The frame: records that travel together between sidecars, never opened on the way.

What for. A data plane in Python is as fast as it leaves records alone: parsing and rebuilding 500
records costs fifty times what moving their bytes does. A frame therefore has three parts. Its
*header* is plain fields (lane, sequence, term, count). Its *index* is columns: arrays of
little-endian unsigned integers, one entry per record (length, which origin, offset, path and for
keyed edges the hash of the key), kept as `bytes` and read through `memoryview.cast`. Its *body* is
the records as they stand in a request to a service: a run of `records` fields (tag 2: 0x12, length,
record). Any part of such a run is such a run, so that splitting a frame is slicing, merging frames
is joining, and calling a service is putting a prefix before the body (`carrier/requests.py`).

Rules. A frame is a value: nothing changes it, `select`, `merge_frames` and `replace` make new ones,
and retained frames share their columns and body with those that were sent. An empty column (never
`lengths`) means all zero, so that records of one origin straight from a source carry two columns.
`from_wire` trusts nothing: a column of the wrong size or lengths that do not add up to the body are
refused with `MalformedFrame`. Columns are little-endian on the wire and on every host; a big-endian
host swaps when it reads.

The engine, the simulator and every carrier use this one codec. The idea of columns beside an opaque
body is Arrow's IPC format (schema-less here) and Kafka's record batch v2.

Measured (one core of a 2.x GHz virtual machine, 500 records of 200 bytes, 100 KiB of body): encode
7 µs, decode and check 13 µs, read all columns into lists 20 µs, select every second record 74 µs,
select a contiguous part 9 µs, merge two frames 11 µs, derive a transform's outputs 25 µs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from google.protobuf.message import DecodeError

from conveyor_sdk.carrier.columns import Column, read_u32, read_u64, varint, write_u32, write_u64
from conveyor_sdk.carrier.errors import MalformedFrame
from conveyor_sdk.carrier.frame_check import check_frame
from conveyor_sdk.carrier.lineage import Origin, lineages
from conveyor_sdk.wire import frame_pb2

__all__ = [
    "FRAME_BYTES_MAX",
    "FRAME_BYTES_TARGET",
    "FRAME_RECORDS_MAX",
    "RECORD_BYTES_MAX",
    "Column",
    "Frame",
    "check_frame",
    "derive",
    "from_records",
    "lane_message",
    "merge_frames",
    "read_u32",
    "read_u64",
    "varint",
    "write_u32",
    "write_u64",
]

FRAME_RECORDS_MAX = 500
"""Records after which a frame is full."""
FRAME_BYTES_TARGET = 256 * 1024
"""Bytes of body after which a frame is full."""
FRAME_BYTES_MAX = 4 * 1024 * 1024 - 64 * 1024
"""Bytes of body that a frame of more than one record never exceeds."""
RECORD_BYTES_MAX = 4 * 1024 * 1024 - 64 * 1024
"""Serialized bytes of the largest record."""

_BODY_TAG = bytes([15 << 3 | 2])
_DATA_TAG = bytes([3 << 3 | 2])


@dataclass(frozen=True, slots=True)
class Frame:
    """Records with their index. Build one with `from_records`, `derive` or `from_wire`.

    Attributes:
        count: Number of records.
        lengths_column: u32: bytes of each record in `body`, its tag and length prefix included.
        origin_indexes_column: u32: index into `origins`; empty means all 0.
        offsets_column: u64: the source's stable offset, else the sidecar's ordinal; empty means all
            0.
        paths_column: u64: see `carrier/lineage.py`; empty means all 0.
        key_hashes_column: u64: present on keyed edges; empty elsewhere.
        origins: The origins that occur.
        body: The run of `records` fields.
        lane: Number of the lane on the stream; 0 while the frame is on none.
        sequence: From 1, without gaps; 0 while the frame is on no lane.
        producer_term: Assignment term of the producing stage instance.
        attempt: Which delivery of these records to the consuming stage this is, from 1.
        traceparent: W3C trace context, or empty.
    """

    count: int
    lengths_column: bytes
    origin_indexes_column: bytes
    offsets_column: bytes
    paths_column: bytes
    key_hashes_column: bytes
    origins: tuple[Origin, ...]
    body: bytes
    lane: int = 0
    sequence: int = 0
    producer_term: int = 0
    attempt: int = 1
    traceparent: str = ""

    @property
    def lengths(self) -> Column:
        """Bytes of each record in the body."""
        return read_u32(self.lengths_column)

    @property
    def origin_indexes(self) -> Column:
        """For each record its index in `origins`."""
        return read_u32(self.origin_indexes_column or bytes(4 * self.count))

    @property
    def offsets(self) -> Column:
        """For each record its offset at the source."""
        return read_u64(self.offsets_column or bytes(8 * self.count))

    @property
    def paths(self) -> Column:
        """For each record its path from the source."""
        return read_u64(self.paths_column or bytes(8 * self.count))

    @property
    def key_hashes(self) -> Column | None:
        """For each record the hash of its key, or None if the frame does not carry them."""
        return read_u64(self.key_hashes_column) if self.key_hashes_column else None

    @property
    def size(self) -> int:
        """Bytes that the frame holds: its body and its columns."""
        return (
            len(self.body)
            + len(self.lengths_column)
            + len(self.origin_indexes_column)
            + len(self.offsets_column)
            + len(self.paths_column)
            + len(self.key_hashes_column)
        )

    def starts(self) -> list[int]:
        """Return where each record begins in the body, and at the end the length of the body."""
        return list(accumulate(self.lengths, initial=0))

    def lineage(self) -> bytes:
        """Return the lineage of each record, joined: 16 bytes each."""
        indexes = self.origin_indexes if self.origin_indexes_column else None
        return lineages(self.origins, indexes, self.offsets, self.paths)

    def on_lane(self, lane: int, sequence: int, producer_term: int) -> Frame:
        """Return the same records as frame `sequence` of `lane`."""
        return replace(self, lane=lane, sequence=sequence, producer_term=producer_term)

    def with_key_hashes(self, hashes: Iterable[int]) -> Frame:
        """Return the same records with the hashes of their keys, one per record."""
        return replace(self, key_hashes_column=write_u64(hashes))

    def select(self, indices: Sequence[int]) -> Frame:
        """Return the records at `indices`, which must ascend; the header stays."""
        count = len(indices)
        if count == self.count:
            return self
        if count and indices[-1] - indices[0] == count - 1:
            return self._part(indices[0], indices[-1] + 1)
        starts = self.starts()
        body = self.body
        lengths = self.lengths
        return replace(
            self,
            count=count,
            lengths_column=write_u32([lengths[i] for i in indices]),
            origin_indexes_column=_pick("I", self.origin_indexes_column, indices),
            offsets_column=_pick("Q", self.offsets_column, indices),
            paths_column=_pick("Q", self.paths_column, indices),
            key_hashes_column=_pick("Q", self.key_hashes_column, indices),
            body=b"".join([body[starts[i] : starts[i + 1]] for i in indices]),
        )

    def _part(self, first: int, end: int) -> Frame:
        lengths = self.lengths
        start = sum(lengths[:first])
        stop = start + sum(lengths[first:end])
        return replace(
            self,
            count=end - first,
            lengths_column=self.lengths_column[4 * first : 4 * end],
            origin_indexes_column=self.origin_indexes_column[4 * first : 4 * end],
            offsets_column=self.offsets_column[8 * first : 8 * end],
            paths_column=self.paths_column[8 * first : 8 * end],
            key_hashes_column=self.key_hashes_column[8 * first : 8 * end],
            body=self.body[start:stop],
        )

    def split(self, records_max: int, bytes_max: int) -> list[Frame]:
        """Return the frame cut into parts within both limits; a larger record is a part alone."""
        if self.count <= records_max and len(self.body) <= bytes_max:
            return [self]
        parts: list[Frame] = []
        first = 0
        size = 0
        for index, length in enumerate(self.lengths):
            if index > first and (index - first >= records_max or size + length > bytes_max):
                parts.append(self._part(first, index))
                first, size = index, 0
            size += length
        parts.append(self._part(first, self.count))
        return parts

    def to_wire(self) -> bytes:
        """Return the serialized `Data` message."""
        header = frame_pb2.Data(
            lane=self.lane,
            sequence=self.sequence,
            producer_term=self.producer_term,
            count=self.count,
            lengths=self.lengths_column,
            origin_indexes=self.origin_indexes_column,
            offsets=self.offsets_column,
            paths=self.paths_column,
            key_hashes=self.key_hashes_column,
            origins=[origin.encode() for origin in self.origins],
            attempt=self.attempt,
            traceparent=self.traceparent,
        )
        return b"".join((header.SerializeToString(), _BODY_TAG, varint(len(self.body)), self.body))

    @staticmethod
    def from_wire(data: bytes | frame_pb2.Data) -> Frame:
        """Return the frame that a `Data` message, serialized or parsed, holds.

        Raises:
            MalformedFrame: It is not a frame.
        """
        if isinstance(data, bytes):
            try:
                data = frame_pb2.Data.FromString(data)
            except DecodeError as error:
                raise MalformedFrame("the bytes cannot be parsed as a Data message") from error
        frame = Frame(
            count=data.count,
            lengths_column=data.lengths,
            origin_indexes_column=data.origin_indexes,
            offsets_column=data.offsets,
            paths_column=data.paths,
            key_hashes_column=data.key_hashes,
            origins=tuple(map(Origin.decode, data.origins)),
            body=data.body,
            lane=data.lane,
            sequence=data.sequence,
            producer_term=data.producer_term,
            attempt=data.attempt or 1,
            traceparent=data.traceparent,
        )
        check_frame(frame)
        return frame


def from_records(
    body: bytes,
    lengths: bytes,
    origin: Origin,
    offsets: Iterable[int],
    *,
    attempt: int = 1,
    traceparent: str = "",
) -> Frame:
    """Return the frame of records that come from one origin with path 0: what a source sends.

    Args:
        body: A run of `records` fields, as `carrier/requests.py` takes it out of a message.
        lengths: The u32 column that comes with it.
        origin: Where they come from.
        offsets: For each record its offset.
        attempt: See `Frame`.
        traceparent: See `Frame`.

    Raises:
        MalformedFrame: The parts do not fit together.
    """
    frame = Frame(
        count=len(lengths) // 4,
        lengths_column=lengths,
        origin_indexes_column=b"",
        offsets_column=write_u64(offsets),
        paths_column=b"",
        key_hashes_column=b"",
        origins=(origin,),
        body=body,
        attempt=attempt,
        traceparent=traceparent,
    )
    check_frame(frame)
    return frame


def derive(
    inputs: Frame, body: bytes, lengths: bytes, parents: Sequence[int], paths: Iterable[int]
) -> Frame:
    """Return the frame of what a transform made of `inputs`; its attempt is 1 and it is on no lane.

    Args:
        inputs: The records that were handed to the transform.
        body: The outputs, a run of `records` fields.
        lengths: The u32 column that comes with it.
        parents: For each output the index of the input that it comes from.
        paths: For each output its path, from `lineage.output_paths`.

    Raises:
        MalformedFrame: The parts do not fit together.
    """
    frame = Frame(
        count=len(parents),
        lengths_column=lengths,
        origin_indexes_column=_pick("I", inputs.origin_indexes_column, parents),
        offsets_column=_pick("Q", inputs.offsets_column, parents),
        paths_column=write_u64(paths),
        key_hashes_column=b"",
        origins=inputs.origins,
        body=body,
        traceparent=inputs.traceparent,
    )
    check_frame(frame)
    return frame


def merge_frames(frames: Sequence[Frame]) -> Frame:
    """Return the records of all `frames`, in order, on no lane.

    The attempt is the highest among them, the trace context the first. Key hashes are kept if every
    frame carries them.

    Raises:
        ValueError: There are no frames.
    """
    if not frames:
        raise ValueError("nothing to merge: at least one frame is needed")
    first = frames[0]
    if len(frames) == 1:
        return replace(first, lane=0, sequence=0, producer_term=0)
    origins: dict[Origin, int] = {}
    indexes: list[bytes] = []
    for frame in frames:
        renumbered = [origins.setdefault(origin, len(origins)) for origin in frame.origins]
        if not frame.origin_indexes_column:
            indexes.append(write_u32([renumbered[0] if renumbered else 0]) * frame.count)
        elif renumbered == list(range(len(renumbered))):
            indexes.append(frame.origin_indexes_column)
        else:
            indexes.append(write_u32([renumbered[i] for i in frame.origin_indexes]))
    paths = any(frame.paths_column for frame in frames)
    keyed = all(frame.key_hashes_column or not frame.count for frame in frames)
    return Frame(
        count=sum([frame.count for frame in frames]),
        lengths_column=b"".join([frame.lengths_column for frame in frames]),
        origin_indexes_column=b"".join(indexes) if len(origins) > 1 else b"",
        offsets_column=b"".join([f.offsets_column or bytes(8 * f.count) for f in frames]),
        paths_column=(
            b"".join([f.paths_column or bytes(8 * f.count) for f in frames]) if paths else b""
        ),
        key_hashes_column=b"".join([f.key_hashes_column for f in frames]) if keyed else b"",
        origins=tuple(origins),
        body=b"".join([frame.body for frame in frames]),
        attempt=max([frame.attempt for frame in frames]),
        traceparent=first.traceparent,
    )


def lane_message(control: frame_pb2.LaneMessage | None, frames: Iterable[Frame]) -> bytes:
    """Return a serialized `LaneMessage` with the parts of `control` and one `data` per frame."""
    parts = [] if control is None else [control.SerializeToString()]
    for frame in frames:
        data = frame.to_wire()
        parts += (_DATA_TAG, varint(len(data)), data)
    return b"".join(parts)


def _pick(code: str, column: bytes, indices: Sequence[int]) -> bytes:
    if not column:
        return column
    values = read_u32(column) if code == "I" else read_u64(column)
    picked = [values[i] for i in indices]
    return write_u32(picked) if code == "I" else write_u64(picked)
