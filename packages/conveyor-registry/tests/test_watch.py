"""Watching: nothing is missed, or the watcher is told so."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from conveyor_raft.machines.router import RouterCommand, Table
from conveyor_registry import StateWatch, TooManyWatchers, WatchOverflow

pytestmark = pytest.mark.asyncio
C = RouterCommand


async def test_changes_come_in_order_and_once(world):
    """What was before is not told; what comes is, by revision."""
    world.sidecar("a", "source:src")
    watch = StateWatch(world.raft)
    async with aclosing(watch.changes(world.state.revision)) as changes:
        world.pipeline()
        revision, first = await anext(changes)
        assert (revision, [(one.table, one.key, one.created) for one in first]) == (
            2,
            [(Table.PIPELINES, "default/p", True)],
        )
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        world.raft.apply(C.DeregisterSidecar(sidecar_id="a"))
        _, second = await waiting
        assert {(one.table, one.dropped) for one in second} == {
            (Table.SERVICES, True),
            (Table.SIDECARS, True),
            (Table.LOCATIONS, True),
        }
    assert watch.watchers == 0


async def test_tables_are_chosen_and_the_revision_moves_anyway(world):
    """A watcher of pipelines learns that it is up to date."""
    watch = StateWatch(world.raft)
    async with aclosing(watch.changes(0, {Table.PIPELINES})) as changes:
        world.sidecar("a")
        assert await anext(changes) == (1, [])


async def test_who_is_too_far_behind_lists_again(world):
    """A restored snapshot has no past; the watcher is told instead of missing something."""
    world.sidecar("a")
    world.raft.machine.restore(world.raft.machine.snapshot())
    async with aclosing(StateWatch(world.raft).changes(0)) as changes:
        with pytest.raises(WatchOverflow, match="since revision 0"):
            await anext(changes)


async def test_watchers_are_bounded_and_end_with_the_node(world):
    """One too many is refused; the others end when the node stops."""
    watch = StateWatch(world.raft, watchers_max=1)
    async with aclosing(watch.changes(0)) as changes:
        waiting = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(0)
        with pytest.raises(TooManyWatchers):
            await anext(watch.changes(0))
        await world.raft.shutdown()
        assert await waiting is None
