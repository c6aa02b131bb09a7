"""The frame: a run of entries as bytes, built once and the same on disk, on the wire and in memory.

What for: the cost of consensus in Python is per object, not per byte. The leader packs all payloads
of one `propose` call into one frame; followers check its CRC and store it without looking inside;
only applying takes the entries out.

Rules kept: the entries of a frame are consecutive and share term, timestamp and kind, so a frame
says everything about an entry's term in one place; decoding believes no length before it has seen
that the bytes are there; a frame whose CRC differs is never handed on.

Layout (little-endian), `n` entries::

    u32 crc32 of all that follows | u32 length of the whole frame | u16 version | u16 kind | u32 n
    u64 first index | u64 term | u64 timestamp in ms | n × u32 payload length | payloads
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from conveyor_raft.core.types import EntryKind, LogEntry, LogId, LogIndex, Term
from conveyor_raft.errors import Corrupt

_VERSION = 1
_HEADER = struct.Struct("<IIHHIQQQ")
_CRC_BYTES = 4
FRAME_OVERHEAD_BYTES = _HEADER.size
LENGTH_BYTES = 4
"""A frame adds this much to its payloads: the overhead once, the length for each."""


class Frame:
    """An immutable run of entries, `first_index` to `last_index`; `data` is its whole encoding."""

    __slots__ = ("count", "data", "first_index", "kind", "last_index", "term", "timestamp_ms")

    def __init__(
        self,
        first_index: LogIndex,
        count: int,
        term: Term,
        *,
        timestamp_ms: int,
        kind: EntryKind,
        data: bytes,
    ) -> None:
        """Keep what was decoded or built; use `build` or `decode`."""
        self.first_index = first_index
        self.count = count
        self.last_index = LogIndex(first_index + count - 1)
        self.term = term
        self.timestamp_ms = timestamp_ms
        self.kind = kind
        self.data = data

    @classmethod
    def build(
        cls,
        first_index: LogIndex,
        term: Term,
        timestamp_ms: int,
        kind: EntryKind,
        payloads: Sequence[bytes],
    ) -> Self:
        """Pack at least one payload into a frame."""
        count = len(payloads)
        if not count:
            raise ValueError("a frame needs at least one entry")
        lengths = struct.pack(f"<{count}I", *map(len, payloads))
        body = b"".join(payloads)
        size = _HEADER.size + len(lengths) + len(body)
        header = _HEADER.pack(0, size, _VERSION, kind, count, first_index, term, timestamp_ms)
        crc = zlib.crc32(body, zlib.crc32(lengths, zlib.crc32(header[_CRC_BYTES:])))
        data = b"".join((crc.to_bytes(_CRC_BYTES, "little"), header[_CRC_BYTES:], lengths, body))
        return cls(first_index, count, term, timestamp_ms=timestamp_ms, kind=kind, data=data)

    @classmethod
    def decode(cls, buffer: bytes, offset: int = 0) -> Self:
        """Return the frame that starts at the offset.

        Raises:
            Corrupt: there is no whole, undamaged frame of a known version.
        """
        available = len(buffer) - offset
        if available < _HEADER.size:
            raise Corrupt(f"a frame at byte {offset} has only {available} bytes left")
        crc, length, version, kind, count, first, term, timestamp_ms = _HEADER.unpack_from(
            buffer, offset
        )
        if not _HEADER.size + count * LENGTH_BYTES <= length <= available or not count:
            raise Corrupt(f"a frame at byte {offset} claims {count} entries in {length} bytes")
        data = buffer[offset : offset + length]
        if zlib.crc32(memoryview(data)[_CRC_BYTES:]) != crc:
            raise Corrupt(f"the checksum of the frame at byte {offset} (index {first}) differs")
        if version != _VERSION or kind not in _KINDS:
            raise Corrupt(
                f"the frame at index {first} has version {version} and kind {kind}, unknown to"
                " this release; run the release that wrote it"
            )
        frame = cls(
            LogIndex(first),
            count,
            Term(term),
            timestamp_ms=timestamp_ms,
            kind=EntryKind(kind),
            data=data,
        )
        if frame._payload_start() + sum(frame._lengths()) != length:
            raise Corrupt(f"the lengths in the frame at index {first} do not add up")
        return frame

    @property
    def size(self) -> int:
        """The bytes that the frame takes on disk, on the wire and in memory."""
        return len(self.data)

    @property
    def last_id(self) -> LogId:
        """The id of the last entry."""
        return LogId(self.last_index, self.term)

    def payloads(self) -> list[bytes]:
        """Return the payloads of all entries, in order."""
        data = self.data
        start = self._payload_start()
        payloads = []
        for length in self._lengths():
            payloads.append(data[start : start + length])
            start += length
        return payloads

    def entries(self) -> Iterator[LogEntry]:
        """Yield all entries, in order."""
        index, term, timestamp_ms, kind = self.first_index, self.term, self.timestamp_ms, self.kind
        for payload in self.payloads():
            yield LogEntry(index, term, timestamp_ms, kind, payload)
            index = LogIndex(index + 1)

    def slice(self, first: LogIndex, last: LogIndex) -> Self:
        """Return the frame of the entries `first` to `last`, both of them within this one."""
        if first == self.first_index and last == self.last_index:
            return self
        if not self.first_index <= first <= last <= self.last_index:
            raise ValueError(f"{first}..{last} is not within {self!r}")
        payloads = self.payloads()[first - self.first_index : last - self.first_index + 1]
        return self.build(first, self.term, self.timestamp_ms, self.kind, payloads)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return (
            f"Frame({self.first_index}..{self.last_index} term {self.term} {self.kind.name}"
            f" {self.size} bytes)"
        )

    def _payload_start(self) -> int:
        return _HEADER.size + self.count * LENGTH_BYTES

    def _lengths(self) -> tuple[int, ...]:
        return struct.unpack_from(f"<{self.count}I", self.data, _HEADER.size)


_KINDS = frozenset(EntryKind)


def encode_frames(frames: Iterable[Frame]) -> bytes:
    """Return the frames one after the other, as they stand in one row or one message."""
    return b"".join([frame.data for frame in frames])


def decode_frames(buffer: bytes) -> tuple[Frame, ...]:
    """Return all frames of the buffer, which holds nothing else.

    Raises:
        Corrupt: some byte does not belong to a whole, undamaged frame.
    """
    frames = []
    offset = 0
    while offset < len(buffer):
        frame = Frame.decode(buffer, offset)
        frames.append(frame)
        offset += frame.size
    return tuple(frames)
