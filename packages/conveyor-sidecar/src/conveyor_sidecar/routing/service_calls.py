"""Unary calls to local services: ``Process`` and ``Write``, with the records left closed.

A request is spliced (the call's header, the frame's body as it is, lineage) and an answer is split
into spans; no record is opened on the way out, and on the way in only to see that it is one. The
engine bounds how many calls are under way and says when one is given up; here every call has a
deadline of its own as well, and ends in exactly one event.

What a failed call means is decided from its status and from whether the connection still stands:

==================== ====================================================================
UNAVAILABLE          never sent, if the channel could not connect; refused for lack of
                     capacity, if it still stands; else the service died with the request
RESOURCE_EXHAUSTED   busy, unless a message was too large
DEADLINE_EXCEEDED    no answer in time
UNIMPLEMENTED        the process does not offer this kind: it is withdrawn
anything else        the service's own error
==================== ====================================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from opentelemetry.trace import SpanKind

from conveyor_registry.model import ServiceKind
from conveyor_sdk.carrier import encode_call, service_request
from conveyor_sdk.wire import record_pb2
from conveyor_sidecar.core.effects import CallService
from conveyor_sidecar.core.events import (
    CallFailed,
    CallFailureKind,
    CallFinished,
    Event,
    Outputs,
)
from conveyor_sidecar.errors import ProtocolError
from conveyor_sidecar.routing.client_pool import ClientPool
from conveyor_sidecar.routing.lookups import Lookups
from conveyor_sidecar.routing.routing_table import LocalService, RoutingTable
from conveyor_sidecar.routing.service_answers import sink_answer, transform_answer
from conveyor_sidecar.tracing import batch_span, mark_failed, traceparent_of

logger = logging.getLogger(__name__)

PROCESS_METHOD = "/conveyor.service.v1.Transform/Process"
WRITE_METHOD = "/conveyor.service.v1.Sink/Write"
_SPAN_NAMES = {
    ServiceKind.TRANSFORM: "conveyor.process",
    ServiceKind.SINK: "conveyor.write",
    ServiceKind.LOOKUP: "conveyor.find",
}
_CALLS_CACHED_MAX = 1_024

Post = Callable[[Event], None]
Withdraw = Callable[[str, str], None]


class ServiceCalls:
    """The calls under way.

    Attributes:
        last_errors: For each (pipeline, stage) the reason of its latest failure.
    """

    def __init__(
        self,
        pool: ClientPool,
        table: RoutingTable,
        post: Post,
        *,
        sidecar_id: str,
        withdraw: Withdraw,
    ) -> None:
        self._pool = pool
        self._table = table
        self._post = post
        self._sidecar_id = sidecar_id
        self._withdraw = withdraw
        self._lookups = Lookups()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.last_errors: dict[tuple[str, str], str] = {}
        self._headers: dict[tuple[object, ...], tuple[Mapping[str, str], bytes]] = {}

    def start(self, effect: CallService) -> None:
        """Begin a call; ``CallFinished`` or ``CallFailed`` follows."""
        task = asyncio.create_task(self._run(effect), name=f"call {effect.call_id}")
        self._tasks[effect.call_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(effect.call_id, None))

    def cancel(self, call_id: int) -> None:
        """Give a call up; no event follows."""
        task = self._tasks.get(call_id)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Give all calls up and wait until they are gone."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def under_way(self) -> int:
        """Calls that have not ended."""
        return len(self._tasks)

    async def _run(self, effect: CallService) -> None:
        service = self._table.routes.services.get(effect.service_id)
        if service is None:
            reason = f"service {effect.service_id} is not beside this sidecar"
            self._post(CallFailed(effect.call_id, CallFailureKind.UNREACHABLE, reason))
            return
        pipeline, stage, _ = effect.instance
        with batch_span(
            _SPAN_NAMES.get(service.kind, "conveyor.call"),
            effect.frame.traceparent,
            SpanKind.CLIENT,
            {
                "conveyor.pipeline": pipeline,
                "conveyor.stage": stage,
                "conveyor.service": service.name,
                "conveyor.records": effect.frame.count,
                "conveyor.attempt": effect.attempt,
            },
        ) as span:
            event: CallFinished | CallFailed
            try:
                event = await self._call(effect, service, traceparent_of(span))
            except grpc.aio.AioRpcError as error:
                event = self._failed(effect, service, error)
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                # The channel was closed under the call: to the records it is a lost service.
                reason = "the connection was closed"
                event = CallFailed(effect.call_id, CallFailureKind.LOST, reason)
            except ProtocolError as error:
                event = CallFailed(effect.call_id, CallFailureKind.GARBAGE, str(error))
            except Exception as error:
                logger.exception("a call to service %s failed unexpectedly", service.name)
                reason = f"{type(error).__name__}: {error}"
                event = CallFailed(effect.call_id, CallFailureKind.ERROR, reason)
            if isinstance(event, CallFailed):
                mark_failed(span, event.reason)
                self.last_errors[pipeline, stage] = event.reason
            elif event.failures:
                self.last_errors[pipeline, stage] = event.failures[0].reason
        self._post(event)

    async def _call(
        self, effect: CallService, service: LocalService, traceparent: str
    ) -> CallFinished | CallFailed:
        channel = self._pool.channel(service.endpoint)
        timeout_s = effect.timeout_ms / 1000
        metadata = (("traceparent", traceparent),) if traceparent else None
        frame = effect.frame
        if service.kind is ServiceKind.LOOKUP:
            facts = self._table.routes.stages[effect.instance.pipeline, effect.instance.stage]
            call = self._call_message(effect, service)
            found = await self._lookups.find(
                channel, effect, facts=facts, call=call, timeout_s=timeout_s, metadata=metadata
            )
            if found.outputs is not None:
                found.outputs.key_hashes = self.key_hashes(
                    effect.instance.pipeline, effect.instance.stage, found.outputs.body
                )
            return found
        sink = service.kind is ServiceKind.SINK
        request = service_request(
            self._header(effect, service), [frame.body], frame.lineage(), effect.call_id
        )
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            WRITE_METHOD if sink else PROCESS_METHOD
        )
        data = await method(request, timeout=timeout_s, metadata=metadata)
        if sink:
            return CallFinished(effect.call_id, None, sink_answer(data, frame.count))
        answer, failures = transform_answer(data, frame.count)
        outputs = Outputs(
            body=answer.body,
            lengths=answer.lengths,
            parents=answer.parents,
            routes=answer.routes,
            key_hashes=self.key_hashes(
                effect.instance.pipeline, effect.instance.stage, answer.body
            ),
            traceparent=traceparent,
        )
        return CallFinished(effect.call_id, outputs, failures)

    def key_hashes(self, pipeline: str, stage: str, body: bytes) -> bytes:
        """The key column of a stage's outputs, where one of its out-edges is keyed."""
        facts = self._table.routes.stages.get((pipeline, stage))
        if facts is None or not facts.keyed or not body:
            return b""
        return self._table.routes.records.key_hashes(body)

    def _call_message(self, effect: CallService, service: LocalService) -> record_pb2.Call:
        return record_pb2.Call(
            service=service.name,
            pipeline=effect.instance.pipeline,
            stage=effect.instance.stage,
            assignment_term=effect.term,
            attempt=effect.attempt,
            config=effect.config,
            sidecar=self._sidecar_id,
        )

    def _header(self, effect: CallService, service: LocalService) -> bytes:
        """The call as the first field of a request; the same for every call of an instance."""
        key = (effect.instance, effect.term, effect.attempt, service.name)
        known = self._headers.get(key)
        if known is not None and known[0] is effect.config:
            return known[1]
        if len(self._headers) >= _CALLS_CACHED_MAX:
            self._headers.clear()
        header = encode_call(self._call_message(effect, service))
        self._headers[key] = (effect.config, header)
        return header

    def _failed(
        self, effect: CallService, service: LocalService, error: grpc.aio.AioRpcError
    ) -> CallFailed:
        code, details = error.code(), error.details() or ""
        kind = CallFailureKind.ERROR
        if code is grpc.StatusCode.UNIMPLEMENTED:
            kind = CallFailureKind.UNREACHABLE
            self._withdraw(
                service.service_id, f"{service.name} does not implement {service.kind}: {details}"
            )
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            kind = CallFailureKind.DEADLINE
            details = f"no answer within {effect.timeout_ms} ms"
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" not in details:
            kind = CallFailureKind.BUSY
        elif code is grpc.StatusCode.UNAVAILABLE:
            kind = self._unavailable(service.endpoint, details)
        elif code is grpc.StatusCode.CANCELLED:
            kind = CallFailureKind.LOST
        name = getattr(code, "name", str(code))
        return CallFailed(effect.call_id, kind, f"{name}: {details[:1_024]}")

    def _unavailable(self, endpoint: str, details: str) -> CallFailureKind:
        if "failed to connect" in details or "Connection refused" in details:
            return CallFailureKind.UNREACHABLE
        channel: Any = self._pool.channel(endpoint)
        if channel.get_state() is grpc.ChannelConnectivity.READY:
            return CallFailureKind.BUSY
        return CallFailureKind.LOST


def _is_cancelled() -> bool:
    """Whether this task itself was cancelled, and not only the call that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
