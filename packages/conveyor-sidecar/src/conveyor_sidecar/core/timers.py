"""What is due when: a heap of callbacks over the engine's virtual clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Timer:
    """One thing to do at one time, unless it is cancelled."""

    __slots__ = ("_timers", "action", "due_ms")

    def __init__(self, timers: Timers, due_ms: int, action: Callable[[], None]) -> None:
        self._timers = timers
        self.due_ms = due_ms
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do not do it."""
        if self.action is not None:
            self.action = None
            self._timers.forget_one()


class Timers:
    """All timers of one engine, earliest first.

    Cancelled ones stay in the heap until they surface or are the greater part of it.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._numbers = count()
        self._cancelled = 0

    @property
    def next_due_ms(self) -> int | None:
        """When the earliest is due."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def at(self, due_ms: int, action: Callable[[], None]) -> Timer:
        """Do `action` when the clock reaches `due_ms`."""
        timer = Timer(self, due_ms, action)
        heapq.heappush(self._heap, (due_ms, next(self._numbers), timer))
        return timer

    def forget_one(self) -> None:
        """Count a cancelled timer, and sweep them out when they are too many."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def run(self, now_ms: int) -> None:
        """Do what is due, in the order of the times; what that adds for now is done as well."""
        while (due := self.next_due_ms) is not None and due <= now_ms:
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is not None:
                action()
