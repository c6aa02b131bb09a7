"""`RaftNode` over memory: outcomes, refusals, life and death, watching, snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from conveyor_raft import (
    Applied,
    Busy,
    CommandRejected,
    Entry,
    FormationError,
    KeyValueCommand,
    KeyValueStateMachine,
    LeadershipChanged,
    MemoryLogStorage,
    MemoryNetwork,
    MemoryTransport,
    NodeStopped,
    NotLeader,
    NotReady,
    PayloadTooLarge,
    RaftConfig,
    RaftError,
    RaftNode,
    ShuttingDown,
    UnknownOutcome,
    WrongIdentity,
)
from conveyor_raft.core.loading import first_state
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.output import Write
from conveyor_raft.core.types import Member, NodeId
from conveyor_raft.errors import Failed
from conveyor_raft.formation import cluster_id_of
from conveyor_raft.snapshots import MemorySnapshots
from conveyor_raft.testing.cluster import memory_cluster, wait_for_leader

pytestmark = pytest.mark.asyncio
put = KeyValueCommand.put


class Moody(KeyValueStateMachine):
    """Refuses one key, breaks at another."""

    def apply(self, entry: Entry[KeyValueCommand]) -> object:
        if entry.command.key == "refuse":
            raise CommandRejected("no", "not this key")
        if entry.command.key == "break":
            raise ZeroDivisionError("by chance")
        return super().apply(entry)


def alone(machine: KeyValueStateMachine | None = None, **settings: object) -> RaftNode:
    return RaftNode(RaftConfig(node_id=1, **settings), machine or KeyValueStateMachine())


async def test_a_cluster_of_one_leads_when_start_returns() -> None:
    """No peers, nothing to wait for."""
    async with alone() as node:
        assert node.is_leader
        assert node.leader_member == node.members[0]
        assert await node.propose(put("a", b"1")) == (True, None)
        assert await node.state() == {"a": b"1"}


async def test_the_form_of_the_specification() -> None:
    """`await RaftNode.new(config, state_machine, peers)`."""
    node = await RaftNode.new(RaftConfig(node_id=1), KeyValueStateMachine(), [])
    await node.propose(put("a", b"1"))
    await node.shutdown()
    await node.shutdown()
    with pytest.raises(ShuttingDown):
        await node.propose(put("a", b"2"))
    with pytest.raises(RuntimeError, match="make a new one"):
        await node.start()


async def test_three_nodes_agree_and_followers_name_the_leader() -> None:
    """A proposal succeeds on the leader only, and is then in every state."""
    async with memory_cluster(3, KeyValueStateMachine) as nodes:
        leader = await wait_for_leader(nodes)
        assert await leader.propose(put("a", b"1")) == (True, None)
        for node in nodes:
            await node.wait_applied(leader.commit_index, 5)
            assert await node.state() == {"a": b"1"}
            assert [member.node_id for member in node.members] == [1, 2, 3]
        follower = next(node for node in nodes if node is not leader)
        with pytest.raises(NotLeader) as caught:
            await follower.propose(put("a", b"2"))
        assert caught.value.leader_id == leader.node_id
        assert caught.value.leader_client_address == f"client:{leader.node_id}"
        assert caught.value.leader_raft_address == leader.address
        assert caught.value.retry_safe


async def test_a_thousand_proposals_at_once_keep_their_results() -> None:
    """Each future gets its own command's result, in few flushes."""
    async with memory_cluster(3, KeyValueStateMachine) as nodes:
        leader = await wait_for_leader(nodes)
        await leader.propose(put("k", b"0"))
        futures = [leader.propose_nowait(put("k", b"%d" % n)) for n in range(1, 1001)]
        results = await asyncio.gather(*futures)
        assert [result.previous for result in results] == [b"%d" % n for n in range(1000)]
        assert leader.statistics()["flushes"] < 50


async def test_propose_many_returns_one_outcome_for_each() -> None:
    """Refusals of the state machine stand in the list, in their places."""
    async with alone(Moody()) as node:
        outcomes = await node.propose_many([put("a", b"1"), put("refuse", b""), put("b", b"2")])
        assert outcomes[0] == (True, None)
        assert isinstance(outcomes[1], CommandRejected)
        assert outcomes[2] == (True, None)
        assert await node.state() == {"a": b"1", "b": b"2"}


