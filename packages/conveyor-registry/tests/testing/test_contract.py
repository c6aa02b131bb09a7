"""One contract for the fake and the real node: what the registry needs of a replicated log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from conveyor_raft.errors import CommandRejected, NotLeader
from conveyor_raft.machines.router import RouterCommand, RouterStateMachine
from conveyor_raft.status import Applied
from conveyor_raft.testing.cluster import memory_cluster, wait_for_leader
from conveyor_registry import RaftPort
from conveyor_registry.testing import InProcessRaft

pytestmark = pytest.mark.asyncio
C = RouterCommand


@asynccontextmanager
async def fake() -> AsyncIterator[tuple[RaftPort, RaftPort]]:
    leader, follower = InProcessRaft(), InProcessRaft()
    follower.is_leader = False
    yield leader, follower


@asynccontextmanager
async def real() -> AsyncIterator[tuple[RaftPort, RaftPort]]:
    async with memory_cluster(3, RouterStateMachine) as nodes:
        leader = await wait_for_leader(nodes)
        yield leader, next(node for node in nodes if node is not leader)


@pytest.fixture(params=[fake, real], ids=["fake", "real"])
def cluster(request):
    return request.param


def create(name):
    return C.CreatePipeline(pipeline_id=name, manifest=b"{}", digest="1")


async def test_a_proposal_is_in_the_state_when_it_returns(cluster):
    """And the outcome tells the revision at which it is."""
    async with cluster() as (leader, _):
        outcome = await leader.propose(create("p"), timeout=5.0)
        state = await leader.state()
        assert outcome.changed
        assert "p" in state.pipelines
        assert outcome.revision == state.revision > 0


async def test_a_refusal_is_the_proposers(cluster):
    """With its code, and the state as it was."""
    async with cluster() as (leader, _):
        await leader.propose(create("p"))
        with pytest.raises(CommandRejected) as caught:
            await leader.propose(C.Batch(commands=(create("q"), create("p"))))
        assert caught.value.code == "exists"
        assert set((await leader.state()).pipelines) == {"p"}


async def test_a_follower_does_not_lead(cluster):
    """It says so, and refuses."""
    async with cluster() as (leader, follower):
        assert leader.is_leader
        assert not follower.is_leader
        with pytest.raises(NotLeader):
            await follower.propose(C.Noop(), timeout=5.0)


async def test_a_watcher_hears_of_what_is_applied(cluster):
    """The newest level, after the state has it."""
    async with cluster() as (leader, _):
        events = leader.watch()
        outcome = await leader.propose(create("p"))
        async for event in events:
            if isinstance(event, Applied) and event.index >= outcome.revision:
                break
        assert "p" in (await leader.state()).pipelines
