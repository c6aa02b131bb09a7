"""A disk that forgets what was not flushed.

Writes are handed over in order and become durable one after the other, each whole (as a SQLite
transaction does); a crash keeps a prefix of those on their way. Beside the frames, which a restart
needs, the disk keeps the bare term of every entry: the invariants compare the core's claims with
this account, never with the core's own.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.output import Write
from conveyor_raft.core.types import HardState, LogIndex, Term


class StoredSnapshot(NamedTuple):
    """A snapshot with the state that it holds."""

    meta: SnapshotMeta
    state: Any


class SimulatedDisk:
    """One node's disk. `completed` is the newest durable write of the running process."""

    __slots__ = (
        "_first",
        "_terms",
        "completed",
        "frames",
        "hard_state",
        "pending",
        "snapshot",
        "suspect",
    )

    def __init__(self, loaded: LoadedState) -> None:
        """Begin with what a new member writes before it starts."""
        self.hard_state = loaded.hard_state
        self.snapshot: StoredSnapshot | None = None
        self.frames = list(loaded.frames)
        self.pending: deque[tuple[Write, Any]] = deque()  # with the state of its snapshot, if any
        self.completed = 0
        self.suspect = False
        self._first = 1
        self._terms: list[Term] = [
            frame.term for frame in loaded.frames for _ in range(frame.count)
        ]

    @property
    def last_index(self) -> int:
        """The last durable entry."""
        return self._first + len(self._terms) - 1

    def has(self, index: int, term: Term) -> bool:
        """Whether the entry is durable here, by itself or in the snapshot."""
        if self._first <= index <= self.last_index:
            return self._terms[index - self._first] == term
        return self.snapshot is not None and index <= self.snapshot.meta.index

    def submit(self, write: Write, state: Any) -> None:
        """Take a write; `state` belongs to its snapshot."""
        self.pending.append((write, state))

    def complete(self) -> int:
        """Let the oldest write become durable and return its id."""
        write, state = self.pending.popleft()
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.truncate_from is not None:
            self._truncate_from(write.truncate_from)
        if write.snapshot is not None:
            self.snapshot = StoredSnapshot(write.snapshot, state)
            if not self._terms:
                self._first = write.snapshot.index + 1
        for frame in write.frames:
            if frame.first_index != self.last_index + 1:
                raise AssertionError(f"{frame!r} leaves a hole behind {self.last_index} on disk")
            self.frames.append(frame)
            self._terms.extend([frame.term] * frame.count)
        self.completed = write.write_id
        return write.write_id

    def crash(self, kept: int) -> None:
        """Lose power: `kept` of the writes on their way still reached the disk."""
        for _ in range(min(kept, len(self.pending))):
            self.complete()
        self.pending.clear()
        self.completed = 0

    def lose_tail(self, index: int, *, vote: bool) -> None:
        """Forget durable entries from the index on, and the vote, as a bit flip in a WAL may do."""
        self._truncate_from(LogIndex(index))
        if vote:
            self.hard_state = HardState(self.hard_state.term, None)
        self.suspect = True

    def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Store a snapshot of the node's own state."""
        if self.snapshot is None or snapshot.meta.index > self.snapshot.meta.index:
            self.snapshot = snapshot

    def compact(self, through: LogIndex) -> None:
        """Free what ends at or below the index, frame by frame."""
        drop = 0
        while drop < len(self.frames) and self.frames[drop].last_index <= through:
            drop += 1
        if drop:
            freed = self.frames[drop - 1].last_index + 1 - self._first
            del self.frames[:drop], self._terms[:freed]
            self._first += freed

    def load(self) -> LoadedState:
        """Return what a restarted process finds."""
        meta = None if self.snapshot is None else self.snapshot.meta
        return LoadedState(HardState(*self.hard_state), meta, tuple(self.frames), self.suspect)

    def _truncate_from(self, index: LogIndex) -> None:
        frames = self.frames
        while frames and frames[-1].first_index >= index:
            frames.pop()
        if frames and frames[-1].last_index >= index:
            kept: Frame = frames[-1].slice(frames[-1].first_index, LogIndex(index - 1))
            frames[-1] = kept
        del self._terms[max(0, index - self._first) :]