async def test_a_refusal_is_a_result_and_the_node_goes_on() -> None:
    """`CommandRejected` reaches the proposer, and nothing else happens."""
    async with alone(Moody()) as node:
        with pytest.raises(CommandRejected, match="not this key") as caught:
            await node.propose(put("refuse", b""))
        assert caught.value.code == "no"
        await node.propose(put("a", b"1"))


async def test_a_broken_state_machine_stops_the_node_and_says_where() -> None:
    """The proposer learns that the outcome is unknown, everybody else why the node stopped."""
    node = alone(Moody())
    await node.start()
    with pytest.raises(UnknownOutcome, match="state machine failed at entry"):
        await node.propose(put("break", b""))
    with pytest.raises(NodeStopped, match=r"entry 3 \(ZeroDivisionError: by chance\)"):
        await node.wait_stopped()
    assert "by chance" in (node.status().stopped_because or "")
    with pytest.raises(ShuttingDown):
        await node.propose(put("a", b"1"))
    await node.shutdown()


async def test_a_failed_disk_stops_the_node() -> None:
    """A write that failed ends everything, and every waiter is told."""

    class Broken(MemoryLogStorage):
        broken = False

        async def write(self, write: Write) -> None:
            if self.broken:
                raise Failed("the disk is gone")
            await super().write(write)

    storage = Broken()
    node = RaftNode(RaftConfig(node_id=1), KeyValueStateMachine(), storage=storage)
    await node.start()
    storage.broken = True
    with pytest.raises(UnknownOutcome, match="the disk is gone"):
        await node.propose(put("a", b"1"))
    with pytest.raises(NodeStopped, match="the disk is gone"):
        await node.wait_stopped()
    with pytest.raises(NodeStopped):
        await node.wait_applied(99)


async def test_without_a_quorum_the_outcome_is_unknown() -> None:
    """The leader of a minority appends, cannot commit, and says so in time."""
    network = MemoryNetwork()
    settings = {"propose_timeout_ms": 200, "check_quorum": False}
    async with memory_cluster(3, KeyValueStateMachine, network=network, **settings) as nodes:
        leader = await wait_for_leader(nodes)
        for node in nodes:
            if node is not leader:
                network.cut_off(node.address)
        with pytest.raises(UnknownOutcome, match=r"within 0.05 s"):
            await leader.propose(put("a", b"1"), timeout=0.05)
        outcomes = await leader.propose_many([put("a", b"1")] * 3, timeout=0.05)
        assert [type(outcome) for outcome in outcomes] == [UnknownOutcome] * 3
        with pytest.raises(UnknownOutcome, match=r"within 0.2 s"):
            await leader.propose(put("a", b"1"))


async def test_a_deposed_leader_tells_its_proposers() -> None:
    """An entry that another leader's replaced: unknown, never the other command's result."""
    network = MemoryNetwork()
    async with memory_cluster(3, KeyValueStateMachine, network=network) as nodes:
        old = await wait_for_leader(nodes)
        network.cut_off(old.address)
        lost = old.propose_nowait(put("who", b"old"))
        others = [node for node in nodes if node is not old]
        new = await leader_other_than(others, old)
        await new.propose(put("who", b"new"))
        network.restore(old.address)
        with pytest.raises(UnknownOutcome):
            async with asyncio.timeout(10):
                await lost
        await old.wait_applied(new.commit_index, 10)
        assert await old.state() == {"who": b"new"}


async def leader_other_than(nodes: Sequence[RaftNode], old: RaftNode) -> RaftNode:
    async with asyncio.timeout(10):
        async for _ in nodes[0].watch():
            for node in nodes:
                if node.is_leader and node.term > old.term:
                    return node
    raise AssertionError


async def test_what_cannot_be_accepted_is_refused_before_it_is_appended() -> None:
    """Too large, too many: `RejectedError`, and nothing happens."""
    async with alone(max_payload_bytes=100, max_uncommitted_entries=10) as node:
        with pytest.raises(PayloadTooLarge, match="the limit is 100"):
            await node.propose(put("a", b"x" * 101))
        accepted = []
        with pytest.raises(Busy, match="try again after a pause"):
            for _ in range(20):
                accepted.append(node.propose_nowait(put("a", b"1")))
        assert len(accepted) == 10
        await asyncio.gather(*accepted)
        await node.propose(put("a", b"2"))


