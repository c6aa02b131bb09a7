"""The vote, and how far the log reached, in two small files outside SQLite.

What for: SQLite ends the recovery of its write-ahead log at the first damaged frame and silently
drops what follows. A voter that lost acknowledged entries that way could vote a committed entry out
of existence. So the vote never goes through SQLite, and beside it stands the *seal*: an index that
surely was durable once. A log that ends below the seal has lost something.

Rules kept:

* Two files, `hard.0` and `hard.1`, written in turn and flushed each time; a torn write ruins one of
  them, and the other holds the state before it, which had not been acted upon yet.
* Each is 4 KiB of real bytes from the beginning, so that a vote needs no new block on a full disk.
* Each ends in a SHA-256 of itself. Both unreadable means that the vote is lost: `Corrupt`.
* The vote is written when it changes, before anybody hears of it; the seal follows the log lazily,
  after the flush it speaks of, and is lowered before the log is cut below it.

Theory: Raft §5.2 (a vote must survive a restart); Alagappan et al., "Protocol-Aware Recovery for
Consensus-Based Storage" (FAST 2018), for telling a crash from a corruption.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from conveyor_raft.errors import Corrupt, Failed

_MAGIC = b"CVHARD01"
_LAYOUT = struct.Struct("<8sQQ16sQqQ")
_SIZE = 4096
_NOBODY = -1
_flush = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True, slots=True)
class HardRecord:
    """What one slot says."""

    node_id: int
    incarnation: bytes
    term: int = 0
    voted_for: int | None = None
    seal_index: int = 0


def _pack(generation: int, record: HardRecord) -> bytes:
    head = _LAYOUT.pack(
        _MAGIC,
        generation,
        record.node_id,
        record.incarnation,
        record.term,
        _NOBODY if record.voted_for is None else record.voted_for,
        record.seal_index,
    )
    return (head + hashlib.sha256(head).digest()).ljust(_SIZE, b"\xa5")


def _unpack(data: bytes) -> tuple[int, HardRecord] | None:
    head, digest = data[: _LAYOUT.size], data[_LAYOUT.size : _LAYOUT.size + 32]
    if len(head) < _LAYOUT.size or hashlib.sha256(head).digest() != digest:
        return None
    magic, generation, node_id, incarnation, term, vote, seal_index = _LAYOUT.unpack(head)
    if magic != _MAGIC:
        return None
    voted_for = None if vote == _NOBODY else vote
    return generation, HardRecord(node_id, incarnation, term, voted_for, seal_index)


class HardStateFiles:
    """The pair of slots in one directory. Blocking: call it from a thread."""

    def __init__(self, directory: Path) -> None:
        self._paths = (directory / "hard.0", directory / "hard.1")
        self._directory = directory
        self._generation = 0
        self._handles: list[int] = []
        # A store whose caller gave up goes on in its thread; nobody may close the file under it.
        self._busy = threading.Lock()

    def load(self) -> HardRecord | None:
        """Return the newest readable record, or None when there are no files yet.

        Raises:
            Corrupt: there are files, and neither can be read.
        """
        present = [path for path in self._paths if path.exists()]
        if not present:
            return None
        slots = [slot for path in present if (slot := _unpack(path.read_bytes())) is not None]
        if not slots:
            raise Corrupt(
                f"neither {self._paths[0]} nor {self._paths[1].name} can be read, so this node no"
                " longer knows whom it voted for; move the data directory away, remove the node"
                " from the cluster and add it under a new id"
            )
        self._generation, record = max(slots, key=lambda slot: slot[0])
        self._open()
        return record

    def create(self, record: HardRecord) -> None:
        """Make both files, the record in each; durable on return."""
        for number, path in enumerate(self._paths):
            path.write_bytes(_pack(number, record))
        self._generation = 1
        self._open()
        for handle in self._handles:
            os.fsync(handle)
        fsync_directory(self._directory)

    def store(self, record: HardRecord) -> None:
        """Replace the older slot; durable on return.

        Raises:
            Failed: the disk refused; what the slot holds now is unknown, and the node must stop.
        """
        with self._busy:
            if not self._handles:
                raise Failed(f"the vote files of {self._directory} are closed")
            self._generation += 1
            handle = self._handles[self._generation % 2]
            try:
                os.pwrite(handle, _pack(self._generation, record), 0)
                _flush(handle)
            except OSError as error:
                raise Failed(f"cannot write the vote to {self._directory}: {error}") from error

    def close(self) -> None:
        """Close the files, after a store that is under way."""
        with self._busy:
            while self._handles:
                os.close(self._handles.pop())

    def _open(self) -> None:
        for path in self._paths:
            # A missing twin is made new: the crash came between the two files.
            self._handles.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
