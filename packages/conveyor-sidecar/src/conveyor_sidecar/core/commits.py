"""Committing positions: one request at a time for all partitions, at most every so often.

A commit that was not decided is sent again with what has ended meanwhile. Positions only grow, so
it does not matter whether the lost one was taken.
"""

from __future__ import annotations

from collections.abc import Callable

from conveyor_sidecar.core.context import Context
from conveyor_sidecar.core.effects import CommitPositions, PositionCommit
from conveyor_sidecar.core.events import PositionsCommitted
from conveyor_sidecar.core.positions import Partition
from conveyor_sidecar.core.timers import Timer

POSITIONS_MAX = 1024
"""Positions in one request."""


class Commits:
    """What is to be committed and what was asked for.

    Args:
        context: The engine's.
        on_committed: Called for every position that was taken.
        on_refused: Called for every position that was refused, with the newer term.
    """

    def __init__(
        self,
        context: Context,
        on_committed: Callable[[Partition, PositionCommit], None],
        on_refused: Callable[[Partition, int], None],
    ) -> None:
        self._context = context
        self._on_committed = on_committed
        self._on_refused = on_refused
        self._due: dict[Partition, None] = {}
        self._request = 0
        self._asked: dict[Partition, PositionCommit] = {}
        self._next_ms = 0
        self._timer: Timer | None = None

    @property
    def empty(self) -> bool:
        """Nothing is to be committed and nothing is under way."""
        return not self._asked and not any(partition.due for partition in self._due)

    @property
    def uncommitted(self) -> int:
        """Ended records whose position is not known to be committed."""
        return sum([p.uncommitted for p in {**self._due, **self._asked} if not p.dropped])

    def add(self, partition: Partition) -> None:
        """The partition's low mark has moved, or its end has come."""
        self._due[partition] = None
        self._context.touch(self)

    def settle(self) -> None:
        """Ask for a commit, now or when it is time."""
        if self._asked or not self._due or self._timer is not None:
            return
        if self._next_ms > self._context.now_ms and not self._context.draining:
            self._later(self._next_ms)
            return
        chosen = [partition for partition in self._due if partition.due][:POSITIONS_MAX]
        if len(chosen) < POSITIONS_MAX:
            self._due.clear()
        for partition in chosen:
            self._due.pop(partition, None)
        if not chosen:
            return
        self._asked = {partition: partition.commit() for partition in chosen}
        self._request = next(self._context.numbers)
        self._next_ms = self._context.now_ms + self._context.options.commit_interval_ms
        self._context.emit(CommitPositions(self._request, tuple(self._asked.values())))

    def on_committed(self, event: PositionsCommitted) -> None:
        """The routers have decided."""
        if event.request_id != self._request:
            return
        refused = {refusal.partition: refusal.newer_term for refusal in event.refused}
        asked, self._asked = self._asked, {}
        for partition, commit in asked.items():
            if partition.dropped:
                continue
            if partition.key in refused:
                self._on_refused(partition, refused[partition.key])
                continue
            partition.committed(commit)
            self._on_committed(partition, commit)
            if partition.due:
                self._due[partition] = None
        self._context.touch(self)

    def on_failed(self, request_id: int) -> None:
        """No decision is known."""
        if request_id != self._request:
            return
        self._due.update(dict.fromkeys(self._asked))
        self._asked = {}
        self._next_ms = self._context.now_ms + self._context.options.commit_retry_ms
        if self._timer is not None:
            self._timer.cancel()
        self._later(self._next_ms)

    def _later(self, due_ms: int) -> None:
        self._timer = self._context.timers.at(due_ms, self._time)

    def _time(self) -> None:
        self._timer = None
        self._context.touch(self)
