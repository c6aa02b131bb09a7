"""A write that has begun is never abandoned: gRPC could not end the call otherwise."""

from __future__ import annotations

import asyncio

import pytest

from conveyor_sdk import source, transform
from conveyor_sdk.servicers import Handlers, SourceServicer, StreamedCalls
from conveyor_sdk.stream_writer import StreamWriter
from conveyor_sdk.transform import Transform
from conveyor_sdk.wire import record_pb2, source_pb2, transform_pb2
from conveyor_sdk.workers import Workers


class Transport:
    """A context as strict as gRPC: one write at a time, and no end while one is under way."""

    def __init__(self):
        self.release = asyncio.Event()
        self.begun = asyncio.Event()
        self.writing = False
        self.written = []
        self.status = None

    def invocation_metadata(self):
        return ()

    async def write(self, message):
        assert not self.writing, "two writes at a time"
        self.writing = True
        self.begun.set()
        await self.release.wait()
        self.writing = False
        self.written.append(message)

    async def abort(self, code, text):
        assert not self.writing, "ended while a write was under way"
        self.status = (code.name, text)
        raise RuntimeError("aborted")


async def settled():
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_cancelled_write_is_waited_for_by_the_next_and_by_the_end():
    """Cancelling stops the waiting, not the write; nothing overtakes it."""
    transport = Transport()
    writer = StreamWriter(transport.write)
    first = asyncio.create_task(writer.write("first"))
    await transport.begun.wait()
    first.cancel()
    await asyncio.wait({first})
    second = asyncio.create_task(writer.write("second"))
    end = asyncio.create_task(writer.settle())
    await settled()
    assert not end.done()
    assert transport.writing
    transport.release.set()
    await asyncio.gather(second, end)
    await writer.settle()
    assert transport.written == ["first", "second"]


@pytest.mark.asyncio
async def test_a_write_that_fails_fails_its_writer_alone():
    """The error is raised where the write is awaited, and settle does not repeat it."""

    async def broken(message):
        raise ConnectionError("gone")

    writer = StreamWriter(broken)
    with pytest.raises(ConnectionError):
        await writer.write("x")
    await writer.settle()


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.asyncio
async def test_a_sources_stream_ends_after_its_last_write(stops):
    """Whether the sidecar closes the stream or the process stops in the middle of a write."""

    @source
    async def endless(resume):
        while True:
            yield 1, 1
            await asyncio.sleep(0)

    transport = Transport()
    closed = asyncio.Event()

    async def requests():
        opening = source_pb2.OpenPartition(partition="0")
        yield source_pb2.ReadRequest(open=opening)
        credit = record_pb2.Credit(records_limit=10**6, bytes_limit=10**9)
        yield source_pb2.ReadRequest(credit=credit)
        await closed.wait()

    handlers = Handlers([endless], Workers([endless]))
    reading = asyncio.create_task(SourceServicer(handlers).read(requests(), transport))
    await transport.begun.wait()
    (handlers.stopping if stops else closed).set()
    await settled()
    assert not reading.done()
    transport.release.set()
    if stops:
        with pytest.raises(RuntimeError, match="aborted"):
            await asyncio.wait_for(reading, 10)
        assert transport.status == ("UNAVAILABLE", "the service is shutting down")
    else:
        await asyncio.wait_for(reading, 10)
        assert transport.status is None
    assert not transport.writing


@pytest.mark.asyncio
async def test_a_refused_request_ends_the_stream_after_the_write_under_way():
    """One bad request on a stream does not cut another's answer in two."""
    service = transform(name="kept")(lambda value: value)
    handlers = Handlers([service], Workers([service]))
    transport = Transport()

    async def requests():
        yield transform_pb2.TransformRequest(batch_id=1)
        await transport.begun.wait()
        yield transform_pb2.TransformRequest(call=record_pb2.Call(service="other"))
        await asyncio.Event().wait()

    serving = asyncio.create_task(StreamedCalls(handlers, Transform).serve(requests(), transport))
    await transport.begun.wait()
    await settled()
    assert not serving.done()
    transport.release.set()
    with pytest.raises(Exception, match="there is no transform 'other' here") as caught:
        await asyncio.wait_for(serving, 10)
    assert caught.value.code.name == "NOT_FOUND"
    assert len(transport.written) == 1
