"""Whole nodes with real ports and real files in one process: restarts, refusals, snapshots."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from conveyor_raft import (
    Corrupt,
    FormationError,
    KeyValueCommand,
    KeyValueStateMachine,
    ListenError,
    Locked,
    NodeStopped,
    RaftConfig,
    RaftNode,
    WrongIdentity,
)
from conveyor_raft.testing.cluster import wait_for_leader

pytestmark = pytest.mark.asyncio
put = KeyValueCommand.put
Start = Callable[..., RaftNode]


@pytest.fixture
def addresses() -> list[str]:
    """Three free addresses on loopback."""
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return found


@pytest.fixture
def make(tmp_path: Path, addresses: list[str]) -> Start:
    def node(node_id: int, *, directory: str | None = None, **settings: object) -> RaftNode:
        fields: dict[str, object] = {
            "node_id": node_id,
            "data_dir": tmp_path / (directory or f"n{node_id}"),
            "listen_address": addresses[node_id - 1],
            "client_address": f"client:{node_id}",
            "election_timeout_min_ms": 300,
            "election_timeout_max_ms": 600,
            **settings,
        }
        return RaftNode(RaftConfig(**fields), KeyValueStateMachine(), addresses)

    return node


@asynccontextmanager
async def running(*nodes: RaftNode) -> AsyncIterator[RaftNode]:
    """Start the nodes; yield the leader."""
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        yield await wait_for_leader(nodes, 20)


async def test_everything_is_there_after_a_restart_of_all(make: Start) -> None:
    """Acknowledged commands and the cluster survive; the members are those of the log."""
    async with running(*(make(n) for n in (1, 2, 3))) as leader:
        cluster_id = leader.cluster_id
        await leader.propose_many([put(f"{n}", b"x" * 200) for n in range(500)])
        await leader.propose(put("last", b"1"))
    nodes = [make(n) for n in (1, 2, 3)]
    async with running(*nodes) as leader:
        assert leader.cluster_id == cluster_id
        await leader.propose(put("after", b"1"))
        for node in nodes:
            await node.wait_applied(leader.commit_index, 10)
            assert len(await node.state()) == 502
            assert [m.client_address for m in node.members] == ["client:1", "client:2", "client:3"]


async def test_a_lagging_follower_is_installed_over_the_network(make: Start) -> None:
    """Down until its entries are gone from the log; a snapshot of many chunks brings it back."""
    settings = {"snapshot_interval_entries": 40, "snapshot_trailing_entries": 4}
    settings |= {"snapshot_chunk_bytes": 64 * 1024, "snapshot_spared_entries": 1}
    nodes = [make(n, **settings) for n in (1, 2, 3)]
    async with running(*nodes) as leader:
        behind = next(node for node in nodes if node is not leader)
        await behind.shutdown()
        for n in range(100):
            await leader.propose_many([put(f"{n}/{m}", b"x" * 5000) for m in range(3)])
        again = make(behind.node_id, **settings)
        async with again:
            await again.wait_for_leader(20)
            await leader.propose(put("last", b"1"))
            await again.wait_applied(leader.commit_index, 20)
            assert again.statistics()["snapshots_installed"] >= 1
            assert await again.state() == await leader.state()
        async with make(behind.node_id, **settings) as third:
            await third.wait_applied(leader.commit_index, 20)
            assert await third.state() == await leader.state()


async def test_a_failed_leader_is_replaced_and_catches_up(make: Start) -> None:
    """The leader leaves, two go on, it returns as a follower."""
    nodes = [make(n) for n in (1, 2, 3)]
    async with running(*nodes) as leader:
        await leader.propose(put("a", b"1"))
        await leader.shutdown()
        rest = [node for node in nodes if node is not leader]
        new = await wait_for_leader(rest, 20)
        await new.propose(put("b", b"2"))
        async with make(leader.node_id) as again:
            await again.wait_applied(new.commit_index, 20)
            assert await again.state() == {"a": b"1", "b": b"2"}


async def test_a_taken_port_is_refused(make: Start, addresses: list[str]) -> None:
    """And the data directory is free again afterwards."""
    with socket.socket() as held:
        host, port = addresses[0].split(":")
        held.bind((host, int(port)))
        held.listen()
        with pytest.raises(ListenError, match=addresses[0]):
            await make(1).start()
    node = make(1)
    await node.start()
    await node.shutdown()


async def test_a_locked_directory_is_refused(make: Start, addresses: list[str]) -> None:
    """Two processes on one directory would be one voter twice."""
    async with make(1):
        with pytest.raises(Locked, match="in use by the process"):
            await make(1, listen_address="127.0.0.1:0").start()


async def test_another_nodes_directory_is_refused(make: Start) -> None:
    """With the id that it belongs to."""
    async with running(*(make(n) for n in (1, 2, 3))):
        pass
    with pytest.raises(WrongIdentity, match="belongs to node 1, and this is node 2"):
        await make(2, directory="n1").start()


async def test_a_wiped_disk_is_refused(make: Start) -> None:
    """Its id is in the cluster, with another incarnation."""
    async with running(*(make(n) for n in (1, 2, 3))):
        pass
    nodes = [make(n) for n in (1, 2)]
    async with running(*nodes):
        wiped = make(3, directory="new")
        await wiped.start()
        with pytest.raises(NodeStopped, match="add it under a new id"):
            async with asyncio.timeout(10):
                await wiped.wait_stopped()


async def test_an_id_equal_to_a_peers_is_refused(make: Start, addresses: list[str]) -> None:
    """Two nodes were both told that they are node 1: both stop and say so."""
    nodes = [make(1), make(1, directory="other", listen_address=addresses[1])]
    async with nodes[0], nodes[1], asyncio.timeout(10):
        for node in nodes:
            with pytest.raises(NodeStopped, match="has the node id 1 as well"):
                await node.wait_stopped()


async def test_a_corrupted_log_row_keeps_the_node_from_starting(
    make: Start, tmp_path: Path
) -> None:
    """It says which entries, and the others go on without it."""
    async with running(*(make(n) for n in (1, 2, 3))) as leader:
        for n in range(20):
            await leader.propose(put(f"{n}", b"x"))
    with sqlite3.connect(tmp_path / "n3" / "raft.db") as database:
        ((first, frames),) = database.execute("SELECT first, frames FROM log ORDER BY 1 LIMIT 1, 1")
        damaged = bytearray(frames)
        damaged[-1] ^= 1
        database.execute("UPDATE log SET frames = ? WHERE first = ?", (bytes(damaged), first))
    database.close()
    with pytest.raises(Corrupt, match=f"entries {first} to"):
        await make(3).start()
    async with running(make(1), make(2)) as leader:
        assert len(await leader.state()) <= 20
        await leader.propose(put("on", b"1"))
        assert len(await leader.state()) == 21


async def test_a_directory_of_a_cluster_of_one_given_peers_is_refused(
    tmp_path: Path, addresses: list[str]
) -> None:
    """Stored membership wins, and one is not three."""
    config = RaftConfig(node_id=1, data_dir=tmp_path / "one", listen_address=addresses[0])
    async with RaftNode(config, KeyValueStateMachine()) as node:
        await node.propose(put("a", b"1"))
    async with RaftNode(config, KeyValueStateMachine()) as node:
        assert await node.state() == {"a": b"1"}
    with pytest.raises(FormationError, match="cluster of one"):
        await RaftNode(config, KeyValueStateMachine(), addresses).start()
    # Its own address alone is no peer.
    async with RaftNode(config, KeyValueStateMachine(), addresses[:1]) as node:
        assert node.is_leader


async def test_peers_by_id_give_the_listening_address(tmp_path: Path, addresses: list[str]) -> None:
    """The own entry among the peers is where the node listens."""
    peers = dict(enumerate(addresses, 1))
    nodes = [
        RaftNode(RaftConfig(node_id=n, data_dir=tmp_path / str(n)), KeyValueStateMachine(), peers)
        for n in peers
    ]
    async with running(*nodes) as leader:
        assert leader.address == peers[leader.node_id]
        await leader.propose(put("a", b"1"))
