"""Watchers see levels: the newest value, no backlog, no gap, and an end."""

from __future__ import annotations

import asyncio
import gc

import pytest

from conveyor_raft import Applied, Busy, LeadershipChanged, RaftRole
from conveyor_raft.core.types import LogIndex, NodeId, Term
from conveyor_raft.watch import Watchers

pytestmark = pytest.mark.asyncio


def level(term: int) -> LeadershipChanged:
    return LeadershipChanged(RaftRole.FOLLOWER, Term(term), NodeId(1))


def applied(index: int) -> Applied:
    return Applied(LogIndex(index))


async def test_the_level_of_now_comes_first_and_bursts_become_one_event() -> None:
    """Whatever happened while the watcher was busy is one event with the newest value."""
    watchers = Watchers(10)
    watcher = watchers.add(level(1), applied(5))
    assert [await anext(watcher), await anext(watcher)] == [level(1), applied(5)]
    for index in range(6, 100):
        watchers.notify(applied(index))
        watchers.notify(level(index))
    assert [await anext(watcher), await anext(watcher)] == [level(99), applied(99)]


async def test_a_waiting_watcher_is_woken_and_ended() -> None:
    """The end of the node ends the iteration, for new watchers as well."""
    watchers = Watchers(10)
    watcher = watchers.add(level(1), applied(0))
    seen = []

    async def follow() -> None:
        async for event in watcher:
            seen.append(event)

    async with asyncio.TaskGroup() as group:
        group.create_task(follow())
        await asyncio.sleep(0)
        watchers.notify(applied(1))
        await asyncio.sleep(0)
        watchers.notify(None)
    assert seen == [level(1), applied(0), applied(1)]
    late = watchers.add(level(2), applied(1))
    assert [event async for event in late] == [level(2), applied(1)]


async def test_watchers_are_bounded_and_forgotten_with_their_owner() -> None:
    """One too many is refused; one that nobody refers to any more leaves its place."""
    watchers = Watchers(2)
    kept = [watchers.add(level(1), applied(0)) for _ in range(2)]
    with pytest.raises(Busy, match="watchers_max"):
        watchers.add(level(1), applied(0))
    del kept[0]
    gc.collect()
    watchers.add(level(1), applied(0))
