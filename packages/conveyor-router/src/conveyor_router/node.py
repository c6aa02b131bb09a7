"""One router: consensus, the gRPC services on top of it, and the leader's duties, put together
and taken apart.

Order of starting: the ports first (a taken port is the most likely mistake, and nothing has
happened yet), then the disk and Raft, then everything that follows Raft. Order of stopping:
readiness and streams first, so that sidecars go to another router, then calls, then Raft.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from conveyor_config import RouterSettings
from conveyor_grpc.server import Server, ServerOptions
from conveyor_grpc.services import add_services
from conveyor_grpc.services.control_plane import ControlPlane, ControlPlaneOptions, RouterNode
from conveyor_raft.machines.router import RouterStateMachine
from conveyor_raft.node import RaftNode
from conveyor_router.duties.checkpointer import Checkpointer
from conveyor_router.duties.planner import Planner
from conveyor_router.duties.reaper import reap
from conveyor_router.leadership import Leadership
from conveyor_router.metrics import StatusPages, has_leader

STOP_GRACE_S = 1.0
STOP_MAX_S = 20.0

_log = logging.getLogger(__name__)


class RouterProcess:
    """A router that runs until it is told to stop, or its node stops by itself."""

    def __init__(self, settings: RouterSettings, *, version: str) -> None:
        self._settings = settings
        self._version = version
        self._server = Server(settings.listen_addr, _server_options(settings))

    async def run(self, stopping: asyncio.Event) -> None:
        """Start, serve until `stopping` is set, stop.

        Raises:
            InsecureBindRefused: an address that others could reach, without certificates.
            ListenError: a port is taken.
            FormationError: the cluster cannot be formed or joined with what this node was told.
            StorageError: the data directory cannot be used.
            NodeStopped: the node stopped by itself.
        """
        self._settings.check_binds()
        async with contextlib.AsyncExitStack() as stack:
            address = await self._server.bind()
            stack.push_async_callback(self._server.stop, STOP_GRACE_S)
            node = self._node(address)
            committer = Checkpointer()
            plane = ControlPlane(node, committer, _plane_options(self._settings, self._version))
            add_services(self._server, plane)
            await self._server.start()
            if self._settings.metrics.listen_addr is not None:
                pages = StatusPages(
                    self._settings.metrics.listen_addr, plane, self._server.statistics
                )
                await stack.enter_async_context(pages)
                _log.info("metrics and readiness on http://%s", pages.address)
            await node.start()
            stack.push_async_callback(_stop_node, node)
            _log.info("router %d serves on %s, raft on %s", node.node_id, address, node.address)
            await self._follow(plane, committer, stopping)

    def _node(self, address: str) -> RouterNode:
        config = self._settings.raft_config()
        if self._settings.advertise_addr is None:
            config = config.model_copy(update={"client_address": address})
        return RaftNode(config, RouterStateMachine(), list(self._settings.peers))

    async def _follow(
        self, plane: ControlPlane, committer: Checkpointer, stopping: asyncio.Event
    ) -> None:
        """Run everything that follows Raft until one of the two ends comes."""
        interval_s = min(1.0, self._settings.registry.sidecar_lease_secs / 5)
        leadership = Leadership(
            plane,
            [
                Planner(plane).run,
                lambda: committer.run(plane),
                lambda: reap(plane, interval_s),
            ],
        )
        try:
            async with asyncio.TaskGroup() as group:
                followers = [
                    group.create_task(plane.feed.run(), name="feed"),
                    group.create_task(leadership.run(), name="leadership"),
                    group.create_task(self._tell_readiness(plane), name="readiness"),
                    group.create_task(plane.node.wait_stopped(), name="node"),
                ]
                await stopping.wait()
                await self._server.set_ready(False)
                for follower in followers:
                    follower.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        finally:
            plane.feed.close()

    async def _tell_readiness(self, plane: ControlPlane) -> None:
        """Keep the health service saying whether this router knows a leader."""
        said: bool | None = None
        while True:
            ready = has_leader(plane)
            if ready != said:
                await self._server.set_ready(ready)
                said = ready
                _log.info("ready" if ready else "not ready: no leader is known")
            await asyncio.sleep(READINESS_INTERVAL_S)


READINESS_INTERVAL_S = 0.1


async def _stop_node(node: RouterNode) -> None:
    try:
        async with asyncio.timeout(STOP_MAX_S):
            await node.shutdown()
    except TimeoutError:
        _log.error("the node did not stop within %s s", STOP_MAX_S)


def _server_options(settings: RouterSettings) -> ServerOptions:
    return ServerOptions(
        message_bytes_max=settings.grpc.max_message_size,
        keepalive_interval_s=int(settings.grpc.keepalive_interval_secs),
    )


def _plane_options(settings: RouterSettings, version: str) -> ControlPlaneOptions:
    registry, buffer = settings.registry, settings.buffer
    return ControlPlaneOptions(
        sidecar_heartbeat_ms=round(registry.sidecar_heartbeat_secs * 1000),
        sidecar_lease_ms=round(registry.sidecar_lease_secs * 1000),
        service_heartbeat_ms=round(registry.service_heartbeat_secs * 1000),
        service_lease_ms=round(registry.service_lease_secs * 1000),
        buffer_total_records_max=buffer.max_total_records,
        buffer_stage_records_max=buffer.max_per_stage,
        buffer_backpressure_threshold=buffer.backpressure_threshold,
        version=version,
    )
