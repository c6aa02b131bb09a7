"""A real server on a real port, with a client that plays the sidecar's part."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conveyor_sdk import ServeError, Server, sink, source, transform
from conveyor_sdk.ports import candidate_ports, is_free
from conveyor_sdk.wire import (
    info_pb2,
    info_pb2_grpc,
    record_pb2,
    sink_pb2,
    sink_pb2_grpc,
    source_pb2,
    source_pb2_grpc,
    transform_pb2,
    transform_pb2_grpc,
)


@contextlib.asynccontextmanager
async def served(*services, drain=5.0):
    """Serve on a free port; yield the server and a channel to it."""
    async with (
        Server(services, drain=drain) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield server, channel


def named(word, **options):
    """Return a service with a simple handler."""

    async def reads(resume):
        for number in range(resume or 0, 5):
            yield number, number

    if word == "source":
        return source(name="numbers", bounded=True, stable_offsets=True)(reads)
    if word == "sink":
        return sink(name="kept", **options)(lambda value: None)
    return transform(name="doubled", **options)(lambda value: value * 2)


def request_of(*values, service="", batch_id=0):
    records = [record_pb2.Record(payload=str(value).encode()) for value in values]
    call = record_pb2.Call(service=service)
    return transform_pb2.TransformRequest(call=call, records=records, batch_id=batch_id)


@pytest.mark.asyncio
async def test_describe_and_reflection_say_the_same_and_no_more():
    """Reflection lists what is implemented; Describe is the authority on it."""
    async with served(named("transform"), named("sink")) as (_, channel):
        described = await info_pb2_grpc.ServiceInfoStub(channel).Describe(
            info_pb2.DescribeRequest(), timeout=5
        )
        assert [(s.name, s.kind) for s in described.services] == [
            ("doubled", info_pb2.KIND_TRANSFORM),
            ("kept", info_pb2.KIND_SINK),
        ]
        assert described.sdk.startswith("conveyor-sdk-python/")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(timeout=5)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = {s.name for s in (await call.read()).list_services_response.service}
        assert listed == {
            "conveyor.service.v1.Transform",
            "conveyor.service.v1.Sink",
            "conveyor.service.v1.ServiceInfo",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            read = source_pb2_grpc.SourceStub(channel).Read(timeout=5)
            await read.write(source_pb2.ReadRequest())
            await read.read()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.asyncio
async def test_unary_and_streamed_calls():
    """Both forms answer, by batch_id; several services live in one process."""
    tripled = transform(name="tripled")(lambda value: value * 3)
    async with served(named("transform"), tripled, named("sink")) as (_, channel):
        stub = transform_pb2_grpc.TransformStub(channel)
        answer = await stub.Process(request_of(1, 2, service="doubled"), timeout=5)
        assert [r.payload for r in answer.records] == [b"2", b"4"]
        stream = stub.ProcessStream(timeout=5)
        for number in range(1, 101):
            await stream.write(request_of(number, service="tripled", batch_id=number))
        await stream.done_writing()
        answers = {a.batch_id: a.records[0].payload async for a in stream}
        assert answers == {n: str(3 * n).encode() for n in range(1, 101)}
        written = await sink_pb2_grpc.SinkStub(channel).Write(sink_pb2.SinkRequest(), timeout=5)
        assert not written.failures


@pytest.mark.asyncio
async def test_calls_that_make_no_sense_are_refused():
    """An unknown service is named with those that exist; a lineage that does not fit is invalid."""
    tripled = transform(name="tripled")(lambda value: value * 3)
    async with served(named("transform"), tripled) as (_, channel):
        stub = transform_pb2_grpc.TransformStub(channel)
        for service in ("other", ""):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Process(request_of(1, service=service), timeout=5)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert "there is: doubled, tripled" in caught.value.details()
        wrong = request_of(1, service="doubled")
        wrong.lineage = b"short"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Process(wrong, timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        stream = stub.ProcessStream(timeout=5)
        await stream.write(request_of(1, service="other"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.asyncio
async def test_a_source_over_the_wire():
    """Open, credit, batch, Finished, and the stream closes from both ends."""
    async with served(named("source")) as (_, channel):
        stream = source_pb2_grpc.SourceStub(channel).Read(timeout=5)
        opening = source_pb2.OpenPartition(partition="0", resume=(2).to_bytes(8, "big"))
        call = record_pb2.Call(service="numbers")
        await stream.write(source_pb2.ReadRequest(open=opening, call=call))
        credit = record_pb2.Credit(records_limit=100, bytes_limit=10**6)
        await stream.write(source_pb2.ReadRequest(credit=credit))
        assert [r.payload for r in (await stream.read()).batch.records] == [b"2", b"3", b"4"]
        assert (await stream.read()).finished.partition == "0"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


@pytest.mark.asyncio
async def test_a_blocking_handler_does_not_block_the_process():
    """While it runs, health and Describe answer; a second call waits for its place."""
    release = threading.Event()
    inside = []

    @transform(name="blocking")
    def blocking(value, ctx):
        inside.append(ctx.traceparent)
        release.wait(20)
        inside.pop()
        return len(inside)

    async with served(blocking) as (server, channel):
        stub = transform_pb2_grpc.TransformStub(channel)
        metadata = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
        calls = [
            asyncio.ensure_future(stub.Process(request_of(1), timeout=20, metadata=metadata))
            for _ in range(3)
        ]
        while not inside:
            await asyncio.sleep(0)
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "conveyor.service.v1.Transform"):
            status = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert status.status == health_pb2.HealthCheckResponse.SERVING
        await info_pb2_grpc.ServiceInfoStub(channel).Describe(info_pb2.DescribeRequest(), timeout=5)
        assert [len(inside), server.workers.busy] == [1, 1]
        assert inside[0].startswith("00-0af7")
        release.set()
        for answer in await asyncio.gather(*calls):
            assert answer.records[0].payload == b"0"


@pytest.mark.asyncio
async def test_a_call_that_is_given_up_keeps_its_place_until_it_returns():
    """A handler declared for one call at a time is never entered twice."""
    release = threading.Event()
    entered = []

    @sink(name="stuck")
    def stuck(value):
        entered.append(value)
        release.wait(20)

    async with served(stuck) as (server, channel):
        stub = sink_pb2_grpc.SinkStub(channel)
        request = sink_pb2.SinkRequest(records=[record_pb2.Record(payload=b"1")])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Write(request, timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        again = asyncio.ensure_future(stub.Write(request, timeout=20))
        health = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert (len(entered), server.workers.busy) == (1, 1)
        release.set()
        assert not (await again).failures
        assert len(entered) == 2


@pytest.mark.asyncio
async def test_closing_finishes_calls_and_leaves_streams():
    """What was begun is answered; streams end with UNAVAILABLE; generators are closed."""
    release = threading.Event()
    inside = []
    closed = asyncio.Event()

    @transform(name="slow", concurrency=2)
    def slow(value):
        inside.append(value)
        release.wait(20)
        return value

    @source(name="endless")
    async def endless(resume):
        try:
            while True:
                yield 1, 1
                await asyncio.sleep(0)
        finally:
            closed.set()

    async with served(slow, endless, drain=20) as (server, channel):
        read = source_pb2_grpc.SourceStub(channel).Read(timeout=20)
        opening = source_pb2.OpenPartition(partition="0")
        await read.write(source_pb2.ReadRequest(open=opening))
        credit = record_pb2.Credit(records_limit=1, bytes_limit=10**6)
        await read.write(source_pb2.ReadRequest(credit=credit))
        assert (await read.read()).HasField("batch")
        stub = transform_pb2_grpc.TransformStub(channel)
        unary = asyncio.ensure_future(stub.Process(request_of(1), timeout=20))
        stream = stub.ProcessStream(timeout=20)
        await stream.write(request_of(2, batch_id=7))
        idle = source_pb2_grpc.SourceStub(channel).Read(timeout=20)
        while len(inside) < 2:
            await asyncio.sleep(0)
        closing = asyncio.create_task(server.close(20))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in caught.value.details()
        await asyncio.wait_for(closed.wait(), 10)
        assert not unary.done()
        release.set()
        assert (await unary).records[0].payload == b"1"
        assert (await stream.read()).batch_id == 7
        for left in (stream, idle):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await left.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await closing


@pytest.mark.asyncio
async def test_a_taken_port_is_an_error_with_a_remedy():
    """Neither a listener of another kind nor a second server of ours may share it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with pytest.raises(ServeError, match=f"port {port} of 127.0.0.1 is taken.*set PORT"):
            async with Server([named("sink")], ports=[port]):
                pass
        async with Server([named("sink")], ports=[port, 0]) as server:
            assert server.port != port
            with pytest.raises(ServeError, match=rf"all ports from {port} to {server.port}"):
                async with Server([named("sink")], ports=[port, server.port]):
                    pass


