"""One router, its clients, and a few words to register what a test needs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.clients import (
    CheckpointClient,
    RegistryClient,
    RouterAdminClient,
    SidecarClient,
)
from conveyor_grpc.testing import InProcessRouter, router_cluster
from conveyor_grpc.wire import sidecar_pb2
from conveyor_sdk.wire import info_pb2


class Cluster:
    """A router with one channel and all clients."""

    def __init__(self, routers: list[InProcessRouter], channel: LeaderChannel) -> None:
        self.routers = routers
        self.leader = routers[0]
        self.channel = channel
        self.admin = RouterAdminClient(channel)
        self.sidecars = SidecarClient(channel)
        self.registry = RegistryClient(channel)
        self.checkpoints = CheckpointClient(channel)

    async def register(
        self, sidecar: str, *services: tuple[str, str], boot: str = "boot-1", **fields: Any
    ) -> Any:
        """Register a sidecar with services given as (kind, name)."""
        request = sidecar_pb2.RegisterSidecarRequest(
            sidecar_id=sidecar,
            boot_id=boot,
            endpoint=f"{sidecar}:9091",
            services=[self.local(sidecar, kind, name) for kind, name in services],
            **fields,
        )
        return await self.sidecars.register_sidecar(request)

    @staticmethod
    def local(sidecar: str, kind: str, name: str) -> sidecar_pb2.LocalService:
        number = info_pb2.Kind.Value(f"KIND_{kind.upper()}")
        description = info_pb2.ServiceDescription(name=name, kind=number)
        if number == info_pb2.KIND_SOURCE:
            description.bounded = True
            description.partitions.extend(["p0", "p1"])
        port = 50_000 + sum(name.encode())
        return sidecar_pb2.LocalService(
            service_id=f"{sidecar}-{name}", description=description, endpoint=f"127.0.0.1:{port}"
        )

    @staticmethod
    def pipeline(name: str = "flights", **spec: Any) -> bytes:
        """A pipeline document; by default source `in`, transform `mid`, sink `out`."""
        spec = spec or {"source": "in", "steps": ["mid"], "sink": "out"}
        document = {"apiVersion": "conveyor/v1", "kind": "Pipeline", "metadata": {"name": name}}
        return json.dumps({**document, "spec": spec}).encode()

    @staticmethod
    def transform(name: str, **spec: Any) -> bytes:
        document = {"apiVersion": "conveyor/v1", "kind": "Transform", "metadata": {"name": name}}
        return json.dumps({**document, "spec": spec}).encode()

    async def run_flights(self) -> None:
        """Register everything that `flights` needs, apply it, and plan it."""
        await self.register("a", ("source", "in"), ("transform", "mid"))
        await self.register("b", ("sink", "out"))
        await self.admin.apply([self.pipeline()])
        await self.leader.plan()


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with router_cluster() as routers, LeaderChannel([routers[0].address]) as channel:
        yield Cluster(routers, channel)


@pytest_asyncio.fixture
async def three() -> AsyncIterator[Cluster]:
    """Three routers; the channel knows only a follower."""
    async with router_cluster(3) as routers, LeaderChannel([routers[1].address]) as channel:
        yield Cluster(routers, channel)
