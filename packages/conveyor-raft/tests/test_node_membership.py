"""`RaftNode` and its cluster: nodes join, learn, vote and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from conveyor_raft import (
    ChangeRefused,
    InvalidChange,
    KeyValueCommand,
    KeyValueStateMachine,
    MembershipChange,
    MemoryNetwork,
    MemoryTransport,
    NotLeader,
    NotReady,
    RaftConfig,
    RaftNode,
)
from conveyor_raft.core.types import LogId, LogIndex, NodeId, Term
from conveyor_raft.testing.cluster import memory_cluster, wait_for_leader

pytestmark = pytest.mark.asyncio
put = KeyValueCommand.put


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def newcomer(network: MemoryNetwork, node_id: int) -> RaftNode:
    transport = MemoryTransport(network, f"memory:{node_id}")
    return RaftNode(
        RaftConfig(node_id=node_id),
        KeyValueStateMachine(),
        {1: "memory:1", 2: "memory:2"},
        transport=transport,
    )


async def test_a_node_joins_learns_votes_and_goes() -> None:
    """With data that was there before it, and a snapshot in place of the first entries."""
    network = MemoryNetwork()
    async with memory_cluster(
        3,
        KeyValueStateMachine,
        network=network,
        snapshot_interval_entries=10,
        snapshot_trailing_entries=0,
    ) as nodes:
        leader = await wait_for_leader(nodes)
        for number in range(30):
            await leader.propose(put(f"key {number}", b"value"))
        await leader.add_learner(4, "memory:4", "client:4")
        async with newcomer(network, 4) as fourth:
            await until(lambda: fourth.applied_index >= leader.commit_index > 30)
            assert (await fourth.state())["key 29"] == b"value"
            await leader.promote(4)
            assert [member.node_id for member in leader.members] == [1, 2, 3, 4]
            other = next(node for node in nodes if node is not leader)
            await leader.remove(other.node_id)
            await until(lambda: len(other.members) == 3 and len(fourth.members) == 3)
            await leader.propose(put("after", b"it"))
            await until(lambda: fourth.applied_index == leader.commit_index)
            assert await fourth.state() == await leader.state()
            assert fourth.leader_member is not None
            assert fourth.leader_member.node_id == leader.node_id
            # The leader itself goes; the two that are left elect another.
            await leader.remove(leader.node_id)
            rest = [node for node in (*nodes, fourth) if node not in {leader, other}]
            successor = await wait_for_leader(rest)
            assert successor is not leader
            await successor.propose(put("without", b"it"))


async def test_refusals_say_why() -> None:
    """A follower, a wrong id, a membership that has moved on, a node without a cluster."""
    async with memory_cluster(2, KeyValueStateMachine) as nodes:
        leader = await wait_for_leader(nodes)
        await leader.propose(put("a", b"b"))
        (follower,) = (node for node in nodes if node is not leader)
        with pytest.raises(NotLeader) as refused:
            await follower.remove(1)
        assert refused.value.leader_id == leader.node_id
        with pytest.raises(InvalidChange, match="no member"):
            await leader.remove(9)
        stale = LogId(LogIndex(9), Term(9))
        with pytest.raises(ChangeRefused, match="not the expected"):
            change = MembershipChange(remove=(NodeId(1),), expected=stale)
            await leader.change_membership(change, timeout=5)
    with pytest.raises(NotReady):
        await leader.promote(2)


async def test_the_membership_survives_a_restart_over_grpc(tmp_path: Path) -> None:
    """One node becomes two on disk, and is two again after both have restarted."""

    def config(node_id: int, port: int = 0) -> RaftConfig:
        address = f"127.0.0.1:{port}"
        return RaftConfig(node_id=node_id, data_dir=tmp_path / str(node_id), listen_address=address)

    async with RaftNode(config(1), KeyValueStateMachine()) as one:
        await one.propose(put("a", b"1"))
        first = one.address
        other = RaftNode(config(3), KeyValueStateMachine())
        await other.start()
        second = other.address  # a free port, as good as any
        await other.shutdown()
        await one.add_learner(2, second)
        port = int(second.rpartition(":")[2])
        async with RaftNode(config(2, port), KeyValueStateMachine(), [first]) as two:
            await one.promote(2)
            await one.propose(put("b", b"2"))
            await until(lambda: two.applied_index == one.commit_index)
            assert await two.state() == {"a": b"1", "b": b"2"}
    async with (
        RaftNode(config(1, int(first.rpartition(":")[2])), KeyValueStateMachine()) as one,
        RaftNode(config(2, port), KeyValueStateMachine()) as two,
    ):
        leader = await wait_for_leader([one, two])
        await leader.propose(put("c", b"3"))
        assert [member.node_id for member in two.members] == [1, 2]