def test_what_cannot_be_served_is_said():
    """Nothing at all, or two services that no manifest could tell apart."""
    with pytest.raises(ServeError, match="nothing to serve"):
        Server([])
    one, two = named("sink"), named("sink")
    with pytest.raises(ServeError, match="two sinks are named 'kept'"):
        Server([one, two])
    Server([one, one, named("transform")])


def test_ports_come_from_the_environment():
    """PORT, else the discovery range; nonsense is named."""
    assert candidate_ports({}) == list(range(50051, 50061))
    assert candidate_ports({"PORT": "7000"}) == [7000]
    assert candidate_ports({"PORT": ""}) == list(range(50051, 50061))
    assert candidate_ports({"DISCOVERY_START_PORT": "1", "DISCOVERY_END_PORT": "2"}) == [1, 2]
    for environ, why in (
        ({"PORT": "http"}, "PORT='http' is not a port"),
        ({"PORT": "70000"}, "is not a port"),
        ({"DISCOVERY_START_PORT": "5", "DISCOVERY_END_PORT": "4"}, "not a range"),
        ({"DISCOVERY_START_PORT": "1", "DISCOVERY_END_PORT": "2000"}, "not a range"),
    ):
        with pytest.raises(ServeError, match=why):
            candidate_ports(environ)
    with pytest.raises(ServeError, match=r"cannot listen on 192\.0\.2\.1"):
        is_free("192.0.2.1", 0)
