"""What a leader knows about one follower, and what it may send next.

The three ways to replicate, each an object with the fields that it needs (after etcd's `tracker`):

* `Probe`: where the logs agree is not known; one message at a time, then wait.
* `Replicate`: the logs agree up to `match`; entries stream ahead, within a window of messages and
  bytes.
* `Snapshot`: the follower needs entries that are gone; a snapshot is on its way.

Rules kept: `match` only grows, and only by what a follower has proved and stored; `match < next`
always; a rejection that speaks of a position already settled is stale and changes nothing.
"""

from __future__ import annotations

from collections import deque

from conveyor_raft.core.messages import AppendConflict
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.types import LogIndex
from conveyor_raft.errors import InvariantViolation


class Probe:
    """Searching; `waiting` once a message is out, until an answer or a heartbeat's reply."""

    __slots__ = ("waiting",)

    def __init__(self, *, waiting: bool = False) -> None:
        """Begin to search."""
        self.waiting = waiting


class Replicate:
    """Streaming; the window holds (last index, bytes) of each unanswered message."""

    __slots__ = ("inflight_bytes", "window")

    def __init__(self) -> None:
        """Begin to stream with an empty window."""
        self.window: deque[tuple[LogIndex, int]] = deque()
        self.inflight_bytes = 0

    def add(self, last_index: LogIndex, size: int) -> None:
        """A message with entries up to `last_index` left."""
        self.window.append((last_index, size))
        self.inflight_bytes += size

    def free(self, match: LogIndex) -> None:
        """The follower has everything up to `match`."""
        window = self.window
        while window and window[0][0] <= match:
            self.inflight_bytes -= window.popleft()[1]

    def full(self, options: CoreOptions) -> bool:
        """Whether the leader must wait for an answer before it sends more."""
        return (
            len(self.window) >= options.max_inflight_messages
            or self.inflight_bytes >= options.max_inflight_bytes
        )


class Snapshot:
    """Waiting for a follower to receive the log up to `index` as a snapshot, since a time."""

    __slots__ = ("index", "since_ms")

    def __init__(self, index: LogIndex, since_ms: int = 0) -> None:
        """Begin to wait."""
        self.index = index
        self.since_ms = since_ms


class Progress:
    """One follower in one stream of replication, named by `session`."""

    __slots__ = ("answers", "match", "next", "session", "state")

    def __init__(self, session: int, next_index: LogIndex) -> None:
        """Know nothing yet, and try at `next_index`."""
        self.session = session
        self.answers = 0
        self.match = LogIndex(0)
        self.next = next_index
        self.state: Probe | Replicate | Snapshot = Probe()

    def acknowledge(self, match: LogIndex) -> bool:
        """The follower has proved and stored everything up to `match`; tell whether that is news.

        The first proof ends the search; a proof that reaches the snapshot ends the wait for it.
        """
        news = match > self.match
        if news:
            self.match = match
            self.next = LogIndex(max(self.next, match + 1))
        state = self.state
        if isinstance(state, Replicate):
            state.free(match)
        elif isinstance(state, Probe) or self.match >= state.index:
            self.state = Replicate()
            self.next = LogIndex(self.match + 1)
        return news

    def backtrack(self, conflict: AppendConflict, last_of_term: LogIndex | None) -> bool:
        """The follower lacks what a message built on; go back, and tell whether that was news.

        `last_of_term` is the leader's last entry in the conflict's term: everything up to there may
        still be equal. Without one, nothing of that term is.
        """
        if conflict.prev_index <= self.match or isinstance(self.state, Snapshot):
            return False
        expected = self.next - 1
        if conflict.prev_index > expected or (
            isinstance(self.state, Probe) and conflict.prev_index != expected
        ):
            return False
        candidate = conflict.conflict_index
        if last_of_term is not None:
            candidate = max(candidate, LogIndex(last_of_term + 1))
        self.next = LogIndex(max(self.match + 1, min(candidate, conflict.prev_index)))
        self.state = Probe()
        return True

    def search(self, next_index: LogIndex, *, waiting: bool) -> None:
        """Go back to searching, at `next_index`."""
        self.next = LogIndex(max(self.match + 1, next_index))
        self.state = Probe(waiting=waiting)

    def check(self, last_index: LogIndex) -> None:
        """Stop the node if this account contradicts itself or the leader's log."""
        if not self.match < self.next <= last_index + 1:
            raise InvariantViolation(
                f"progress has match {self.match}, next {self.next} in a log up to {last_index}"
            )
