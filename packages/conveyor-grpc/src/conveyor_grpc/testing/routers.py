"""Routers within one process: the real services, gRPC and state machine, an in-memory Raft.

The leader's duties belong to the router process; here a test does them when it wants them done
(`plan`), and position commits are proposed at once. So a test decides what has happened at each
moment, without waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from conveyor_grpc.server import Server, ServerOptions
from conveyor_grpc.services import ControlPlane, ControlPlaneOptions, add_services
from conveyor_grpc.services.control_plane import RouterNode
from conveyor_raft.config import RaftConfig
from conveyor_raft.machines.router import (
    PositionCommit,
    Refusal,
    RouterCommand,
    RouterState,
    RouterStateMachine,
)
from conveyor_raft.node import RaftNode
from conveyor_raft.transport.memory import MemoryNetwork, MemoryTransport
from conveyor_registry.planner import plan

PLANS_MAX = 16
LEADER_TIMEOUT_S = 10.0


class DirectCommitter:
    """Proposes each request's commits by themselves."""

    def __init__(self) -> None:
        self.plane: ControlPlane | None = None

    async def commit(
        self, commits: Sequence[PositionCommit]
    ) -> tuple[int, Sequence[Refusal | None]]:
        """Return the revision after the commits and why each was refused, if it was."""
        assert self.plane is not None
        outcome = await self.plane.propose(RouterCommand.CommitPositions(commits=tuple(commits)))
        refused = {refusal.position: refusal for refusal in outcome.refused}
        return outcome.revision, [refused.get(position) for position in range(len(commits))]


@dataclass(slots=True)
class InProcessRouter:
    """One router of a cluster within this process."""

    server: Server
    plane: ControlPlane

    @property
    def address(self) -> str:
        """Where its services are."""
        return self.server.address

    @property
    def node(self) -> RouterNode:
        """Its Raft node."""
        return self.plane.node

    async def state(self) -> RouterState:
        """Return what it has applied."""
        return await self.plane.node.state()

    async def plan(self) -> None:
        """Do the planner's duty until nothing is left to propose."""
        for _ in range(PLANS_MAX):
            commands = plan(await self.state(), None, self.plane.wall_ms())
            if not commands:
                return
            for command in commands:
                await self.plane.propose(command)
        raise AssertionError("the plan does not settle")


def _raft_config(node_id: int, client_address: str, *, alone: bool) -> RaftConfig:
    return RaftConfig(
        node_id=node_id,
        election_timeout_min_ms=100,
        election_timeout_max_ms=200,
        heartbeat_interval_ms=20,
        listen_address=None if alone else f"memory-{node_id}:1",
        client_address=client_address,
    )


@asynccontextmanager
async def router_cluster(
    size: int = 1,
    *,
    options: ControlPlaneOptions | None = None,
    server_options: ServerOptions | None = None,
) -> AsyncIterator[list[InProcessRouter]]:
    """Start `size` routers; yield them, the leader first, when it answers."""
    network = MemoryNetwork()
    addresses = [f"memory-{node_id}:1" for node_id in range(1, size + 1)]
    async with asyncio.TaskGroup() as feeds, AsyncExitStack() as stack:
        routers = []
        for node_id, address in enumerate(addresses, start=1):
            server = Server("127.0.0.1:0", server_options)
            client_address = await server.bind()
            stack.push_async_callback(server.stop, 0)
            config = _raft_config(node_id, client_address, alone=size == 1)
            peers = [other for other in addresses if other != address]
            node: RouterNode = RaftNode(
                config, RouterStateMachine(), peers, transport=MemoryTransport(network, address)
            )
            committer = DirectCommitter()
            plane = ControlPlane(node, committer, options or ControlPlaneOptions())
            committer.plane = plane
            add_services(server, plane)
            await server.start()
            await node.start()
            stack.push_async_callback(node.shutdown)
            stack.callback(feeds.create_task(plane.feed.run()).cancel)
            routers.append(InProcessRouter(server, plane))
        leader = await _leader_of(routers)
        yield [leader, *(router for router in routers if router is not leader)]


async def _leader_of(routers: Sequence[InProcessRouter]) -> InProcessRouter:
    """Wait for a leader and let it begin; it may change while nobody has begun."""
    async with asyncio.timeout(LEADER_TIMEOUT_S):
        while True:
            for router in routers:
                await router.node.wait_for_leader()
                if router.node.is_leader:
                    await router.plane.begin_leading()
                    await router.server.set_ready(True)
                    return router
            await asyncio.sleep(0.01)
