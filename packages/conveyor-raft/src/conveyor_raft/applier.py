"""The apply lane: committed entries into the state machine, results to whoever waits.

Rules kept: entries are applied in order, one at a time, on the event loop; after a few milliseconds
the loop gets its turn, so that a long run of entries delays no heartbeat. A `CommandRejected` is a
result like any other. Every other exception of the state machine ends the node: nobody can say
whether the other nodes would have failed in the same place.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.types import EntryKind, LogIndex
from conveyor_raft.errors import CommandRejected, InvariantViolation
from conveyor_raft.machines.base import Entry, StateMachine
from conveyor_raft.snapshots import SnapshotStore
from conveyor_raft.telemetry import TraceMarks
from conveyor_raft.waiters import Waiters

C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S")

_SLICE_SECONDS = 0.002
_SLICE_ENTRIES = 32

Work = SnapshotMeta | tuple[LogIndex, LogIndex, list[Frame]]


class Applier(Generic[C, R, S]):
    """Owns the state machine. `done` is called after each piece of work, with that work."""

    def __init__(
        self,
        state_machine: StateMachine[C, R, S],
        waiters: Waiters,
        marks: TraceMarks,
        done: Callable[[Work], None],
    ) -> None:
        self.state_machine = state_machine
        self.index = LogIndex(0)
        """What the state stands at; an entry that is being applied is not counted yet."""
        self._waiters = waiters
        self._marks = marks
        self._done = done
        # The core hands out the next work when this one is done: at most an install and a range.
        self._work: deque[Work] = deque()
        self._wake = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether the state machine is between two entries, with nothing to do."""
        return not self._work

    def restore(self, meta: SnapshotMeta, data: bytes) -> None:
        """Put the state machine where the snapshot was taken."""
        self.state_machine.restore(data)
        self.index = meta.index

    def add(self, work: Work) -> None:
        """Queue work that the core has handed out."""
        self._work.append(work)
        self._wake.set()

    async def run(self, snapshots: SnapshotStore) -> None:
        """Work until cancelled, or until the state machine fails."""
        while True:
            while not self._work:
                self._wake.clear()
                await self._wake.wait()
            work = self._work[0]
            if isinstance(work, SnapshotMeta):
                self.restore(work, await snapshots.get(work))
            else:
                first, last, frames = work
                since = time.time_ns()
                await self._apply(frames)
                self.index = last
                if self._marks:
                    self._marks.applied(first, last, since)
            self._work.popleft()
            self._done(work)

    async def _apply(self, frames: list[Frame]) -> None:
        until = time.monotonic() + _SLICE_SECONDS
        for frame in frames:
            futures = self._waiters.futures_for(frame)
            if frame.kind is not EntryKind.COMMAND:
                continue
            apply, decode = self.state_machine.apply, self.state_machine.decode_command
            index, term, timestamp_ms = frame.first_index, frame.term, frame.timestamp_ms
            for offset, payload in enumerate(frame.payloads()):
                future = None if futures is None else futures[offset]
                try:
                    result = apply(Entry(index + offset, term, timestamp_ms, decode(payload)))
                    if future is not None and not future.done():
                        future.set_result(result)
                except CommandRejected as refusal:
                    if future is not None and not future.done():
                        future.set_exception(refusal)
                except Exception as error:
                    raise InvariantViolation(
                        f"the state machine failed at entry {index + offset}"
                        f" ({type(error).__name__}: {error}); its state is no longer that of the"
                        " other nodes. Correct the state machine and start the node again"
                    ) from error
                if offset % _SLICE_ENTRIES == 0 and time.monotonic() > until:
                    await asyncio.sleep(0)
                    until = time.monotonic() + _SLICE_SECONDS
