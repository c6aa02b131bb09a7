"""Who waits for which entry: the futures of proposals, from the leader's log to their results.

Rules kept: a future gets the result of its very entry, known by index and term, or an error that
says what is known; no future is left behind. A batch of proposals is one object, and nothing is
allocated for an entry but its future.

Theory: the future of 9/2 must never get the result of 9/3 (Raft §8; LogCabin #7).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.types import Outcome, Proposed, Unknown
from conveyor_raft.errors import UnknownOutcome

ResultFuture = asyncio.Future[Any]


class _Batch(NamedTuple):
    proposed: Proposed
    futures: Sequence[ResultFuture]


class Waiters:
    """The open proposals of this node, in the order of the log."""

    def __init__(self) -> None:
        self._by_token: dict[int, _Batch] = {}
        self._in_order: deque[_Batch] = deque()

    def __len__(self) -> int:
        return sum(len(batch.futures) for batch in self._by_token.values())

    def add(self, token: int, proposed: Proposed, futures: Sequence[ResultFuture]) -> None:
        """Remember a batch that the core has appended; one future for each entry."""
        batch = self._by_token[token] = _Batch(proposed, futures)
        self._in_order.append(batch)

    def futures_for(self, frame: Frame) -> Sequence[ResultFuture] | None:
        """Return the futures of the frame's entries, or None if nobody here waits for them."""
        in_order = self._in_order
        while in_order and in_order[0].proposed.last_index < frame.first_index:
            in_order.popleft()
        if not in_order:
            return None
        proposed, futures = in_order[0]
        if proposed.term != frame.term or proposed.first_index > frame.first_index:
            return None
        start = frame.first_index - proposed.first_index
        return futures[start : start + frame.count]

    def finish(self, token: int, outcome: Outcome) -> None:
        """End a batch; what has no result yet never will."""
        batch = self._by_token.pop(token)
        if isinstance(outcome, Unknown):
            error = UnknownOutcome(outcome.reason, outcome.first_index, outcome.term)
            fail(batch.futures, error)

    def fail_all(self, reason: str) -> None:
        """End every batch without a result."""
        for batch in self._by_token.values():
            proposed = batch.proposed
            fail(batch.futures, UnknownOutcome(reason, proposed.first_index, proposed.term))
        self._by_token.clear()
        self._in_order.clear()


class Deadlines:
    """Ends futures that were not answered in time, all after the same time, with one timer.

    A timer of its own costs more than the rest of a proposal. Futures are answered nearly in order,
    so the queue holds about as many as are open.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._queue: deque[tuple[float, ResultFuture]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: ResultFuture) -> None:
        """Fail the future with `UnknownOutcome` if it is not done in time."""
        queue = self._queue
        while queue and queue[0][1].done():
            queue.popleft()
        loop = future.get_loop()
        queue.append((loop.time() + self._seconds, future))
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._expire)

    def cancel(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue.clear()

    def _expire(self) -> None:
        queue = self._queue
        self._timer = None
        while queue:
            deadline, future = queue[0]
            loop = future.get_loop()
            if not future.done():
                if deadline > loop.time():
                    self._timer = loop.call_at(deadline, self._expire)
                    return
                future.set_exception(UnknownOutcome(f"no answer within {self._seconds:g} s"))
            queue.popleft()


def fail(futures: Sequence[ResultFuture], error: Exception) -> None:
    """Give the error to every future that still waits."""
    for future in futures:
        if not future.done():
            future.set_exception(error)
