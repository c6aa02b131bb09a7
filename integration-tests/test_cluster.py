"""Three routers by the documented flags: what is acknowledged survives every kill."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path

import pytest
from harness.deployment import Deployment, deployed

from conveyor_grpc.errors import ControlError

pytestmark = pytest.mark.asyncio


class Writer:
    """Writes commands one after the other and remembers which were acknowledged."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._numbers = itertools.count()
        self.acknowledged: set[str] = set()

    async def write(self, count: int) -> None:
        """Get `count` commands acknowledged, repeating what failed as a new command."""
        target = len(self.acknowledged) + count
        async with asyncio.timeout(60):
            while len(self.acknowledged) < target:
                name = f"service-{next(self._numbers)}"
                with contextlib.suppress(ControlError):
                    await self._deployment.register(name)
                    self.acknowledged.add(name)

    async def nothing_is_lost(self) -> None:
        """Check that everything acknowledged is there."""
        assert self.acknowledged <= await self._deployment.registered()


async def test_three_routers_form_one_cluster(tmp_path: Path) -> None:
    """Each member says the same of the cluster, and the command line shows it."""
    async with deployed(tmp_path) as deployment:
        for router in deployment.routers:
            await deployment.caught_up(router)
        statuses = [await deployment.status_of(router) for router in deployment.routers]
        assert all(status and len(status.members) == 3 for status in statuses)
        assert len({status.cluster_id for status in statuses if status}) == 1
        assert "leader" in await deployment.conveyor("status")


async def test_a_single_router_is_a_cluster_of_one(tmp_path: Path) -> None:
    """No peers: it elects itself, serves, and finds its data after kill -9."""
    async with deployed(tmp_path, routers=1) as deployment:
        writer = Writer(deployment)
        await writer.write(10)
        (router,) = deployment.routers
        router.kill()
        router.start()
        await deployment.leader()
        await writer.nothing_is_lost()


async def test_killing_leader_and_follower_loses_nothing(tmp_path: Path) -> None:
    """kill -9 of the leader, then of a follower, while commands are written."""
    async with deployed(tmp_path) as deployment:
        writer = Writer(deployment)
        await writer.write(20)
        leader = await deployment.leader()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.write(60))
            leader.kill()
        await writer.nothing_is_lost()
        leader.start()
        await deployment.caught_up(leader)
        new_leader = await deployment.leader()
        follower = next(each for each in deployment.routers if each is not new_leader)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.write(60))
            follower.kill()
        follower.start()
        await deployment.caught_up(follower)
        await writer.nothing_is_lost()


async def test_killing_all_three_at_once_loses_nothing(tmp_path: Path) -> None:
    """All acknowledged commands are there after the whole cluster was killed and started."""
    async with deployed(tmp_path) as deployment:
        writer = Writer(deployment)
        await writer.write(100)
        for router in deployment.routers:
            router.kill()
        deployment.cluster.start()
        await deployment.leader()
        await writer.nothing_is_lost()
        await writer.write(5)


async def test_a_wedged_follower_catches_up_by_snapshot(tmp_path: Path) -> None:
    """A frozen follower whose next entry is compacted away gets the leader's snapshot."""
    settings = {"CONVEYOR_CLUSTER__SNAPSHOT_INTERVAL": "50"}
    async with deployed(tmp_path, router_environment=settings) as deployment:
        writer = Writer(deployment)
        await writer.write(5)
        leader = await deployment.leader()
        wedged = next(each for each in deployment.routers if each is not leader)
        before = await deployment.status_of(wedged)
        wedged.pause()
        await writer.write(400)
        at_leader = await deployment.status_of(leader)
        assert before is not None and at_leader is not None
        assert at_leader.snapshot_index > before.last_log_index
        wedged.resume()
        await deployment.caught_up(wedged)
        after = await deployment.status_of(wedged)
        assert after is not None and after.snapshot_index > before.last_log_index
        await writer.nothing_is_lost()
