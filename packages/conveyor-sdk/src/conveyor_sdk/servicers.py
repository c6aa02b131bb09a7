"""The gRPC services of a process, as thin as they can be: find the service that is meant, hand
over, hand back.

Answers of transforms and sinks are serialized where the handler ran, so they cross this file as
bytes.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import grpc

from conveyor_sdk.calls import CalledService, MalformedCall
from conveyor_sdk.context import context_of
from conveyor_sdk.definition import Service
from conveyor_sdk.failures import HANDLER_ERRORS
from conveyor_sdk.sink import Sink
from conveyor_sdk.source import Source
from conveyor_sdk.source_stream import SourceStream
from conveyor_sdk.stream_writer import StreamWriter
from conveyor_sdk.transform import Transform
from conveyor_sdk.wire import (
    info_pb2,
    info_pb2_grpc,
    record_pb2,
    sink_pb2,
    source_pb2,
    transform_pb2,
)
from conveyor_sdk.workers import Workers

STREAMED_CALLS_MAX = 64
"""Calls of one stream that are handled or wait at the same time."""
SHUTTING_DOWN = "the service is shutting down"

ServicerContext = grpc.aio.ServicerContext[Any, Any]
S = TypeVar("S", bound=Service)
T = TypeVar("T")


class Refusal(Exception):  # noqa: N818 - an answer to the caller
    """This call ends with a status. Raised where it is known, said where the call may be ended."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Handlers:
    """What the servicers of one server share."""

    def __init__(self, services: list[Service], workers: Workers) -> None:
        self.services = services
        self.workers = workers
        self.stopping = asyncio.Event()

    def find(self, kind: type[S], call: record_pb2.Call) -> S:
        """Return the service that a call means.

        Raises:
            Refusal: There is none.
        """
        services = [service for service in self.services if isinstance(service, kind)]
        if not call.service and len(services) == 1:
            return services[0]
        for service in services:
            if service.name == call.service:
                return service
        names = ", ".join(service.name for service in services)
        raise Refusal(
            grpc.StatusCode.NOT_FOUND,
            f"there is no {kind.__name__.lower()} {call.service!r} here; there is: {names}",
        )

    async def answer(
        self, kind: type[Transform] | type[Sink], request: Any, context: ServicerContext
    ) -> bytes:
        """Return the serialized answer to one request.

        Raises:
            Refusal: It makes no sense.
        """
        service: CalledService = self.find(kind, request.call)
        traceparent = _traceparent(context)
        try:
            return await self.workers.answer(service, partial(service.answer, request, traceparent))
        except MalformedCall as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

    async def until_stopping(self, serving: Awaitable[None]) -> None:
        """Serve a stream; when the process stops, leave it.

        Raises:
            Refusal: The process stops.
        """
        serve = asyncio.ensure_future(serving)
        stop = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({serve, stop}, return_when=asyncio.FIRST_COMPLETED)
            if serve.done():
                serve.result()
                return
        finally:
            stop.cancel()
            if not serve.done():
                serve.cancel()
                await asyncio.wait({serve})
        raise Refusal(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)


class StreamedCalls:
    """Calls that come on one stream: handled side by side, answered as they end."""

    def __init__(self, handlers: Handlers, kind: type[Transform] | type[Sink]) -> None:
        self._handlers = handlers
        self._kind = kind
        self._room = asyncio.Semaphore(STREAMED_CALLS_MAX)

    async def serve(self, requests: AsyncIterator[Any], context: ServicerContext) -> None:
        """Handle requests until the stream ends or the process stops; finish what was begun.

        A request that was not begun when the process stops is never answered, so the stream then
        ends with UNAVAILABLE: an end without error would look as if nothing were missing.

        Raises:
            Refusal: A request makes no sense, or the process stops.
        """
        stopping = asyncio.create_task(self._handlers.stopping.wait())
        writer = StreamWriter(context.write)
        try:
            async with asyncio.TaskGroup() as group:
                while (request := await self._following(requests, stopping)) is not None:
                    group.create_task(self._one(request, context, writer))
        except* Refusal as refused:
            raise refused.exceptions[0] from None
        finally:
            stopping.cancel()
            await writer.settle()
        if self._handlers.stopping.is_set():
            raise Refusal(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)

    async def _following(self, requests: AsyncIterator[Any], stopping: asyncio.Task[Any]) -> Any:
        """Return the next request once there is room for it, or None when there are no more."""
        await self._room.acquire()
        following = asyncio.ensure_future(anext(requests, None))
        try:
            await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return following.result() if following.done() else None
        finally:
            following.cancel()
            await asyncio.wait({following})

    async def _one(self, request: Any, context: ServicerContext, writer: StreamWriter) -> None:
        try:
            await writer.write(await self._handlers.answer(self._kind, request, context))
        finally:
            self._room.release()