async def test_before_there_is_a_cluster_nothing_is_accepted() -> None:
    """A node that waits for its peers says for whom."""
    transport = MemoryTransport(MemoryNetwork(), "a:1")
    node = RaftNode(RaftConfig(node_id=1), KeyValueStateMachine(), ["b:1"], transport=transport)
    async with node:
        with pytest.raises(NotReady):
            await node.propose(put("a", b"1"))
        with pytest.raises(TimeoutError):
            await node.wait_for_leader(0.05)
        assert node.status().waiting_for == ("b:1 (nobody is there)",)
    with pytest.raises(ShuttingDown):
        await node.wait_for_leader(1)


async def test_a_cancelled_proposal_changes_nothing_else() -> None:
    """The entry stays; the next proposal gets its own result."""
    async with alone() as node:
        task = asyncio.create_task(node.propose(put("a", b"1")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (await node.propose(put("a", b"2"))).previous in {b"1", None}


async def test_shutdown_tells_everybody() -> None:
    """Proposals, watchers, and whoever waits for the end."""
    network = MemoryNetwork()
    async with memory_cluster(3, KeyValueStateMachine, network=network) as nodes:
        leader = await wait_for_leader(nodes)
        for node in nodes:
            if node is not leader:
                network.cut_off(node.address)
        future = leader.propose_nowait(put("a", b"1"))
        await asyncio.sleep(0)
        watcher = leader.watch()
        await leader.shutdown()
        with pytest.raises(RaftError):
            await future
        assert len([event async for event in watcher]) <= 2
        await leader.wait_stopped()


async def test_watching_shows_leadership_and_progress() -> None:
    """The levels of now, then the changes."""
    async with alone() as node:
        watcher = node.watch()
        first = await anext(watcher)
        assert isinstance(first, LeadershipChanged)
        assert first.leader_id == 1
        assert isinstance(await anext(watcher), Applied)
        await node.propose(put("a", b"1"))
        event = await anext(watcher)
        assert event == Applied(node.applied_index)


async def test_a_restarted_node_has_its_state_and_its_identity() -> None:
    """Log and snapshot survive in the storage; the cluster id stays."""
    storage = MemoryLogStorage()
    config = RaftConfig(node_id=1, snapshot_interval_entries=50, snapshot_trailing_entries=5)
    cluster_ids = set()
    for run in range(3):
        async with RaftNode(config, KeyValueStateMachine(), storage=storage) as node:
            cluster_ids.add(node.cluster_id)
            await node.propose_many([put(f"{run}/{n}", b"x") for n in range(70)])
            assert len(await node.state()) == 70 * (run + 1)
            if run:
                assert node.status().snapshot_index > 0
    assert len(cluster_ids) == 1


async def test_snapshots_bound_the_log() -> None:
    """Many entries, a short log, one snapshot kept."""
    async with alone(snapshot_interval_entries=100, snapshot_trailing_entries=10) as node:
        for n in range(20):
            await node.propose_many([put("k", b"%d" % n)] * 50)
        await until_snapshot(node, 800)
        assert node.statistics()["log_entries"] <= 250


async def until_snapshot(node: RaftNode, index: int) -> None:
    async with asyncio.timeout(5):
        while node.status().snapshot_index < index:
            await asyncio.sleep(0.01)


async def test_a_lagging_follower_catches_up_by_snapshot() -> None:
    """Cut off until its entries are gone from the leader's log; then it gets the state whole."""
    network = MemoryNetwork()
    settings = {"snapshot_interval_entries": 50, "snapshot_trailing_entries": 5}
    async with memory_cluster(3, KeyValueStateMachine, network=network, **settings) as nodes:
        leader = await wait_for_leader(nodes)
        behind = next(node for node in nodes if node is not leader)
        network.cut_off(behind.address)
        for n in range(6):
            await leader.propose_many([put(f"{n}/{m}", b"x") for m in range(50)])
        await until_snapshot(leader, 200)
        network.restore(behind.address)
        leader = await leader_of_the_newest_term(nodes)
        await leader.propose(put("last", b"x"))
        await behind.wait_applied(leader.commit_index, 10)
        assert await behind.state() == await leader.state()
        assert behind.statistics()["snapshots_installed"] >= 1


async def test_a_snapshot_may_be_replaced_while_it_is_about_to_be_sent() -> None:
    """The bytes are gone when they are read: the newer snapshot is sent, and nobody stops."""
    gate = asyncio.Event()
    reading = asyncio.Event()

    class Slow(MemorySnapshots):
        async def get(self, meta: SnapshotMeta) -> bytes:
            reading.set()
            await gate.wait()
            return await super().get(meta)

    class SlowStorage(MemoryLogStorage):
        def __init__(self) -> None:
            super().__init__()
            self.snapshots = Slow()

    network = MemoryNetwork()
    settings = {"snapshot_interval_entries": 50, "snapshot_trailing_entries": 5}
    addresses = {n: f"memory:{n}" for n in (1, 2, 3)}
    nodes = [
        RaftNode(
            RaftConfig(node_id=n, **settings),
            KeyValueStateMachine(),
            addresses,
            storage=SlowStorage(),
            transport=MemoryTransport(network, address),
        )
        for n, address in addresses.items()
    ]
    async with nodes[0], nodes[1], nodes[2], asyncio.timeout(20):
        leader = await wait_for_leader(nodes)
        behind = next(node for node in nodes if node is not leader)
        network.cut_off(behind.address)
        for n in range(3):
            await leader.propose_many([put(f"{n}/{m}", b"x") for m in range(50)])
        await until_snapshot(leader, 100)
        old = leader.status().snapshot_index
        network.restore(behind.address)
        await reading.wait()
        leader = await leader_of_the_newest_term(nodes)
        for n in range(3):
            await leader.propose_many([put(f"{n}/{m}", b"y") for m in range(50)])
        await until_snapshot(leader, old + 50)
        gate.set()
        await behind.wait_applied(leader.commit_index)
        assert await behind.state() == await leader.state()
        assert all(node.status().stopped_because is None for node in nodes)


async def leader_of_the_newest_term(nodes: Sequence[RaftNode]) -> RaftNode:
    async with asyncio.timeout(10):
        while True:
            newest = max(nodes, key=lambda node: node.term)
            for node in nodes:
                if node.is_leader and node.term == newest.term:
                    return node
            await asyncio.sleep(0.01)


async def test_a_wiped_node_is_refused_with_the_remedy() -> None:
    """Its peers know it with another data directory, so it stops and says what to do."""
    network = MemoryNetwork()
    async with memory_cluster(3, KeyValueStateMachine, network=network) as nodes:
        await wait_for_leader(nodes)
        await nodes[2].shutdown()
        wiped = RaftNode(
            RaftConfig(node_id=3),
            KeyValueStateMachine(),
            ["memory:1", "memory:2"],
            transport=MemoryTransport(network, "memory:3"),
        )
        await wiped.start()
        with pytest.raises(NodeStopped, match="another data directory") as caught:
            await wiped.wait_stopped()
        assert isinstance(caught.value.__cause__, WrongIdentity)
        with pytest.raises(NodeStopped):
            await wiped.wait_for_leader(1)


async def test_a_directory_of_another_cluster_is_refused() -> None:
    """Most of its listed peers are in another cluster."""
    network = MemoryNetwork()
    storage = MemoryLogStorage()
    stored = await storage.open(3)
    members = (Member(NodeId(2), "x:1"), Member(NodeId(3), "memory:3", "", stored.incarnation))
    await storage.form(cluster_id_of(members), first_state(Membership(members)))
    await storage.close()
    async with memory_cluster(2, KeyValueStateMachine, network=network) as nodes:
        await wait_for_leader(nodes)
        lost = RaftNode(
            RaftConfig(node_id=3),
            KeyValueStateMachine(),
            ["memory:1", "memory:2"],
            storage=storage,
            transport=MemoryTransport(network, "memory:3"),
        )
        await lost.start()
        with pytest.raises(NodeStopped, match="give this node its own data directory"):
            await lost.wait_stopped()


async def test_a_cluster_of_one_given_peers_is_refused() -> None:
    """Its data cannot become a member of something else by a flag."""
    storage = MemoryLogStorage()
    async with RaftNode(RaftConfig(node_id=1), KeyValueStateMachine(), storage=storage):
        pass
    node = RaftNode(
        RaftConfig(node_id=1),
        KeyValueStateMachine(),
        ["b:1"],
        storage=storage,
        transport=MemoryTransport(MemoryNetwork(), "a:1"),
    )
    with pytest.raises(FormationError, match="cluster of one node, and peers are listed"):
        await node.start()


async def test_peers_without_an_own_address_are_refused() -> None:
    """Nobody could reach this node."""
    with pytest.raises(FormationError, match="listen_address"):
        RaftNode(RaftConfig(node_id=1), KeyValueStateMachine(), ["b:1"])
    with pytest.raises(FormationError, match="node id 2 is listed twice"):
        RaftNode(RaftConfig(node_id=1), KeyValueStateMachine(), [(2, "b:1"), (2, "c:1")])
