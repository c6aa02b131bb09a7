"""What is durable, what is on its way to the disk, and what has to be written next.

What for: the one place that knows the order between the disk and everything else. Changes gather in
a pending write; `take_write` numbers it and hands it out; `written` reports a number back.

Rules kept:

* Completions speak of write ids, never of indexes (the ABA rule): a late completion of a write
  whose entries were cut off meanwhile must not mark the entries that replaced them as durable. Each
  write on its way remembers how far its entries still stand; a truncation lowers that.
* A promise made to another node waits for the write that holds everything pending when the promise
  was made (`barrier`); an answer that only reveals the term waits for the term (`term_barrier`).
"""

from __future__ import annotations

from collections import deque

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.output import Write
from conveyor_raft.core.types import HardState, LogIndex
from conveyor_raft.errors import InvariantViolation


class WriteLedger:
    """The account of one disk. `durable_index`: up to here the log as it is now is durable."""

    __slots__ = (
        "_completed",
        "_frames",
        "_handed_index",
        "_hard_state",
        "_in_flight",
        "_next_id",
        "_snapshot",
        "_term_write_id",
        "_truncate_from",
        "durable_index",
    )

    def __init__(self, durable_index: LogIndex) -> None:
        """Begin with a disk that holds the log up to the index and has nothing to do."""
        self.durable_index = durable_index
        self._handed_index = durable_index  # the highest index that a write may have put there
        self._in_flight: deque[tuple[int, LogIndex]] = deque()  # write id, standing last index
        self._next_id = 1
        self._completed = 0
        self._term_write_id = 0
        self._hard_state: HardState | None = None
        self._snapshot: SnapshotMeta | None = None
        self._truncate_from: LogIndex | None = None
        self._frames: list[Frame] = []

    @property
    def _dirty(self) -> bool:
        return (
            bool(self._frames)
            or self._hard_state is not None
            or self._truncate_from is not None
            or self._snapshot is not None
        )

    def barrier(self) -> int:
        """Return the write after which everything known now is durable; 0: it already is."""
        if self._dirty:
            return self._next_id
        last = self._next_id - 1
        return last if last > self._completed else 0

    def term_barrier(self) -> int:
        """Return the write after which the current term and vote are durable; 0: they are."""
        return self._term_write_id if self._term_write_id > self._completed else 0

    def is_durable(self, write_id: int) -> bool:
        """Whether the write has been reported durable."""
        return write_id <= self._completed

    def set_hard_state(self, hard_state: HardState) -> None:
        """Have the term and the vote written."""
        self._hard_state = hard_state
        self._term_write_id = self._next_id

    def append(self, frame: Frame) -> None:
        """Have a frame written behind all others."""
        self._frames.append(frame)

    def truncate_from(self, index: LogIndex) -> None:
        """Have the entries from the index on deleted, wherever they are by now."""
        frames = self._frames
        while frames and frames[-1].first_index >= index:
            frames.pop()
        if frames and frames[-1].last_index >= index:
            frames[-1] = frames[-1].slice(frames[-1].first_index, LogIndex(index - 1))
        if index <= self._handed_index:
            previous = self._truncate_from
            self._truncate_from = index if previous is None else min(previous, index)
        standing = LogIndex(index - 1)
        self.durable_index = min(self.durable_index, standing)
        self._in_flight = deque((write, min(last, standing)) for write, last in self._in_flight)

    def install(self, snapshot: SnapshotMeta) -> None:
        """Have a received snapshot take the place of the whole log."""
        self._snapshot = snapshot
        self.truncate_from(LogIndex(1))

    def take_write(self, last_index: LogIndex) -> Write | None:
        """Number and hand out what is pending; `last_index` is the end of the log."""
        if not self._dirty:
            return None
        write = Write(
            self._next_id,
            self._hard_state,
            self._snapshot,
            self._truncate_from,
            tuple(self._frames),
        )
        self._in_flight.append((self._next_id, last_index))
        self._handed_index = last_index
        self._next_id += 1
        self._hard_state = self._snapshot = self._truncate_from = None
        self._frames = []
        return write

    def written(self, write_id: int) -> None:
        """Everything up to the write is durable; an older or repeated report changes nothing."""
        if write_id >= self._next_id:
            raise InvariantViolation(
                f"write {write_id} is reported durable, the newest is {self._next_id - 1}"
            )
        while self._in_flight and self._in_flight[0][0] <= write_id:
            self._completed, standing = self._in_flight.popleft()
            self.durable_index = max(self.durable_index, standing)
