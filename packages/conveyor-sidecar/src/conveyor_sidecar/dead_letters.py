"""Dead letters: the records that nobody could take, kept on this sidecar's disk with the reason.

A record that is dead-lettered has *ended*: its source position may move past it. So "stored" is
said only after ``fsync``, and when the disk refuses or the pipeline's bound is reached nothing is
stored and nothing is thrown away either: the caller keeps the record, tries again, and in the
meantime the pipeline slows down by itself because its credit stays out. What leaves the store
leaves by age alone (``keep``), a whole segment at a time, and is counted.

The files, one folder per pipeline::

    <data dir>/dead-letters/<pipeline>/<number of the first entry, 20 digits>.letters

    entry   = length u32 | crc32 u32 | header_length u32 | header | record      (little endian)
    length  = bytes after the crc; crc = zlib.crc32 of the same bytes
    header  = one JSON object, UTF-8 (the fields of DeadLetter without ``record``)
    record  = the serialized conveyor.service.v1.Record, as it came; empty for a tombstone

A torn tail (a crash in the middle of an append) is cut off when the segment is next opened for
writing: what was torn was never reported as stored. Damage before the tail is not repaired: reading
stops there, says so, and goes on with the next segment.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from conveyor_sidecar.errors import DeadLetterError, DeadLettersFullError
from conveyor_sidecar.identity import sync_directory

_ENTRY = struct.Struct("<III")
_PREFIX = struct.Struct("<II")
_SUFFIX = ".letters"
_ENTRY_BYTES_MAX = 32 * 1024 * 1024
_SEGMENT_BYTES_MAX = 16 * 1024 * 1024
_DETAIL_CHARACTERS_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record and why it went no further. ``at_ms`` is wall time in Unix milliseconds."""

    pipeline: str
    stage: str
    reason: str
    at_ms: int
    kind: str = "reject"
    detail: str = ""
    attempts: int = 0
    source_stage: str = ""
    partition: str = ""
    replay_id: int = 0
    origin_term: int = 0
    ordinal: int = 0
    path: int = 0
    lineage: str = ""
    size: int = 0
    sha256: str = ""
    service: str = ""
    traceparent: str = ""
    record: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Damage:
    """A place in a segment that cannot be read; what stands before it was read."""

    segment: Path
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetterLimits:
    """How much one pipeline may keep here, and for how long."""

    bytes_max: int = 1024 * 1024 * 1024
    keep_ms: int = 7 * 24 * 3600 * 1000


