"""Merges the position commits of all sidecars into one log entry per flush.

A commit waits for at most one flush that is under way and one pause of `PAUSE_S`; however many
sidecars commit, the log gets one entry per pause. Entries are bounded in items and bytes, and so
is what waits. Each caller gets the answers to its own items.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from conveyor_grpc.errors import BusyError, ControlError, NotReadyError
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_raft.errors import RaftError, UnknownOutcome
from conveyor_raft.machines.router import Outcome, PositionCommit, Refusal, RouterCommand

PAUSE_S = 0.05
BATCH_ITEMS_MAX = 4_096
BATCH_BYTES_MAX = 512 * 1024
"""Of names and positions; base64 and keys of the log's JSON come on top, below Raft's 1 MiB."""
WAITING_ITEMS_MAX = 65_536
_ITEM_OVERHEAD_BYTES = 128

Answer = tuple[int, Sequence[Refusal | None]]


@dataclass(slots=True)
class _Waiting:
    commits: Sequence[PositionCommit]
    bytes: int
    answer: asyncio.Future[Answer]


class Checkpointer:
    """Takes commits at any time; `run` is the leader's duty that flushes them."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._items = 0
        self._arrived = asyncio.Event()
        self._running = False

    async def commit(self, commits: Sequence[PositionCommit]) -> Answer:
        """Return the revision after the commits and why each of them was refused, if it was.

        Raises:
            NotReadyError: this router does not (yet) do the leader's duties.
            BusyError: too much is waiting.
            RaftError: the proposal failed.
        """
        if not self._running:
            raise NotReadyError("this router is not taking position commits at the moment")
        if self._items + len(commits) > WAITING_ITEMS_MAX:
            raise BusyError(f"{self._items} position commits are waiting already")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(commits, sum(map(_size, commits)), answer))
        self._items += len(commits)
        self._arrived.set()
        return await answer

    async def run(self, plane: ControlPlane) -> None:
        """Flush for as long as this node leads; whoever waits at the end is told so."""
        self._running = True
        try:
            while True:
                await self._arrived.wait()
                await asyncio.sleep(PAUSE_S)
                await self._flush(plane, self._take())
                if not self._waiting:
                    self._arrived.clear()
        finally:
            self._running = False
            self._arrived.clear()
            for waiting in self._waiting:
                _fail(waiting, plane.not_leader())
            self._waiting.clear()
            self._items = 0

    def _take(self) -> list[_Waiting]:
        """Take as many requests as one entry holds, at least one."""
        taken: list[_Waiting] = []
        items = size = 0
        while self._waiting:
            head = self._waiting[0]
            items += len(head.commits)
            size += head.bytes
            if taken and (items > BATCH_ITEMS_MAX or size > BATCH_BYTES_MAX):
                break
            taken.append(self._waiting.popleft())
        self._items -= sum(len(waiting.commits) for waiting in taken)
        return taken

    async def _flush(self, plane: ControlPlane, taken: Sequence[_Waiting]) -> None:
        commits = tuple(commit for waiting in taken for commit in waiting.commits)
        try:
            outcome = await plane.propose(RouterCommand.CommitPositions(commits=commits))
        except (RaftError, ControlError) as error:
            for waiting in taken:
                _fail(waiting, error)
            return
        except asyncio.CancelledError:
            for waiting in taken:
                _fail(waiting, UnknownOutcome("this router stopped leading in between"))
            raise
        _answer(taken, outcome)


def _answer(taken: Sequence[_Waiting], outcome: Outcome) -> None:
    refused = {refusal.position: refusal for refusal in outcome.refused}
    start = 0
    for waiting in taken:
        end = start + len(waiting.commits)
        if not waiting.answer.done():
            refusals = [refused.get(position) for position in range(start, end)]
            waiting.answer.set_result((outcome.revision, refusals))
        start = end


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)


def _size(commit: PositionCommit) -> int:
    names = len(commit.pipeline_id) + len(commit.stage) + len(commit.partition)
    return names + len(commit.position or b"") + _ITEM_OVERHEAD_BYTES
