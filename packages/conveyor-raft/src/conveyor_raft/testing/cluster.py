"""Whole clusters in one process, for the tests of whatever is built on conveyor-raft.

async with memory_cluster(3, KeyValueStateMachine) as nodes:
    leader = await wait_for_leader(nodes)
    await leader.propose(...)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from conveyor_raft.config import RaftConfig
from conveyor_raft.machines.base import StateMachine
from conveyor_raft.node import RaftNode
from conveyor_raft.transport.memory import MemoryNetwork, MemoryTransport

C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S")

PATIENT = {"election_timeout_min_ms": 300, "election_timeout_max_ms": 600}


@asynccontextmanager
async def memory_cluster(
    count: int,
    state_machine_factory: Callable[[], StateMachine[C, R, S]],
    *,
    network: MemoryNetwork | None = None,
    **settings: Any,
) -> AsyncIterator[list[RaftNode[C, R, S]]]:
    """Start `count` nodes with logs and links in memory; their ids begin at 1.

    `settings` are fields of `RaftConfig`; election timeouts are doubled unless set, because the
    nodes share one event loop with whatever the test does. `network` allows to cut nodes off. The
    node with the id n has the raft address `memory:n` and, unless set, the client address
    `client:n`.
    """
    network = network or MemoryNetwork()
    addresses = {node_id: f"memory:{node_id}" for node_id in range(1, count + 1)}
    async with AsyncExitStack() as stack:
        nodes = []
        for node_id, address in addresses.items():
            fields = {
                "client_address": f"client:{node_id}",
                **PATIENT,
                **settings,
                "node_id": node_id,
            }
            transport = MemoryTransport(network, address)
            node = RaftNode(
                RaftConfig(**fields), state_machine_factory(), addresses, transport=transport
            )
            nodes.append(await stack.enter_async_context(node))
        yield nodes


async def wait_for_leader(
    nodes: Sequence[RaftNode[C, R, S]], timeout: float = 10.0
) -> RaftNode[C, R, S]:
    """Return the leader once every node follows it."""
    async with asyncio.timeout(timeout):
        while True:
            members = [await node.wait_for_leader() for node in nodes]
            leaders = {member.node_id for member in members}
            leader = next((node for node in nodes if node.is_leader), None)
            if leader is not None and leaders == {leader.node_id}:
                return leader
            await asyncio.sleep(0.01)
