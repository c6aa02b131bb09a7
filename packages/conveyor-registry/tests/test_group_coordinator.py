"""`GroupCoordinator` beyond its sample."""

from __future__ import annotations

import pytest

from conveyor_raft.errors import CommandRejected, NotLeader
from conveyor_registry import (
    Contended,
    GroupCoordinator,
    InvalidRegistration,
    Liveness,
    NotRegistered,
)

pytestmark = pytest.mark.asyncio


@pytest.fixture
def groups(world):
    return GroupCoordinator(world.raft)


async def join(groups, member_id, **more):
    return await groups.join_group("g", member_id, "src", ["t"], **more)


async def test_partitions_spread_evenly_and_move_little(groups):
    """Each join takes from the fullest; a leave gives back to all."""
    first = await join(groups, "a", partitions=6)
    assert first.assigned_partitions == [0, 1, 2, 3, 4, 5]
    second = await join(groups, "b")
    assert (second.generation, second.assigned_partitions) == (2, [3, 4, 5])
    third = await join(groups, "c")
    assert len(third.assigned_partitions) == 2
    assert set((await groups.get_assignment("g", "a")).assigned_partitions) < {0, 1, 2}
    assert await groups.leave_group("g", "c")
    assert not await groups.leave_group("g", "c")
    group = await groups.get_group("g")
    assert group.generation == 4
    assert sorted(len(one.assigned_partitions) for one in group.members) == [3, 3]


async def test_joining_again_disturbs_nobody(groups, world):
    """A member that restarts keeps its partitions and its generation."""
    await join(groups, "a", partitions=4)
    await join(groups, "b")
    before = world.raft.proposals
    again = await join(groups, "b")
    assert (again.generation, again.assigned_partitions) == (2, [2, 3])
    assert world.raft.proposals == before


async def test_partitions_come_from_the_registered_services(groups, world):
    """What Describe names of the topic; else one partition for each topic."""
    world.sidecar("pod", "source:src", partitions=("t/0", "t/1", "u/0"))
    assignment = await groups.join_group("g", "a", "src", ["t", "v"])
    assert len(assignment.assigned_partitions) == 3
    assert (await groups.get_group("g")).partition_names == ["t/0", "t/1", "v"]
    await groups.join_group("h", "a", "src", ["v"], partitions=["x", "y"])
    await groups.join_group("h", "b", "src", ["v"])
    assert (await groups.get_group("h")).partition_names == ["x", "y"]
    more = await groups.join_group("g", "b", "src", ["u"])
    assert (await groups.get_group("g")).partition_names == ["t/0", "t/1", "v", "u/0"]
    assert len(more.assigned_partitions) == 2


async def test_commits_are_fenced_by_the_generation(groups):
    """Who works under an old assignment cannot move the group's position."""
    await join(groups, "a", partitions=["x", "y"])
    await groups.commit_offset("g", "a", 1, 0, 41)
    await join(groups, "b")
    with pytest.raises(CommandRejected, match="at generation 2, not 1"):
        await groups.commit_offset("g", "a", 1, 0, 42)
    assert (await groups.get_group("g")).offsets == {0: 41}


async def test_a_race_is_tried_again(world):
    """Somebody joins between the reading and the proposal: the assignment is computed anew."""
    await join(GroupCoordinator(world.raft), "a", partitions=4)

    class Raced:
        is_leader = True
        races = 1

        async def state(self):
            return world.state

        async def propose(self, command, *, timeout=None):
            if self.races:
                self.races -= 1
                await join(GroupCoordinator(world.raft), f"rival-{self.races}")
            return await world.raft.propose(command)

    assignment = await join(GroupCoordinator(Raced()), "b")
    assert assignment.generation == 3
    everybody = [one.assigned_partitions for one in world_members(world)]
    assert sorted(number for numbers in everybody for number in numbers) == [0, 1, 2, 3]
    raced = Raced()
    raced.races = 100
    with pytest.raises(Contended, match="16 times"):
        await join(GroupCoordinator(raced), "c")


def world_members(world):
    from conveyor_registry import ServiceGroup

    return ServiceGroup.of(world.state.groups["g"]).members


async def test_members_beat_and_are_known(world):
    """A heartbeat tells the present assignment; a stranger is told to join."""
    liveness = Liveness()
    liveness.begin(world.state, 0)
    groups = GroupCoordinator(world.raft, liveness=liveness, clock=lambda: 20_000)
    await join(groups, "a", partitions=2)
    assert (await groups.heartbeat("g", "a")).assigned_partitions == [0, 1]
    assert liveness.decide(world.state, 49_999) == []
    assert [one.kind for one in liveness.decide(world.state, 50_000)] == ["batch"]
    with pytest.raises(NotRegistered, match=r"member of group 'g' 'b'"):
        await groups.heartbeat("g", "b")
    assert await groups.get_group("other") is None


async def test_a_follower_refuses_joins(groups, world):
    """Also those that would change nothing, because it may be behind."""
    await join(groups, "a", partitions=2)
    world.raft.is_leader = False
    for call in (join(groups, "a"), join(groups, "b"), groups.leave_group("g", "x")):
        with pytest.raises(NotLeader):
            await call


async def test_a_service_reports_its_own_mistakes(groups):
    """What breaks a bound is refused before anything is proposed."""
    with pytest.raises(InvalidRegistration, match="service_name"):
        await groups.join_group("g", "a", "no name", ["t"])
