"""What every Conveyor server has."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conveyor_grpc.errors import ListenError
from conveyor_grpc.server import Server

SERVICE = "conveyor.control.v1.RouterAdmin"


async def _unused(context: Any) -> Any:
    raise AssertionError


@pytest.mark.asyncio
async def test_readiness_is_told_by_service_and_life_by_the_process(serve: Any) -> None:
    """An orchestrator may restart what does not live, and routes only to what is ready."""
    server, _ = await serve(_unused)
    serving = health_pb2.HealthCheckResponse.SERVING
    waiting = health_pb2.HealthCheckResponse.NOT_SERVING
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def check(name: str) -> Any:
            return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status

        assert (await check(""), await check(SERVICE)) == (serving, waiting)
        await server.set_ready(True)
        assert (await check(""), await check(SERVICE)) == (serving, serving)
        await server.set_ready(False)
        assert await check(SERVICE) == waiting


@pytest.mark.asyncio
async def test_reflection_lists_the_services(serve: Any) -> None:
    """grpcurl and friends work without files."""
    server, _ = await serve(_unused)
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        await call.done_writing()
    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


@pytest.mark.asyncio
async def test_a_taken_port_is_refused_by_name(serve: Any) -> None:
    """Two processes never share a port by accident."""
    server, _ = await serve(_unused)
    second = Server(server.address)
    with pytest.raises(ListenError, match=server.address):
        await second.start()


@pytest.mark.asyncio
async def test_a_burst_beyond_grpcs_default_is_answered(serve: Any, found: Any) -> None:
    """Above a thousand pending calls grpc cancels at random by default; here all are answered."""

    async def answer(context: Any) -> Any:
        return found

    server, _ = await serve(answer)
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/Get", request_serializer=bytes, response_deserializer=bytes
        )
        answers = await asyncio.gather(*(call(b"", timeout=30) for _ in range(1_500)))
    assert len(answers) == 1_500
