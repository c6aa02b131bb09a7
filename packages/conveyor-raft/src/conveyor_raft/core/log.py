"""The log in memory: frames since the last compaction, and the terms of their entries.

What for: replication, apply and elections read here and never wait for a disk. As in etcd's
`MemoryStorage`, the whole retained log is in memory; snapshots and the bounds of `CoreOptions` keep
it small.

Rules kept: entries are consecutive; terms never decrease; nothing is looked at entry by entry. The
term of an index is found in `runs`: one (first index, term) pair for each stretch of equal terms,
of which there are as many as there were leaders, not as there are entries.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.types import ZERO_ID, LogId, LogIndex, Term
from conveyor_raft.errors import InvariantViolation


class RaftLog:
    """Entries `first_index` to `last_index`; `base` is the id of the entry before the first.

    Compaction and loading keep whole frames, so `base` may lie below the snapshot's index.
    """

    __slots__ = ("_ends", "_firsts", "_frames", "_run_firsts", "_run_terms", "base", "last_id")

    def __init__(self, base: LogId = ZERO_ID) -> None:
        """Begin with an empty log behind the entry `base`."""
        self.base = base
        self.last_id = base
        self._frames: list[Frame] = []
        self._firsts: list[LogIndex] = []
        self._ends: list[int] = []  # cumulative bytes at the end of each frame
        self._run_firsts: list[LogIndex] = []
        self._run_terms: list[Term] = []

    @property
    def first_index(self) -> LogIndex:
        """The first retained entry, whether it exists yet or not."""
        return LogIndex(self.base.index + 1)

    @property
    def last_index(self) -> LogIndex:
        """The last entry."""
        return self.last_id.index

    @property
    def last_timestamp_ms(self) -> int | None:
        """The timestamp of the last entry, if any is retained."""
        return self._frames[-1].timestamp_ms if self._frames else None

    def term_at(self, index: LogIndex) -> Term | None:
        """Return the term of a retained entry or of `base`, else None."""
        if index == self.last_id.index:
            return self.last_id.term
        if self.base.index < index < self.last_id.index:
            return self._run_terms[bisect_right(self._run_firsts, index) - 1]
        return self.base.term if index == self.base.index else None

    def contains(self, entry: LogId) -> bool:
        """Whether the log holds this entry, or begins right behind it."""
        return self.term_at(entry.index) == entry.term

    def first_of_term_at(self, index: LogIndex) -> LogIndex:
        """Return the first retained index of the stretch of equal terms around a retained index."""
        run = bisect_right(self._run_firsts, index) - 1
        return max(self._run_firsts[run], self.first_index)

    def last_of_term(self, term: Term) -> LogIndex | None:
        """Return the last retained index whose entry has the term."""
        run = bisect_left(self._run_terms, term)
        if run == len(self._run_terms) or self._run_terms[run] != term:
            return None
        return self._run_end(run)

    def first_missing(self, frame: Frame) -> LogIndex:
        """Return the first index of the frame that the log lacks, or holds in another term.

        That is one behind the frame if the log holds all of it.
        """
        first = frame.first_index
        if self.term_at(first) != frame.term or first == self.base.index:
            return first
        run = bisect_right(self._run_firsts, first) - 1
        return LogIndex(min(self._run_end(run), frame.last_index) + 1)

    def append(self, frame: Frame) -> None:
        """Add a frame that continues the log."""
        if frame.first_index != self.last_id.index + 1 or frame.term < self.last_id.term:
            raise InvariantViolation(f"{frame!r} does not continue a log that ends in {self}")
        if not self._run_terms or self._run_terms[-1] != frame.term:
            self._run_firsts.append(frame.first_index)
            self._run_terms.append(frame.term)
        self._ends.append((self._ends[-1] if self._ends else 0) + frame.size)
        self._frames.append(frame)
        self._firsts.append(frame.first_index)
        self.last_id = frame.last_id

    def truncate_from(self, index: LogIndex) -> None:
        """Delete the entry at the index and all after it."""
        if not self.base.index < index <= self.last_id.index:
            raise InvariantViolation(f"cannot truncate from {index} a log that is {self}")
        keep = bisect_left(self._firsts, index)
        cut = (
            self._frames[keep - 1] if keep and self._frames[keep - 1].last_index >= index else None
        )
        if cut is not None:
            keep -= 1
        del self._frames[keep:], self._firsts[keep:], self._ends[keep:]
        runs = bisect_left(self._run_firsts, index)
        del self._run_firsts[runs:], self._run_terms[runs:]
        self.last_id = self._frames[-1].last_id if self._frames else self.base
        if cut is not None:
            self.append(cut.slice(cut.first_index, LogIndex(index - 1)))

    def compact(self, through: LogIndex) -> None:
        """Forget the frames that end at or below the index; `base` moves to the last of them."""
        drop = bisect_right(self._firsts, through)
        if drop and self._frames[drop - 1].last_index > through:
            drop -= 1
        if not drop:
            return
        self.base = self._frames[drop - 1].last_id
        del self._frames[:drop], self._firsts[:drop], self._ends[:drop]
        runs = bisect_right(self._run_firsts, self.base.index + 1) - 1
        if not self._frames:
            runs = len(self._run_firsts)
        del self._run_firsts[:runs], self._run_terms[:runs]

    def bytes_after(self, index: LogIndex) -> int:
        """Return the size of the frames behind the one that holds the index."""
        if not self._ends:
            return 0
        frame = bisect_right(self._firsts, index) - 1
        counted = self._ends[frame] if frame >= 0 else self._ends[0] - self._frames[0].size
        return self._ends[-1] - counted

    def frames(self, first: LogIndex, last: LogIndex, max_bytes: int | None = None) -> list[Frame]:
        """Return the retained entries of the range; the frames at its ends are cut to fit.

        With `max_bytes`, stop before the frame that would exceed it, but never before the first.
        """
        if first > last:
            return []
        if not self.base.index < first <= last <= self.last_id.index:
            raise InvariantViolation(f"no entries {first}..{last} in a log that is {self}")
        at = bisect_right(self._firsts, first) - 1
        result: list[Frame] = []
        size = 0
        while first <= last:
            frame = self._frames[at]
            if first != frame.first_index or last < frame.last_index:
                frame = frame.slice(first, min(last, frame.last_index))
            size += frame.size
            if max_bytes is not None and size > max_bytes and result:
                break
            result.append(frame)
            first = LogIndex(frame.last_index + 1)
            at += 1
        return result

    def __str__(self) -> str:
        return f"{self.first_index}..{self.last_index} (term {self.last_id.term})"

    def _run_end(self, run: int) -> LogIndex:
        if run + 1 < len(self._run_firsts):
            return LogIndex(self._run_firsts[run + 1] - 1)
        return self.last_id.index
