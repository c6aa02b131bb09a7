"""Reads on any node, and leadership handed over, through `RaftNode`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conveyor_raft import (
    InvalidChange,
    KeyValueCommand,
    KeyValueStateMachine,
    LeaseUnavailable,
    MemoryNetwork,
    NoQuorum,
    NotLeader,
    NotReady,
    RaftConfig,
    RaftNode,
    ReadError,
    ShuttingDown,
    TransferFailed,
    TransferInProgress,
)
from conveyor_raft.testing.cluster import memory_cluster, wait_for_leader

pytestmark = pytest.mark.asyncio
put = KeyValueCommand.put


def value(key: str) -> Any:
    return lambda state: state.get(key)


async def test_every_node_reads_what_was_acknowledged() -> None:
    """A follower asks its leader and waits until it has applied enough."""
    async with memory_cluster(3, KeyValueStateMachine) as nodes:
        leader = await wait_for_leader(nodes)
        for number in range(20):
            await leader.propose(put("a", b"%d" % number))
            for node in nodes:
                assert await node.read(value("a")) == b"%d" % number
        assert await leader.read(value("a"), consistency="local") == b"19"


async def test_many_reads_share_rounds() -> None:
    """A thousand reads at once cost a few heartbeats."""
    async with memory_cluster(3, KeyValueStateMachine) as nodes:
        leader = await wait_for_leader(nodes)
        await leader.propose(put("a", b"1"))
        reads = [node.read(value("a")) for node in nodes for _ in range(300)]
        assert await asyncio.gather(*reads) == [b"1"] * 900
        assert leader.statistics()["open_reads"] == 0


async def test_a_lease_is_asked_for_and_may_be_missing() -> None:
    """Off by default; on, the leader answers without a message, and only the leader."""
    async with memory_cluster(3, KeyValueStateMachine) as nodes:
        leader = await wait_for_leader(nodes)
        with pytest.raises(LeaseUnavailable, match="lease_reads"):
            await leader.read(value("a"), consistency="lease")
    async with memory_cluster(3, KeyValueStateMachine, lease_reads=True) as nodes:
        leader = await wait_for_leader(nodes)
        await leader.propose(put("a", b"1"))
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await leader.read(value("a"), consistency="lease") == b"1"
                    break
                except LeaseUnavailable:
                    await asyncio.sleep(0.01)
        follower = next(node for node in nodes if node is not leader)
        with pytest.raises(NotLeader):
            await follower.read(value("a"), consistency="lease")


async def test_a_cut_off_leader_reads_nothing() -> None:
    """It cannot prove that it still leads; what it says is safe to try elsewhere."""
    network = MemoryNetwork()
    async with memory_cluster(3, KeyValueStateMachine, network=network) as nodes:
        leader = await wait_for_leader(nodes)
        network.cut_off(leader.address)
        with pytest.raises(NoQuorum) as caught:
            await leader.read(value("a"), timeout=0.05)
        assert caught.value.retry_safe
        with pytest.raises((ReadError, NotLeader)):
            await leader.read(value("a"))


async def test_leadership_is_handed_over() -> None:
    """To the named voter or to the best one; proposals find the new leader."""
    async with memory_cluster(3, KeyValueStateMachine) as nodes:
        leader = await wait_for_leader(nodes)
        await leader.propose(put("a", b"1"))
        target = next(node for node in nodes if node is not leader)
        assert await leader.transfer_leadership(leader.node_id) == leader.node_id
        assert await leader.transfer_leadership(target.node_id) == target.node_id
        assert target.is_leader
        await target.propose(put("a", b"2"))
        with pytest.raises(NotLeader) as caught:
            await leader.transfer_leadership()
        assert caught.value.leader_id == target.node_id
        assert await target.transfer_leadership() != target.node_id


async def test_a_dead_target_is_given_up() -> None:
    """Meanwhile proposals are refused with a hint; afterwards they are accepted again."""
    network = MemoryNetwork()
    async with memory_cluster(3, KeyValueStateMachine, network=network) as nodes:
        leader = await wait_for_leader(nodes)
        target = next(node for node in nodes if node is not leader)
        network.cut_off(target.address)
        await leader.propose(put("a", b"1"))
        transfer = asyncio.ensure_future(leader.transfer_leadership(target.node_id))
        await asyncio.sleep(0)
        with pytest.raises(TransferInProgress) as caught:
            await leader.propose(put("a", b"2"))
        assert caught.value.leader_id == target.node_id
        assert caught.value.retry_safe
        with pytest.raises(TransferInProgress):
            await leader.transfer_leadership()
        with pytest.raises(TransferFailed, match="leads on"):
            await transfer
        await leader.propose(put("a", b"3"))
        with pytest.raises(InvalidChange, match="another voter"):
            await leader.transfer_leadership(99)


async def test_everybody_who_waits_is_told() -> None:
    """Before the cluster is there, and when the node ends."""
    node = RaftNode(RaftConfig(node_id=1), KeyValueStateMachine())
    with pytest.raises(NotReady):
        await node.read(value("a"))
    network = MemoryNetwork()
    async with memory_cluster(3, KeyValueStateMachine, network=network) as nodes:
        leader = await wait_for_leader(nodes)
        for other in nodes:
            if other is not leader:
                network.cut_off(other.address)
        waiting = [
            asyncio.ensure_future(leader.read(value("a"))),
            asyncio.ensure_future(leader.transfer_leadership()),
        ]
        await asyncio.sleep(0)
        await leader.shutdown()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {ShuttingDown, NoQuorum}