class _Shelf:
    """One pipeline's segments. Blocking; the store calls it from a thread, one call at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: IO[bytes] | None = None
        self._writer_bytes = 0
        self._closed: dict[Path, int] = {}
        directory.mkdir(parents=True, exist_ok=True)
        sync_directory(directory.parent)
        for path in segments(directory):
            self._closed[path] = path.stat().st_size
        self._next = 0
        if self._closed:
            last = max(self._closed)
            count, good = _count_entries(last)
            self._next = int(last.stem) + count
            if good < self._closed[last]:
                os.truncate(last, good)
                self._closed[last] = good

    @property
    def letters_kept(self) -> int:
        """Letters on disk; segments are named by number, so this needs no reading."""
        names = [int(path.stem) for path in self._closed]
        if self._writer is not None:
            names.append(int(Path(self._writer.name).stem))
        return self._next - min(names) if names else 0

    @property
    def bytes_kept(self) -> int:
        return self._writer_bytes + sum(self._closed.values())

    def expire(self, oldest_ms: int) -> int:
        """Remove the segments whose newest entry is older than that; returns how many went."""
        gone = [path for path in self._closed if path.stat().st_mtime_ns // 1_000_000 < oldest_ms]
        for path in gone:
            path.unlink(missing_ok=True)
            del self._closed[path]
        if gone:
            sync_directory(self._directory)
        return len(gone)

    def append(self, blob: bytes, count: int) -> None:
        """Write and fsync; on any failure the segment is abandoned at its last good length."""
        if self._writer is not None and self._writer_bytes >= _SEGMENT_BYTES_MAX:
            self._retire()
        if self._writer is None:
            path = self._directory / f"{self._next:020d}{_SUFFIX}"
            self._closed.pop(path, None)
            self._writer = path.open("wb", buffering=0)
            self._writer_bytes = 0
            sync_directory(self._directory)
        try:
            _write_all(self._writer, blob)
            os.fsync(self._writer.fileno())
        except OSError:
            self._abandon()
            raise
        self._writer_bytes += len(blob)
        self._next += count

    def close(self) -> None:
        if self._writer is not None:
            self._retire()

    def _retire(self) -> None:
        assert self._writer is not None
        self._closed[Path(self._writer.name)] = self._writer_bytes
        self._writer.close()
        self._writer = None
        self._writer_bytes = 0

    def _abandon(self) -> None:
        """After a failed write or fsync nothing beyond the last good length can be trusted."""
        assert self._writer is not None
        path, good = Path(self._writer.name), self._writer_bytes
        try:
            os.ftruncate(self._writer.fileno(), good)
        except OSError:
            # Unreadable tails are cut at the next opening; the number below keeps names apart.
            self._next += 1
        self._retire()
        if good == 0:
            path.unlink(missing_ok=True)
            self._closed.pop(path, None)


class DeadLetterStore:
    """All pipelines' dead letters of this sidecar; ``append`` returns once they are on disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shelves: dict[str, _Shelf] = {}
        self._lock = asyncio.Lock()
        self.stored_total = 0
        self.expired_segments_total = 0

    async def append(
        self,
        pipeline: str,
        letters: Sequence[DeadLetter],
        *,
        now_ms: int,
        limits: DeadLetterLimits | None = None,
    ) -> None:
        """Store the letters of one pipeline, durably, all of them or none.

        Raises:
            DeadLettersFullError: the pipeline's bound is reached; nothing was written.
            DeadLetterError: the disk refused; nothing is to be relied on.
        """
        limits = limits or DeadLetterLimits()
        async with self._lock:
            work = asyncio.to_thread(self._append, pipeline, letters, now_ms, limits)
            # A cancelled caller must not leave a thread behind that writes beside the next one.
            task = asyncio.ensure_future(work)
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait([task])
                raise

    async def load(self) -> None:
        """Open what earlier lives left here, so that it is counted (and torn tails are cut).

        Raises:
            DeadLetterError: the directory cannot be read or written.
        """
        async with self._lock:
            await asyncio.to_thread(self._load)

    def held(self) -> list[tuple[str, int, int]]:
        """For each pipeline with dead letters here: its name, letters and bytes."""
        return [
            (pipeline, shelf.letters_kept, shelf.bytes_kept)
            for pipeline, shelf in self._shelves.items()
            if shelf.letters_kept
        ]

    async def close(self) -> None:
        """Close every open segment; the store may be used again afterwards."""
        async with self._lock:
            for shelf in self._shelves.values():
                shelf.close()
            self._shelves.clear()

    def statistics(self) -> dict[str, int]:
        """Letters stored in this life, bytes kept on disk, segments that went by age."""
        return {
            "stored_total": self.stored_total,
            "bytes": sum(shelf.bytes_kept for shelf in self._shelves.values()),
            "expired_segments_total": self.expired_segments_total,
        }

    def _load(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for folder in self._directory.iterdir():
                if folder.is_dir():
                    self._shelves[folder.name.replace("~", "/")] = _Shelf(folder)
        except OSError as error:
            raise DeadLetterError(
                f"dead letters in {self._directory} cannot be opened: {error.strerror or error}"
            ) from error

    def _append(
        self,
        pipeline: str,
        letters: Sequence[DeadLetter],
        now_ms: int,
        limits: DeadLetterLimits,
    ) -> None:
        blob = b"".join(encode_entry(letter) for letter in letters)
        try:
            shelf = self._shelves.get(pipeline)
            if shelf is None:
                shelf = self._shelves[pipeline] = _Shelf(self._directory / folder_name(pipeline))
            self.expired_segments_total += shelf.expire(now_ms - limits.keep_ms)
            if shelf.bytes_kept + len(blob) > limits.bytes_max:
                raise DeadLettersFullError(
                    f"dead letters of pipeline {pipeline} fill their {limits.bytes_max} bytes in "
                    f"{self._directory}; raise deadLetters.bytes, or redrive and purge them"
                )
            shelf.append(blob, len(letters))
        except OSError as error:
            raise DeadLetterError(
                f"dead letters of pipeline {pipeline} cannot be stored in {self._directory}: "
                f"{error.strerror or error}"
            ) from error
        self.stored_total += len(letters)


def folder_name(pipeline: str) -> str:
    """The folder of a pipeline: its name, with ``namespace/name`` flattened reversibly."""
    return pipeline.replace("/", "~")


def encode_entry(letter: DeadLetter) -> bytes:
    """One entry as it stands in a segment."""
    header = asdict(letter)
    record: bytes = header.pop("record")
    header["detail"] = letter.detail[:_DETAIL_CHARACTERS_MAX]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    body = len(text).to_bytes(4, "little") + text + record
    return _PREFIX.pack(len(body), zlib.crc32(body)) + body


def segments(directory: Path) -> list[Path]:
    """A pipeline's segments in the order in which they were written."""
    return sorted(path for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())


def read_dead_letters(directory: Path) -> Iterator[DeadLetter | Damage]:
    """All letters of one pipeline's folder, oldest first; damage is named and stepped over."""
    for path in segments(directory):
        with path.open("rb") as handle:
            yield from _read_segment(path, handle)


def _read_segment(path: Path, handle: IO[bytes]) -> Iterator[DeadLetter | Damage]:
    offset = 0
    while True:
        body = _next_body(handle)
        if body is None:
            return
        if isinstance(body, str):
            yield Damage(path, offset, body)
            return
        yield _decode(body)
        offset += _PREFIX.size + len(body)


def _next_body(handle: IO[bytes]) -> bytes | str | None:
    """The next entry's body, None at the end, or the description of the damage."""
    prefix = handle.read(_PREFIX.size)
    if not prefix:
        return None
    if len(prefix) < _PREFIX.size:
        return "torn entry at the end"
    length, crc = _PREFIX.unpack(prefix)
    if not _ENTRY.size - _PREFIX.size <= length <= _ENTRY_BYTES_MAX:
        return f"impossible entry length {length}"
    body = handle.read(length)
    if len(body) < length:
        return "torn entry at the end"
    if zlib.crc32(body) != crc:
        return "checksum does not match"
    return body


def _decode(body: bytes) -> DeadLetter:
    header_length = int.from_bytes(body[:4], "little")
    header: dict[str, Any] = json.loads(body[4 : 4 + header_length])
    known = {item.name for item in fields(DeadLetter)}
    values = {key: value for key, value in header.items() if key in known}
    return DeadLetter(**values, record=body[4 + header_length :])


def _count_entries(path: Path) -> tuple[int, int]:
    """Entries that are whole, and the length of the file up to the last of them."""
    count, good = 0, 0
    with path.open("rb") as handle:
        while isinstance(body := _next_body(handle), bytes):
            count += 1
            good += _PREFIX.size + len(body)
    return count, good


def _write_all(handle: IO[bytes], blob: bytes) -> None:
    """An unbuffered write may be short (a full disk); go on until it is whole or refused."""
    view = memoryview(blob)
    while view:
        written = handle.write(view)
        if not written:
            raise OSError("the disk took no bytes")
        view = view[written:]
