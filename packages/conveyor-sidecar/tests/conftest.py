"""Fixtures shared by the sidecar's tests: real servers on free ports."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from grpc_reflection.v1alpha import reflection

from conveyor_sdk.wire import info_pb2, info_pb2_grpc

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
