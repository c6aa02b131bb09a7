"""A snapshot on its way, piece by piece, beside the log.

What for: a snapshot may take longer than any connection lasts. What has arrived stays, so the next
stream goes on where the last one broke, even if another leader sends it: equal snapshots have equal
names, because the name holds the digest.

Rules kept: at most one snapshot is arriving at a time, the one whose beginning came last: a newer
one has no precedence, because who sent it may be gone, and another leader may have no newer one;
pieces may be lost, come twice, overlap or come late, and nothing but a whole snapshot with
the right digest is ever handed on; a damaged one is forgotten altogether, because nobody knows
which piece of it was wrong.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from conveyor_raft.core.types import LogId
from conveyor_raft.errors import Corrupt


class SnapshotName(NamedTuple):
    """One snapshot's bytes, whoever sends them."""

    last_id: LogId
    size: int
    digest: bytes


def name_of(last_id: LogId, data: bytes) -> SnapshotName:
    """Name a snapshot that is there."""
    return SnapshotName(last_id, len(data), hashlib.sha256(data).digest())


class Incoming:
    """What has arrived of the snapshot that somebody began to send last."""

    __slots__ = ("_data", "_name")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._name: SnapshotName | None = None
        self._data = bytearray()

    def offset(self, name: SnapshotName) -> int:
        """Return how many bytes of this snapshot are here: where to go on."""
        return len(self._data) if name == self._name else 0

    def add(self, name: SnapshotName, offset: int, data: bytes) -> int:
        """Take a piece that begins at the offset; return how many bytes are here now.

        A piece behind a hole is dropped, and so is one from the middle of another snapshot.
        """
        if name != self._name:
            if offset:
                return 0
            self._name, self._data = name, bytearray()
        have = len(self._data)
        if offset <= have < offset + len(data):
            self._data += data[have - offset :]
            if len(self._data) > name.size:
                self._forget()
                return 0
        return len(self._data)

    def take(self, name: SnapshotName) -> bytes:
        """Hand over the whole snapshot, and forget it here.

        Raises:
            Corrupt: it is not whole yet, which changes nothing, or its digest differs.
        """
        have = self.offset(name)
        if have < name.size:
            raise Corrupt(f"{have} of the snapshot's {name.size} bytes have arrived")
        data = bytes(self._data)
        self._forget()
        if hashlib.sha256(data).digest() != name.digest:
            raise Corrupt("the snapshot arrived damaged")
        return data

    def _forget(self) -> None:
        self._name, self._data = None, bytearray()
