"""Fixtures shared by the sidecar's tests: real servers on free ports, real sidecars."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from grpc_reflection.v1alpha import reflection

from conveyor_config import SidecarSettings, load_settings
from conveyor_grpc.wire import (
    checkpoint_pb2,
    checkpoint_pb2_grpc,
    sidecar_pb2,
    sidecar_pb2_grpc,
    table_pb2,
)
from conveyor_registry.model import Pipeline
from conveyor_sdk.wire import info_pb2, info_pb2_grpc
from conveyor_sidecar.identity import DataDirectory
from conveyor_sidecar.node import SidecarNode

Start = Callable[..., Awaitable[int]]


class Info(info_pb2_grpc.ServiceInfoServicer):
    """Describes what it is given."""

    def __init__(self, *services: info_pb2.ServiceDescription) -> None:
        self.services = services

    async def Describe(
        self, request: info_pb2.DescribeRequest, context: grpc.aio.ServicerContext
    ) -> info_pb2.DescribeResponse:
        return info_pb2.DescribeResponse(services=self.services, sdk="test 1")


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Start]:
    """Start gRPC servers: ``await serve(listed, describe=..., add=..., port=...)`` -> port."""
    servers: list[grpc.aio.Server] = []

    async def start(
        listed: Sequence[str] | None,
        describe: Sequence[info_pb2.ServiceDescription] | None = None,
        add: Callable[[grpc.aio.Server], None] | None = None,
        port: int = 0,
    ) -> int:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        if describe is not None:
            info_pb2_grpc.add_ServiceInfoServicer_to_server(Info(*describe), server)
        if add is not None:
            add(server)
        if listed is not None:
            reflection.enable_server_reflection([*listed, reflection.SERVICE_NAME], server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        servers.append(server)
        start.servers[bound] = server  # type: ignore[attr-defined]
        return bound

    start.servers = {}  # type: ignore[attr-defined]
    yield start
    for server in servers:
        await server.stop(None)


@pytest.fixture
def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FakeRouter(
    sidecar_pb2_grpc.SidecarServiceServicer, checkpoint_pb2_grpc.CheckpointServiceServicer
):
    """A router of one, in memory: registrations, tables made by hand, positions."""

    def __init__(self) -> None:
        self.revision = 1
        self.sidecars: dict[str, sidecar_pb2.RegisterSidecarRequest] = {}
        self.left: list[str] = []
        self.drained: list[str] = []
        self.heartbeats: dict[str, sidecar_pb2.SidecarHeartbeatRequest] = {}
        self.pipelines: dict[str, tuple[Pipeline, int]] = {}
        self.terms: dict[tuple[str, str, int], int] = {}
        self.boots: dict[tuple[str, str, int], str] = {}
        self.positions: dict[tuple[str, str, str], checkpoint_pb2.PositionCommit] = {}
        self.commits_total = 0
        self.commit_failures = 0
        self.fenced: set[tuple[str, str, str]] = set()
        self.port = 0
        self._changed = asyncio.Condition()

    async def changed(self) -> None:
        self.revision += 1
        async with self._changed:
            self._changed.notify_all()

    async def until(self, test: Callable[[], object], timeout_s: float = 20) -> None:
        """Wait until the routers' view satisfies the test."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: bool(test()))

    async def apply(self, document: dict[str, object]) -> str:
        pipeline = Pipeline.of(
            {"apiVersion": "conveyor/v1", "kind": "Pipeline", "metadata": {"name": "p"}, **document}
        )
        version = self.pipelines.get(pipeline.id, (None, 0))[1] + 1
        self.pipelines[pipeline.id] = (pipeline, version)
        await self.changed()
        return pipeline.id

    async def RegisterSidecar(self, request, context):
        response = sidecar_pb2.RegisterSidecarResponse()
        taken = {
            service.endpoint: name
            for name, sidecar in self.sidecars.items()
            for service in sidecar.services
            if name != request.sidecar_id
        }
        for service in list(request.services):
            if service.endpoint in taken:
                request.services.remove(service)
                response.conflicts.add(
                    service_id=service.service_id,
                    endpoint=service.endpoint,
                    held_by_sidecar_id=taken[service.endpoint],
                )
        self.sidecars[request.sidecar_id] = request
        await self.changed()
        response.revision = self.revision
        return response

    async def Heartbeat(self, request, context):
        self.heartbeats[request.sidecar_id] = request
        response = sidecar_pb2.SidecarHeartbeatResponse(revision=self.revision)
        if request.sidecar_id not in self.sidecars:
            response.commands.add().re_register.reason = "unknown"
        async with self._changed:
            self._changed.notify_all()
        return response

    async def WatchTable(self, request, context):
        seen = -1
        while True:
            if self.revision != seen:
                seen = self.revision
                present = self.sidecars.get(request.sidecar_id)
                known = present is not None and present.boot_id == request.boot_id
                update = sidecar_pb2.TableUpdate(revision=seen, registered=known)
                if known:
                    update.table.CopyFrom(self.table(request.sidecar_id))
                yield update
            async with self._changed:
                await self._changed.wait_for(lambda seen=seen: self.revision != seen)

    async def DrainSidecar(self, request, context):
        self.drained.append(request.sidecar_id)
        return sidecar_pb2.DrainSidecarResponse(revision=self.revision)

    async def DeregisterSidecar(self, request, context):
        existed = self.sidecars.pop(request.sidecar_id, None) is not None
        self.left.append(request.sidecar_id)
        await self.changed()
        return sidecar_pb2.DeregisterSidecarResponse(existed=existed)

    async def CommitPositions(self, request, context):
        if self.commit_failures:
            self.commit_failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no leader")
        response = checkpoint_pb2.CommitPositionsResponse(revision=self.revision)
        for commit in request.commits:
            key = (commit.pipeline, commit.stage, commit.partition)
            if key in self.fenced:
                response.results.add(
                    outcome=checkpoint_pb2.COMMIT_OUTCOME_FENCED, current_term=commit.term + 1
                )
                continue
            self.positions[key] = commit
            response.results.add(outcome=checkpoint_pb2.COMMIT_OUTCOME_COMMITTED)
        self.commits_total += 1
        async with self._changed:
            self._changed.notify_all()
        return response

    def table(self, sidecar_id: str) -> table_pb2.SidecarTable:
        table = table_pb2.SidecarTable(
            revision=self.revision,
            sidecar_id=sidecar_id,
            boot_id=self.sidecars[sidecar_id].boot_id,
        )
        for pipeline, version in self.pipelines.values():
            entry = table.pipelines.add(
                pipeline=pipeline.id,
                version=version,
                manifest=pipeline.canonical(),
                phase="Running",
            )
            for stage in pipeline.stages:
                self._assign(entry, pipeline.id, stage, sidecar_id)
        return table

    def _assign(self, entry, pipeline_id, stage, sidecar_id) -> None:
        offers = [
            (sidecar, service)
            for _, sidecar in sorted(self.sidecars.items())
            for service in sidecar.services
            if service.description.name == stage.service
        ]
        for index, (sidecar, service) in enumerate(offers):
            key = (pipeline_id, stage.id, index)
            owner = f"{sidecar.sidecar_id} {sidecar.boot_id}"
            if self.boots.get(key) != owner:
                self.boots[key] = owner
                self.terms[key] = self.terms.get(key, 0) + 1
            entry.instances.add(
                stage=stage.id,
                index=index,
                term=self.terms[key],
                sidecar_id=sidecar.sidecar_id,
                boot_id=sidecar.boot_id,
                sidecar_endpoint=sidecar.endpoint,
                service_id=service.service_id,
                service_endpoint=service.endpoint,
                capabilities=service.description,
            )
            if stage.source and index == 0 and sidecar.sidecar_id == sidecar_id:
                for partition in service.description.partitions or ["0"]:
                    self._own(entry, stage.id, partition, self.terms[key])

    def _own(self, entry, stage_id, partition, term) -> None:
        known = self.positions.get((entry.pipeline, stage_id, partition))
        owned = entry.partitions.add(stage=stage_id, partition=partition, term=term)
        if known is not None:
            owned.next_ordinal = known.ordinal
            owned.finished = known.finished
            if known.position:
                owned.resume_position = known.position


