"""One sidecar: its parts put together, and its life from start to deregistration.

Startup (bind the port, scan) → register → take the table → route records and
send heartbeats → drain → deregister. Everything here may fail to reach a router for as long as it
likes: records move, positions wait, the sidecar keeps trying.

The engine is made at the first registration, because the answer carries the cluster's buffer
limits; until then the data plane refuses lanes as "not yet". SIGTERM drains: producers are told to
choose others (through the routers), sources stop, what is open ends, positions are committed, all
within a bound; whatever is left then is still in the custody of its senders.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry

from conveyor_config import SidecarSettings, is_wildcard
from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.clients import CheckpointClient, SidecarClient
from conveyor_grpc.wire import sidecar_pb2, table_pb2
from conveyor_sidecar.cluster_client import (
    PositionCommitter,
    Registrar,
    SidecarIdentity,
    heartbeat_request,
)
from conveyor_sidecar.cluster_client.registration import (
    local_address,
    local_services,
    with_limits,
)
from conveyor_sidecar.cluster_client.session import ClusterSession
from conveyor_sidecar.core import effects, events
from conveyor_sidecar.core.engine import Engine
from conveyor_sidecar.core.options import EngineOptions
from conveyor_sidecar.core.statistics import EngineStatistics
from conveyor_sidecar.data_plane import DataPlane
from conveyor_sidecar.dead_letter_writer import DeadLetterWriter
from conveyor_sidecar.dead_letters import DeadLetterStore
from conveyor_sidecar.discovery import FoundProcess, PortScanner, Surroundings
from conveyor_sidecar.errors import SidecarError
from conveyor_sidecar.identity import DataDirectory, new_boot_id
from conveyor_sidecar.metrics import EngineCollector, MetricsServer
from conveyor_sidecar.owned_tasks import OwnedTasks
from conveyor_sidecar.performers import performers
from conveyor_sidecar.pump import Pump
from conveyor_sidecar.routing import (
    ClientPool,
    LocalRouter,
    RemoteRouter,
    RoutingTable,
    translate,
)
from conveyor_sidecar.tracing import table_span

logger = logging.getLogger(__name__)

_LAST_CALLS_S = 2.0
_STOP_GRACE_S = 1.0
_CONFLICT_HEARTBEATS = 3


class SidecarNode:
    """A sidecar in this process. ``run`` is its whole life.

    Args:
        settings: Checked; addresses that may not be bound were refused.
        directory: Open, so that nobody else has this identity.
    """

    def __init__(self, settings: SidecarSettings, directory: DataDirectory) -> None:
        self._settings = settings
        self._directory = directory
        self._identity = SidecarIdentity(
            sidecar_id=directory.sidecar_id(settings.sidecar_id),
            boot_id=str(new_boot_id()),
            pod_name=settings.pod_name,
            namespace=settings.namespace,
            version=version("conveyor-sidecar"),
        )
        self._table = RoutingTable()
        self._engine: Engine | None = None
        self._pump: Pump | None = None
        self._fatal: BaseException | None = None
        self._over = asyncio.Event()
        self._drained = asyncio.Event()
        self._tasks = OwnedTasks()
        self._draining = False
        self._records_max = 1
        self.endpoint = ""
        self.port = 0
        self.metrics_port: int | None = None

    async def run(
        self, stopping: asyncio.Event, on_started: Callable[[], None] = lambda: None
    ) -> None:
        """Live until ``stopping`` is set, then drain and leave.

        Args:
            stopping: Set by whoever wants the sidecar to end.
            on_started: Called once its ports are bound.

        Raises:
            SidecarError: it could not start, or it had to stop by itself.
        """
        async with AsyncExitStack() as stack:
            await self._assemble(stack)
            on_started()
            tasks = [
                asyncio.create_task(self._surroundings.watch(), name="discovery"),
                asyncio.create_task(self._session.run(), name="cluster session"),
            ]
            stack.push_async_callback(_end, tasks)
            stack.callback(self._stop_pump)
            await self._wait(stopping, tasks)
            if self._fatal is None:
                await self._leave()
            for task in tasks:
                if task.done() and not task.cancelled() and task.exception() is not None:
                    self._fatal = self._fatal or task.exception()
        if self._fatal is not None:
            raise SidecarError(f"the sidecar had to stop: {self._fatal!r}") from self._fatal

    async def _assemble(self, stack: AsyncExitStack) -> None:
        """Make the parts and bind the ports; what can refuse to start does so here."""
        settings, sidecar_id = self._settings, self._identity.sidecar_id
        limits = settings.data_plane
        # Foreign servers may hang up on those who ping them; beside us, a dead process is noticed.
        self._services = ClientPool(message_bytes_max=limits.max_message_size, keepalive_ms=None)
        stack.push_async_callback(self._services.close)
        self._peers = ClientPool(message_bytes_max=limits.max_message_size)
        stack.push_async_callback(self._peers.close)
        self._store = DeadLetterStore(self._directory.dead_letters)
        await self._store.load()
        stack.push_async_callback(self._store.close)
        self._letters = DeadLetterWriter(self._store, self._table, self._post)
        stack.push_async_callback(self._letters.close)
        self._local = LocalRouter(
            self._services,
            self._table,
            self._post,
            sidecar_id=sidecar_id,
            on_withdrawn=self._on_withdrawn,
        )
        stack.push_async_callback(self._local.close)
        self._remote = RemoteRouter(self._peers, self._post)
        stack.push_async_callback(self._remote.close)
        self._data_plane = DataPlane(
            self._post,
            settings.listen_address,
            message_bytes_max=limits.max_message_size,
            streams_max=limits.connections_max,
        )
        self.port = await self._data_plane.start()
        stack.push_async_callback(self._data_plane.stop, _STOP_GRACE_S)
        stack.push_async_callback(self._tasks.close)
        if settings.metrics_port is not None:
            await self._serve_metrics(stack, settings.metrics_port)
        self._join_cluster(stack)
        self._surroundings = self._look_around()
        logger.info(
            "sidecar %s listens on port %d and looks for services on ports %d to %d",
            sidecar_id,
            self.port,
            settings.discovery_start_port,
            settings.discovery_end_port,
        )

    def _join_cluster(self, stack: AsyncExitStack) -> None:
        """The clients of the routers, and the session over them."""
        settings = self._settings
        channel = LeaderChannel(settings.cluster_endpoint)
        stack.push_async_callback(channel.close)
        client = SidecarClient(channel)
        self._committer = PositionCommitter(
            CheckpointClient(channel),
            self._table,
            self._post,
            sidecar_id=self._identity.sidecar_id,
        )
        stack.push_async_callback(self._committer.close)
        self._registrar = Registrar(client, self._identity)
        self._session = ClusterSession(
            client,
            self._identity,
            self._registrar,
            heartbeat_interval_s=settings.heartbeat_interval_secs,
            endpoint=self._advertised,
            processes=lambda: self._surroundings.processes,
            heartbeat=self._heartbeat,
            on_registered=self._on_registered,
            on_table=self._on_table,
        )

    async def _serve_metrics(self, stack: AsyncExitStack, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(EngineCollector(self._statistics, self._shell_statistics))
        server = MetricsServer(registry, lambda: self.is_ready)
        self.metrics_port = await server.start(self._settings.bind_host, port)
        stack.push_async_callback(server.stop)

    @property
    def is_ready(self) -> bool:
        """Whether the sidecar has a table and is not about to leave."""
        return not self._draining and self._session.assignments.has_table

    async def _wait(self, stopping: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
        """Until somebody wants the sidecar to stop, or it cannot go on."""
        waiting = [asyncio.create_task(event.wait()) for event in (stopping, self._over)]
        await asyncio.wait([*waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        await _end(waiting)

    async def _leave(self) -> None:
        """Drain within the bound, then deregister."""
        self._draining = True
        await self._data_plane.set_serving(False)
        if not self._session.is_registered:
            return
        await self._session.announce_drain(_LAST_CALLS_S)
        if self._pump is not None:
            self._pump.post(events.Drain())
            bound_s = self._settings.data_plane.drain_timeout_ms / 1000
            try:
                async with asyncio.timeout(bound_s):
                    await self._drained.wait()
                logger.info("drained: nothing is open and every position is committed")
            except TimeoutError:
                logger.warning("not drained within %.0f s; senders keep what is open", bound_s)
        self._stop_pump()
        await self._session.leave(_LAST_CALLS_S)

    def _look_around(self) -> Surroundings:
        """The discovery of services on the configured ports, but for our own."""
        settings = self._settings
        scanner = PortScanner(
            settings.discovery_start_port,
            settings.discovery_end_port,
            skip_ports={self.port} | ({self.metrics_port} if self.metrics_port else set()),
            probe_deadline_ms=settings.discovery.probe_timeout_ms,
        )
        return Surroundings(
            scanner,
            interval_s=settings.discovery.interval_ms / 1000,
            changed=self._on_surroundings,
            after_round=self._after_scan,
        )

    def _on_surroundings(self, gone: tuple[FoundProcess, ...]) -> None:
        """Something came or went: tell the routers, and forget why what went was withdrawn."""
        for process in gone:
            for service in local_services(self._identity.sidecar_id, process):
                if self._registrar.restore(service.service_id):
                    self._local.restore(service.service_id)
        self._session.register_soon()

    async def _after_scan(self) -> None:
        """Close connections that the table no longer names; ask again for what others hold."""
        await self._services.retain(self._table.routes.service_endpoints)
        await self._peers.retain(self._table.routes.peer_endpoints)
        patience_s = _CONFLICT_HEARTBEATS * self._settings.heartbeat_interval_secs
        if self._registrar.conflicts and self._registrar.age_s > patience_s:
            self._session.register_soon()  # whoever holds our services may have left

    async def _advertised(self) -> str:
        """Where other sidecars reach this one."""
        if not self.endpoint:
            address = self._settings.advertise_address
            if address is None and is_wildcard(self._settings.listen_address):
                address = await local_address(self._settings.cluster_endpoint[0])
            host = address or self._settings.bind_host
            bare_ipv6 = ":" in host and not host.startswith("[")
            self.endpoint = f"[{host}]:{self.port}" if bare_ipv6 else f"{host}:{self.port}"
        return self.endpoint

    def _on_registered(self, response: sidecar_pb2.RegisterSidecarResponse) -> None:
        """The first time: make the engine, with the limits that the cluster hands out."""
        if self._engine is not None:
            return
        limits = self._settings.data_plane
        options = EngineOptions(
            sidecar_id=self._identity.sidecar_id,
            boot_id=self._identity.boot_id,
            retained_bytes_max=limits.retained_bytes_max,
            resume_ms=limits.resume_timeout_ms,
        )
        if response.HasField("buffer"):
            options = with_limits(options, response.buffer)
        self._records_max = options.records_max
        self._engine = Engine(options, random.Random())
        self._pump = Pump(
            self._engine,
            links=(self._remote, self._data_plane),
            perform=performers(
                self._local,
                self._remote,
                self._letters,
                self._committer,
                completed=self._on_partition_completed,
                drained=lambda _: self._drained.set(),
            ),
            on_fatal=self._on_fatal,
        )
        self._data_plane.open()

    def _on_table(self, table: table_pb2.SidecarTable) -> None:
        """Put a table in force, in one step."""
        with table_span(table.revision):
            new = translate(table)
            self._table.swap(new)
            self._local.update(new.services)
            self._post(events.TableChanged(new.table))
        if not self._draining:
            self._tasks.start(self._data_plane.set_serving(True), "serving")
        logger.info(
            "table of revision %d is in force: %s",
            table.revision,
            ", ".join(new.table.pipelines) or "no pipelines",
        )

    def _stop_pump(self) -> None:
        """Nothing that still comes in while the parts close starts anything new."""
        if self._pump is not None:
            self._pump.stop()

    def _post(self, event: events.Event) -> None:
        if self._pump is not None:
            self._pump.post(event)

    def _on_withdrawn(self, service_id: str, reason: str) -> None:
        self._registrar.withdraw(service_id, reason)
        self._session.register_soon()

    def _on_partition_completed(self, effect: effects.PartitionCompleted) -> None:
        logger.info("partition %s is finished and all of it has ended", "/".join(effect.partition))
        self._session.heartbeat_soon()

    def _on_fatal(self, error: BaseException) -> None:
        self._fatal = error
        self._over.set()

    def _statistics(self) -> EngineStatistics | None:
        if self._engine is None:
            return None
        return self._engine.statistics(int(asyncio.get_running_loop().time() * 1000))

    def _shell_statistics(self) -> dict[str, float]:
        """What the shell counts itself, under the names of its metrics."""
        letters = self._store.statistics()
        pump = self._pump
        return {
            "ready": float(self.is_ready),
            "registered": float(self._session.is_registered),
            "registrations_total": self._registrar.registrations_total,
            "conflicting_services": len(self._registrar.conflicts),
            "processes_found": len(self._surroundings.processes),
            "services_up": len(self._local.up),
            "links_out": self._remote.links,
            "links_in": self._data_plane.links,
            "source_streams": self._local.sources.open_streams,
            "events_total": pump.events_total if pump else 0,
            "effects_total": pump.effects_total if pump else 0,
            "positions_committed_total": self._committer.committed_total,
            "position_commits_failed_total": self._committer.failed_total,
            "dead_letters_stored_total": letters["stored_total"],
            "dead_letters_bytes": letters["bytes"],
            "dead_letter_segments_expired_total": letters["expired_segments_total"],
        }

    def _heartbeat(self, revision_applied: int) -> sidecar_pb2.SidecarHeartbeatRequest:
        return heartbeat_request(
            self._identity,
            revision_applied=revision_applied,
            statistics=self._statistics(),
            records_max=self._records_max,
            dead_letters=self._store.held(),
            last_errors=self._local.calls.last_errors,
        )


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel and wait until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
