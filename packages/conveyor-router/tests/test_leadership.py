"""Duties run while a node leads and has caught up, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conveyor_raft.core.types import NodeId, RaftRole, Term
from conveyor_raft.errors import UnknownOutcome
from conveyor_raft.status import LeadershipChanged
from conveyor_router import leadership as module
from conveyor_router.leadership import Leadership


class Plane:
    """A plane and its node in one, led by the test."""

    def __init__(self) -> None:
        self.node = self
        self.is_leader = False
        self.term = 1
        self.leading = False
        self.begun = 0
        self.failures = 0
        self._events: asyncio.Queue[Any] = asyncio.Queue(100)

    def become(self, *, leader: bool, term: int) -> None:
        self.is_leader, self.term = leader, term
        role = RaftRole.LEADER if leader else RaftRole.FOLLOWER
        self._events.put_nowait(LeadershipChanged(role, Term(term), NodeId(1)))

    async def watch(self) -> AsyncIterator[Any]:
        while (event := await self._events.get()) is not None:
            yield event

    def stop(self) -> None:
        self._events.put_nowait(None)

    async def begin_leading(self) -> None:
        if self.failures:
            self.failures -= 1
            raise UnknownOutcome("no quorum yet")
        self.begun += 1
        self.leading = True

    def end_leading(self) -> None:
        self.leading = False


class Duty:
    """Notes how often it runs, and whether it runs now."""

    def __init__(self) -> None:
        self.runs = 0
        self.running = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.runs += 1
        self.ended.clear()
        self.running.set()
        try:
            if self.error is not None:
                error, self.error = self.error, None
                raise error
            await asyncio.Event().wait()
        finally:
            self.running.clear()
            self.ended.set()


@pytest.mark.asyncio
async def test_duties_follow_the_leadership() -> None:
    """They begin after catching up, end with the leadership, and begin anew in a new term."""
    plane, duty = Plane(), Duty()
    loop = asyncio.ensure_future(Leadership(plane, [duty]).run())  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        plane.become(leader=True, term=2)
        await duty.running.wait()
        assert plane.leading
        plane.become(leader=False, term=3)
        await duty.ended.wait()
        plane.become(leader=True, term=4)
        await duty.running.wait()
        assert (duty.runs, plane.begun) == (2, 2)
        plane.stop()
        await loop
    assert duty.ended.is_set()
    assert not plane.leading


@pytest.mark.asyncio
async def test_catching_up_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader without a quorum keeps trying, and does nothing before."""
    monkeypatch.setattr(module, "RESTART_PAUSE_S", 0)
    plane, duty = Plane(), Duty()
    plane.failures = 3
    loop = asyncio.ensure_future(Leadership(plane, [duty]).run())  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        plane.become(leader=True, term=2)
        await duty.running.wait()
        plane.stop()
        await loop
    assert plane.begun == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [KeyError("a bug"), UnknownOutcome("no quorum")], ids=str)
async def test_a_duty_that_fails_begins_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """With the others, and without forgetting what was heard."""
    monkeypatch.setattr(module, "RESTART_PAUSE_S", 0)
    plane, duty, other = Plane(), Duty(), Duty()
    duty.error = error
    loop = asyncio.ensure_future(Leadership(plane, [duty, other]).run())  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        plane.become(leader=True, term=2)
        while duty.runs < 2 or not duty.running.is_set():
            await asyncio.sleep(0)
        assert plane.begun == 1
        plane.stop()
        await loop
    assert other.runs == 2
