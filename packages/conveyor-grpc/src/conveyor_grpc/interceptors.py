"""What happens around every call, on both sides.

Server, from the outside in: the trace context is taken over from the caller, the number of calls
in flight is bounded, a unary call gets a deadline of at most `DEADLINE_MAX_S`, and an exception
becomes a status by the one table in `errors.py`. Client: the trace context travels along.

Each of these is an *around*: a function that takes the call's method and context and returns an
asynchronous context manager. `AroundInterceptor` puts one around unary and streaming handlers
alike, so a concern is written once.

Tracing uses the OpenTelemetry API alone and costs next to nothing until a process configures the
SDK. It is written here rather than taken from opentelemetry-instrumentation-grpc, which adds
three dependencies with exact pins to a library and knows nothing of the error table. Health
checks and reflection get no span. A span covers a whole stream, never a message.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
from grpc.aio import ClientCallDetails, Metadata
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from conveyor_grpc.convert.failures import to_control_error
from conveyor_grpc.errors import (
    DETAIL_KEY,
    BusyError,
    ControlError,
    DeadlineError,
    InternalError,
    detail_of,
    status_of,
)

DEADLINE_MAX_S = 60.0
CALLS_MAX = 2_048
STREAMS_MAX = 1_000

_log = logging.getLogger(__name__)
_tracer = trace.get_tracer("conveyor.grpc")
_UNTRACED = re.compile(r"/?grpc\.(health|reflection)\..*|.*/(Heartbeat|HeartbeatGroup|WatchTable)")
"""Full names of methods that get no span: they come all the time, or last for ever."""

Context = grpc.aio.ServicerContext[Any, Any]
Around = Callable[[str, bool, Context], AbstractAsyncContextManager[None]]
"""Takes the method's full name, whether it answers with a stream, and the call's context."""


class AroundInterceptor(grpc.aio.ServerInterceptor):
    """Puts one around on every unary-unary and unary-stream handler of a server."""

    def __init__(self, around: Around) -> None:
        self._around = around

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler with the around on it."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        name, around = handler_call_details.method, self._around
        if handler.response_streaming:
            stream: Any = handler.unary_stream

            async def answer_with_stream(request: Any, context: Context) -> AsyncIterator[Any]:
                async with around(name, True, context):
                    async for message in stream(request, context):
                        yield message

            return grpc.unary_stream_rpc_method_handler(
                answer_with_stream, handler.request_deserializer, handler.response_serializer
            )
        unary: Any = handler.unary_unary

        async def answer(request: Any, context: Context) -> Any:
            async with around(name, False, context):
                return await unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


@asynccontextmanager
async def traced(name: str, streaming: bool, context: Context) -> AsyncIterator[None]:
    """Continue the caller's trace with a server span."""
    if _UNTRACED.fullmatch(name):
        yield
        return
    carrier = {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }
    service, _, method = name.lstrip("/").rpartition("/")
    with _tracer.start_as_current_span(
        name.lstrip("/"),
        context=propagate.extract(carrier),
        kind=SpanKind.SERVER,
        attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except Exception:
            span.set_status(Status(StatusCode.ERROR))
            raise


class CallStatistics:
    """How often each method was called, how it ended, and how long unary calls took in all."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @asynccontextmanager
    async def counted(self, name: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Count a call by method and by the code of the error table, "ok" without one."""
        began = time.perf_counter()
        method, code = name.rpartition("/")[2], "cancelled"
        try:
            yield
            code = "ok"
        except Exception as error:
            known = to_control_error(error)
            code = InternalError.code if known is None else known.code
            raise
        finally:
            self.calls[method, code] += 1
            if not streaming:
                self.seconds[method] += time.perf_counter() - began


def bounded(calls_max: int = CALLS_MAX, streams_max: int = STREAMS_MAX) -> Around:
    """Return an around that refuses calls above a number in flight, streams being counted apart."""
    in_flight = {False: 0, True: 0}
    bound = {False: calls_max, True: streams_max}

    @asynccontextmanager
    async def around(name: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        if in_flight[streaming] >= bound[streaming]:
            kind = "streams" if streaming else "calls"
            raise BusyError(
                f"{bound[streaming]} {kind} are in flight at this router, which is its limit",
                retry_after_s=1.0,
            )
        in_flight[streaming] += 1
        try:
            yield
        finally:
            in_flight[streaming] -= 1

    return around


@asynccontextmanager
async def limited_in_time(name: str, streaming: bool, context: Context) -> AsyncIterator[None]:
    """End a unary call at its caller's deadline, or after `DEADLINE_MAX_S`; streams watch
    themselves.
    """
    if streaming:
        yield
        return
    remaining = context.time_remaining()
    limit_s = DEADLINE_MAX_S if remaining is None else min(remaining, DEADLINE_MAX_S)
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise DeadlineError(f"{name} did not end within {limit_s:.1f} s") from error


@asynccontextmanager
async def answered_by_table(name: str, streaming: bool, context: Context) -> AsyncIterator[None]:
    """Turn an exception into a status with an `ErrorDetail`; log what nobody expected."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        known = to_control_error(error)
        if known is None:
            _log.exception("%s failed unexpectedly", name)
            known = InternalError(f"{type(error).__name__} in {name}; the router's log says more")
        await abort(context, known)


async def abort(context: Context, error: ControlError) -> None:
    """End a call with `error`."""
    detail = detail_of(error).SerializeToString()
    await context.abort(
        status_of(error), error.message[:2048], trailing_metadata=((DETAIL_KEY, detail),)
    )


def server_interceptors(
    statistics: CallStatistics, *, calls_max: int = CALLS_MAX, streams_max: int = STREAMS_MAX
) -> list[grpc.aio.ServerInterceptor]:
    """Return what belongs on every Conveyor server, outermost first."""
    arounds: Sequence[Around] = (
        traced,
        answered_by_table,
        statistics.counted,
        bounded(calls_max, streams_max),
        limited_in_time,
    )
    return [AroundInterceptor(around) for around in arounds]


def _with_trace(details: ClientCallDetails) -> ClientCallDetails:
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    metadata = Metadata(*(details.metadata or ()))
    for key, value in carrier.items():
        metadata.add(key, value)
    return ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


def _method_name(details: ClientCallDetails) -> str:
    method: str | bytes = details.method
    text = method.decode() if isinstance(method, bytes) else method
    return text.lstrip("/")


class _TraceUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """A client span around a unary call."""

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: ClientCallDetails, request: Any
    ) -> Any:
        name = _method_name(client_call_details)
        if _UNTRACED.fullmatch(name):
            return await continuation(client_call_details, request)
        service, _, method = name.rpartition("/")
        with _tracer.start_as_current_span(
            name,
            kind=SpanKind.CLIENT,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        ) as span:
            call = await continuation(_with_trace(client_call_details), request)
            code = await call.code()
            if code is not grpc.StatusCode.OK:
                span.set_status(Status(StatusCode.ERROR, code.name))
            return call


class _TraceStream(grpc.aio.UnaryStreamClientInterceptor):
    """The present trace context on a call that answers with a stream; the stream gets no
    client span.
    """

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_with_trace(client_call_details), request)


def trace_client_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """Return what carries the trace context on a client channel."""
    return [_TraceUnary(), _TraceStream()]
