"""What happens around every call."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from conveyor_grpc import errors
from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.server import ServerOptions
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.admin_pb2_grpc import RouterAdminStub
from conveyor_grpc.wire.sidecar_pb2 import SidecarHeartbeatRequest
from conveyor_grpc.wire.sidecar_pb2_grpc import SidecarServiceStub

REQUEST = wire.GetRequest()


def get(channel: Any) -> Any:
    return RouterAdminStub(channel).Get


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("conveyor_grpc.interceptors._tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


@pytest.mark.asyncio
async def test_one_trace_covers_client_and_server(
    serve: Any, found: Any, spans: InMemorySpanExporter
) -> None:
    """The server's span is a child of the client's, and the handler runs inside of it."""
    inside: list[int] = []

    async def answer(context: Any) -> Any:
        inside.append(trace.get_current_span().get_span_context().trace_id)
        return found

    server, _ = await serve(answer)
    async with LeaderChannel([server.address]) as channel:
        await channel.call(get, REQUEST)
    at_server, at_client = sorted(spans.get_finished_spans(), key=lambda span: span.kind.value)
    assert at_server.kind is trace.SpanKind.SERVER
    assert at_client.kind is trace.SpanKind.CLIENT
    assert at_server.name == at_client.name == "conveyor.control.v1.RouterAdmin/Get"
    assert at_server.parent is not None
    assert at_server.parent.span_id == at_client.context.span_id
    assert inside == [at_client.context.trace_id]


@pytest.mark.asyncio
async def test_what_comes_all_the_time_is_not_traced(
    serve: Any, spans: InMemorySpanExporter
) -> None:
    """Heartbeats and probes would bury everything else."""
    server, _ = await serve(None)
    async with LeaderChannel([server.address]) as channel:
        with pytest.raises(errors.ControlError):
            await channel.call(
                lambda one: SidecarServiceStub(one).Heartbeat,
                SidecarHeartbeatRequest(),
                timeout_s=0.5,
            )
        await channel.call(lambda one: HealthStub(one).Check, HealthCheckRequest())
    assert not spans.get_finished_spans()


@pytest.mark.asyncio
async def test_calls_are_counted_by_method_and_code(serve: Any, found: Any) -> None:
    """What a process shows as metrics."""
    answers: list[Any] = [found, errors.RefusedError("no"), KeyError("a bug")]

    async def answer(context: Any) -> Any:
        value = answers.pop(0)
        if isinstance(value, Exception):
            raise value
        return value

    server, _ = await serve(answer)
    async with LeaderChannel([server.address]) as channel:
        await channel.call(get, REQUEST)
        for kind in (errors.RefusedError, errors.InternalError):
            with pytest.raises(kind):
                await channel.call(get, REQUEST)
    assert server.statistics.calls == {
        ("Get", "ok"): 1,
        ("Get", "refused"): 1,
        ("Get", "internal"): 1,
    }
    assert server.statistics.seconds["Get"] > 0


@pytest.mark.asyncio
async def test_a_refusal_marks_the_spans(serve: Any, spans: InMemorySpanExporter) -> None:
    """Both ends show the failure."""

    async def answer(context: Any) -> Any:
        raise errors.RefusedError("no")

    server, _ = await serve(answer)
    async with LeaderChannel([server.address]) as channel:
        with pytest.raises(errors.RefusedError):
            await channel.call(get, REQUEST)
    assert [span.status.status_code.name for span in spans.get_finished_spans()] == ["ERROR"] * 2


@pytest.mark.asyncio
async def test_an_unforeseen_exception_is_internal_and_logged(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller learns no secrets, the log learns everything."""

    async def answer(context: Any) -> Any:
        raise KeyError("a detail of ours")

    server, _ = await serve(answer)
    with caplog.at_level(logging.ERROR):
        async with LeaderChannel([server.address]) as channel:
            with pytest.raises(errors.InternalError) as caught:
                await channel.call(get, REQUEST)
    assert "a detail of ours" not in caught.value.message
    assert "KeyError" in caplog.text


@pytest.mark.asyncio
async def test_calls_above_the_bound_are_told_to_come_back(serve: Any, found: Any) -> None:
    """A router refuses what it cannot hold, instead of queueing without a bound."""
    go, entered = asyncio.Event(), asyncio.Event()

    async def answer(context: Any) -> Any:
        entered.set()
        await go.wait()
        return found

    server, servicer = await serve(answer, ServerOptions(calls_max=1))
    async with grpc.aio.insecure_channel(server.address) as channel:
        first = asyncio.ensure_future(get(channel)(REQUEST, timeout=5))
        await entered.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(channel)(REQUEST, timeout=5)
        go.set()
        assert await first == found
    assert isinstance(errors.from_rpc_error(caught.value, "r"), errors.BusyError)
    assert servicer.calls == 1


@pytest.mark.asyncio
async def test_a_call_without_a_deadline_gets_one(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server caps what clients leave open."""
    monkeypatch.setattr("conveyor_grpc.interceptors.DEADLINE_MAX_S", 0.1)
    forever = asyncio.Event()

    async def hang(context: Any) -> Any:
        await forever.wait()

    server, _ = await serve(hang)
    async with grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(channel)(REQUEST)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
