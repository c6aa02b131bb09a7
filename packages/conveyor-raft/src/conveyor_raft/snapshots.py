"""Snapshots at rest: what one is called, how its bytes are kept, and that they are what they were.

What for: a snapshot replaces the log before it, so losing or garbling it loses everything in it.

Rules kept: a snapshot is written under a temporary name, flushed, read again and compared, renamed,
and its directory flushed, before anybody refers to it; every load checks the SHA-256; what is
unreadable is reported and never a reason to delete something. Which snapshot is *the* snapshot of a
node is said by its log storage, in the same transaction that cuts the log; files that it does not
name are left-overs of a crash.

Theory: Raft §7; Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014), for the steps.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
from pathlib import Path
from typing import Protocol

from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.types import LogIndex, Term
from conveyor_raft.errors import Corrupt, Failed
from conveyor_raft.storage.hard_state import fsync_directory

_META = struct.Struct("<HQQQ")
_META_VERSION = 1
_FILE = struct.Struct("<8sIQ32s")
_MAGIC = b"CVSNAP01"


def encode_meta(meta: SnapshotMeta) -> bytes:
    """Return the meta as bytes, for files, tables and messages alike."""
    head = _META.pack(_META_VERSION, meta.index, meta.term, meta.timestamp_ms)
    return head + meta.membership.encode()


def decode_meta(data: bytes) -> SnapshotMeta:
    """Return the meta of `encode_meta`.

    Raises:
        Corrupt: the bytes are none.
    """
    if len(data) < _META.size:
        raise Corrupt("the description of a snapshot is cut short")
    version, index, term, timestamp_ms = _META.unpack_from(data)
    if version != _META_VERSION:
        raise Corrupt(
            f"the snapshot has version {version}, this release knows {_META_VERSION};"
            " run the release that wrote it"
        )
    membership = Membership.decode(data[_META.size :])
    return SnapshotMeta(LogIndex(index), Term(term), timestamp_ms, membership)


class SnapshotStore(Protocol):
    """Where the bytes of snapshots are kept."""

    async def put(self, meta: SnapshotMeta, data: bytes) -> None:
        """Keep the bytes, durably. Nothing refers to them yet."""
        ...

    async def get(self, meta: SnapshotMeta) -> bytes:
        """Return the bytes; raise `Corrupt` if they are not what was put."""
        ...

    async def prune(self, keep: SnapshotMeta) -> None:
        """Delete every older snapshot."""
        ...


class MemorySnapshots:
    """A `SnapshotStore` that forgets when the process ends."""

    def __init__(self) -> None:
        self._data: dict[tuple[int, int], bytes] = {}

    async def put(self, meta: SnapshotMeta, data: bytes) -> None:
        """Keep the bytes."""
        self._data[meta.last_id] = data

    async def get(self, meta: SnapshotMeta) -> bytes:
        """Return the bytes."""
        try:
            return self._data[meta.last_id]
        except KeyError:
            raise Corrupt(f"the snapshot at index {meta.index} is gone") from None

    async def prune(self, keep: SnapshotMeta) -> None:
        """Delete every older snapshot."""
        for last_id in [key for key in self._data if key < keep.last_id]:
            del self._data[last_id]


class SnapshotFiles:
    """A `SnapshotStore` in one directory, a file for each snapshot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def put(self, meta: SnapshotMeta, data: bytes) -> None:
        """Keep the bytes; durable and verified on return.

        Raises:
            Failed: the disk refused, or gave back something else.
        """
        await asyncio.to_thread(self._put, meta, data)

    async def get(self, meta: SnapshotMeta) -> bytes:
        """Return the bytes; raise `Corrupt` if they are not what was put."""
        return await asyncio.to_thread(self._get, meta)

    async def prune(self, keep: SnapshotMeta) -> None:
        """Delete every older snapshot, and what a crash left half written."""
        await asyncio.to_thread(self._prune, keep)

    def path(self, meta: SnapshotMeta) -> Path:
        """Return where a snapshot is kept; names sort by index."""
        return self.directory / f"snap-{meta.index:020d}-{meta.term:020d}"

    def _put(self, meta: SnapshotMeta, data: bytes) -> None:
        final = self.path(meta)
        temporary = final.with_suffix(".tmp")
        encoded = encode_meta(meta)
        digest = hashlib.sha256(encoded + data).digest()
        try:
            with temporary.open("wb") as file:
                file.write(_FILE.pack(_MAGIC, len(encoded), len(data), digest))
                file.write(encoded)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _read(temporary, meta)
            temporary.rename(final)
            fsync_directory(self.directory)
        except (OSError, Corrupt) as error:
            raise Failed(f"cannot keep the snapshot {final}: {error}") from error

    def _get(self, meta: SnapshotMeta) -> bytes:
        return _read(self.path(meta), meta)

    def _prune(self, keep: SnapshotMeta) -> None:
        newest = self.path(keep).name
        for path in self.directory.glob("snap-*"):
            if path.name < newest:
                path.unlink(missing_ok=True)


def _read(path: Path, meta: SnapshotMeta) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Corrupt(f"the snapshot {path} is missing") from None
    encoded = encode_meta(meta)
    start = _FILE.size + len(encoded)
    head = content[: _FILE.size]
    if len(head) == _FILE.size:
        magic, meta_length, length, digest = _FILE.unpack(head)
        whole = memoryview(content)[_FILE.size :]
        if (
            magic == _MAGIC
            and meta_length == len(encoded)
            and len(content) == start + length
            and hashlib.sha256(whole).digest() == digest
        ):
            return content[start:]
    raise Corrupt(f"the snapshot {path} is damaged: its digest differs")