class SourceServicer:
    """`conveyor.service.v1.Source`."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    async def read(
        self, requests: AsyncIterator[source_pb2.ReadRequest], context: ServicerContext
    ) -> None:
        """Serve one stream."""
        serving = self._serve(requests, context)
        await _ending(self._handlers.until_stopping(serving), context)

    async def _serve(
        self, requests: AsyncIterator[source_pb2.ReadRequest], context: ServicerContext
    ) -> None:
        first = await anext(requests, None)
        if first is None:
            return
        source = self._handlers.find(Source, first.call)
        call = context_of(first.call, (), _traceparent(context))
        stream = SourceStream(source, call, context.write, self._handlers.workers.run)
        await stream.run(_prepend(first, requests))


class InfoServicer(info_pb2_grpc.ServiceInfoServicer):
    """`conveyor.service.v1.ServiceInfo`."""

    def __init__(self, services: list[Service]) -> None:
        self._services = services

    async def Describe(  # noqa: N802 - the name of the RPC
        self, request: info_pb2.DescribeRequest, context: ServicerContext
    ) -> info_pb2.DescribeResponse:
        """Say what this process offers."""
        answer = info_pb2.DescribeResponse(
            sdk=f"conveyor-sdk-python/{importlib.metadata.version('conveyor-sdk')}"
        )
        for service in self._services:
            try:
                answer.services.append(await service.describe())
            except HANDLER_ERRORS as error:
                await context.abort(
                    grpc.StatusCode.UNAVAILABLE,
                    f"{service.name} cannot be described now: {type(error).__name__}: {error}",
                )
        return answer


def generic_handlers(handlers: Handlers) -> dict[str, grpc.GenericRpcHandler]:
    """Return the handlers of the services that this process implements, by full gRPC name."""
    found: dict[str, grpc.GenericRpcHandler] = {}
    kinds = {type(service) for service in handlers.services}
    if Source in kinds:
        read = grpc.stream_stream_rpc_method_handler(
            SourceServicer(handlers).read,
            request_deserializer=source_pb2.ReadRequest.FromString,
            response_serializer=source_pb2.ReadResponse.SerializeToString,
        )
        found |= _service(source_pb2.DESCRIPTOR, "Source", {"Read": read})
    if Transform in kinds:
        methods = _called(handlers, Transform, transform_pb2.TransformRequest.FromString)
        found |= _service(
            transform_pb2.DESCRIPTOR,
            "Transform",
            {"Process": methods[0], "ProcessStream": methods[1]},
        )
    if Sink in kinds:
        methods = _called(handlers, Sink, sink_pb2.SinkRequest.FromString)
        found |= _service(
            sink_pb2.DESCRIPTOR, "Sink", {"Write": methods[0], "WriteStream": methods[1]}
        )
    return found


def _called(
    handlers: Handlers,
    kind: type[Transform] | type[Sink],
    deserializer: Callable[[bytes], Any],
) -> tuple[grpc.RpcMethodHandler[Any, Any], grpc.RpcMethodHandler[Any, Any]]:
    async def unary(request: Any, context: ServicerContext) -> bytes:
        return await _ending(handlers.answer(kind, request, context), context)

    async def streamed(requests: AsyncIterator[Any], context: ServicerContext) -> None:
        await _ending(StreamedCalls(handlers, kind).serve(requests, context), context)

    return (
        grpc.unary_unary_rpc_method_handler(unary, request_deserializer=deserializer),
        grpc.stream_stream_rpc_method_handler(streamed, request_deserializer=deserializer),
    )


def _service(
    file: Any, name: str, methods: dict[str, grpc.RpcMethodHandler[Any, Any]]
) -> dict[str, grpc.GenericRpcHandler]:
    full_name = file.services_by_name[name].full_name
    return {full_name: grpc.method_handlers_generic_handler(full_name, methods)}


async def _ending(serving: Awaitable[T], context: ServicerContext) -> T:
    """Serve a call to its end; a refusal becomes its status, once nothing is being written."""
    try:
        return await serving
    except Refusal as refusal:
        await context.abort(refusal.code, refusal.text)
        raise


async def _prepend(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for message in rest:
        yield message


def _traceparent(context: ServicerContext) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent":
            return value if isinstance(value, str) else value.decode()
    return ""