@pytest_asyncio.fixture
async def router(serve: Start) -> FakeRouter:
    """A fake router that serves."""
    fake = FakeRouter()

    def add(server: grpc.aio.Server) -> None:
        sidecar_pb2_grpc.add_SidecarServiceServicer_to_server(fake, server)
        checkpoint_pb2_grpc.add_CheckpointServiceServicer_to_server(fake, server)

    fake.port = await serve(["conveyor.control.v1.SidecarService"], add=add)
    return fake


@dataclass
class Running:
    """A sidecar in this process."""

    settings: SidecarSettings
    stopping: asyncio.Event
    bound: asyncio.Event
    task: asyncio.Task[None] = None  # type: ignore[assignment]

    async def live(self) -> None:
        with DataDirectory(self.settings.data_directory) as directory:
            node = SidecarNode(self.settings, directory)
            await node.run(self.stopping, on_started=self.bound.set)

    async def stop(self) -> None:
        self.stopping.set()
        await self.task

    async def kill(self) -> None:
        """End it without a drain, as a crash would."""
        self.task.cancel()
        await asyncio.wait([self.task])


@pytest_asyncio.fixture
async def sidecar(
    router: FakeRouter, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Start sidecars: ``await sidecar("a", port_of_service)``."""
    running: list[Running] = []

    async def start(name: str, first: int, last: int | None = None, **more: str) -> Running:
        settings = load_settings(
            SidecarSettings,
            environ={
                "SIDECAR_ID": name,
                "CLUSTER_ENDPOINT": f"127.0.0.1:{router.port}",
                "GRPC_PORT": "0",
                "DISCOVERY_START_PORT": str(first),
                "DISCOVERY_END_PORT": str(last or first),
                "HEARTBEAT_INTERVAL_SECS": "0.2",
                "CONVEYOR_DATA_DIR": str(tmp_path / name),
                "CONVEYOR_DISCOVERY__INTERVAL_MS": "100",
                "CONVEYOR_DATA_PLANE__RESUME_TIMEOUT_MS": "1000",
                "CONVEYOR_DATA_PLANE__DRAIN_TIMEOUT_MS": "5000",
                **more,
            },
        )
        one = Running(settings, asyncio.Event(), asyncio.Event())
        one.task = asyncio.create_task(one.live())
        running.append(one)
        return one

    yield start
    for one in running:
        if not one.task.done():
            await one.stop()
        elif not one.task.cancelled():
            one.task.exception()
