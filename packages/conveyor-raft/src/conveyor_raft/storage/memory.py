"""A log that lives as long as its object: for tests, and for clusters that may forget.

Rules kept: the same as on disk, save durability. The object may be opened again after `close`,
which is how a test restarts a node.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.output import Write
from conveyor_raft.core.types import ClusterId, HardState, Incarnation, LogIndex, Term
from conveyor_raft.errors import Locked, WrongIdentity
from conveyor_raft.snapshots import MemorySnapshots
from conveyor_raft.storage.base import Stored


class MemoryLogStorage:
    """A `LogStorage` in memory."""

    def __init__(self) -> None:
        self.snapshots = MemorySnapshots()
        self._open = False
        self._node_id: int | None = None
        self._incarnation = Incarnation(secrets.token_bytes(16))
        self._cluster_id: ClusterId | None = None
        self._hard_state = HardState(Term(0), None)
        self._snapshot: SnapshotMeta | None = None
        self._frames: list[Frame] = []

    async def open(self, node_id: int) -> Stored:
        """Return what is remembered."""
        if self._open:
            raise Locked("this storage is already open; close the node that uses it first")
        if self._node_id not in (None, node_id):
            raise WrongIdentity(f"this storage belongs to node {self._node_id}, not to {node_id}")
        self._open, self._node_id = True, node_id
        loaded = LoadedState(self._hard_state, self._snapshot, tuple(self._frames))
        return Stored(self._incarnation, self._cluster_id, loaded)

    async def form(self, cluster_id: ClusterId, first: LoadedState) -> None:
        """Keep the cluster id and the first state."""
        self._cluster_id = cluster_id
        self._hard_state, self._frames = first.hard_state, list(first.frames)

    async def write(self, write: Write) -> None:
        """Perform one write."""
        if write.hard_state is not None:
            self._hard_state = write.hard_state
        snapshot = write.snapshot
        if snapshot is not None and (
            self._snapshot is None or snapshot.index > self._snapshot.index
        ):
            self._snapshot = snapshot
            if not covers(self._frames, snapshot):
                self._frames = []
        if write.truncate_from is not None:
            self._frames = keep_before(self._frames, write.truncate_from)
        self._frames.extend(write.frames)

    async def compact(self, through: LogIndex) -> None:
        """Forget the frames that end at or below the index."""
        self._frames = [frame for frame in self._frames if frame.last_index > through]

    async def maintain(self, *, idle: bool) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Allow another `open`."""
        self._open = False


def covers(frames: Sequence[Frame], snapshot: SnapshotMeta) -> bool:
    """Tell whether the log contains the snapshot's last entry, so that what follows it is good."""
    for frame in frames:
        if frame.first_index <= snapshot.index <= frame.last_index:
            return frame.term == snapshot.term
    return False


def keep_before(frames: Sequence[Frame], index: LogIndex) -> list[Frame]:
    """Return the frames up to, and without, the index; the one that holds it is cut."""
    kept = [frame for frame in frames if frame.first_index < index]
    if kept and kept[-1].last_index >= index:
        kept[-1] = kept[-1].slice(kept[-1].first_index, LogIndex(index - 1))
    return kept
