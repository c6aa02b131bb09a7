"""What listens on a port: asked by gRPC reflection, then by ``ServiceInfo.Describe``.

Reflection only recognises a process; it is not the authority on what the process offers, because
reflection servers exist that list services which nobody implements. ``Describe`` is. A process
without ``ServiceInfo`` is still reported with what reflection showed, because a manifest's
``match`` may bind it. What lists none of the four kinds is not ours and is ignored.

Two versions of the reflection protocol are about, with equal messages under different names:
``v1`` is asked first, ``v1alpha`` where that is unknown. "list_services" is the only question: no
descriptor is ever loaded from a stranger. Everything is bounded: one deadline for the whole
probe, and small limits on the answers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

from conveyor_registry.model import is_name
from conveyor_sdk.wire import info_pb2
from conveyor_sidecar.errors import ProbeError

_PACKAGE = "conveyor.service.v1"
SERVICE_INFO = f"{_PACKAGE}.ServiceInfo"
KIND_OF_GRPC_SERVICE = {
    f"{_PACKAGE}.Source": "source",
    f"{_PACKAGE}.Transform": "transform",
    f"{_PACKAGE}.Sink": "sink",
    f"{_PACKAGE}.Lookup": "lookup",
}
_KIND_OF_NUMBER = {
    info_pb2.KIND_SOURCE: "source",
    info_pb2.KIND_TRANSFORM: "transform",
    info_pb2.KIND_SINK: "sink",
    info_pb2.KIND_LOOKUP: "lookup",
}
_REFLECTION_METHODS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
_DESCRIBE_METHOD = f"/{SERVICE_INFO}/Describe"
_ANSWER_BYTES_MAX = 256 * 1024
_SERVICES_MAX = 64
_LABELS_MAX = 64
_PARTITIONS_MAX = 10_000
_PARTITION_CHARACTERS_MAX = 253
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", _ANSWER_BYTES_MAX),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # Also the patience of one connection attempt, which outlives the channel: 20 s by default.
    ("grpc.min_reconnect_backoff_ms", 500),
)


@dataclass(frozen=True, slots=True)
class DescribedService:
    """One service of a process, as its ``Describe`` answers, in plain values."""

    name: str
    kind: str
    version: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    batch_records_max: int = 0
    batch_bytes_max: int = 0
    concurrency_max: int = 1
    partitions: tuple[str, ...] = ()
    stable_offsets: bool = False
    bounded: bool = False
    idempotent: bool = False
    transactional: bool = False
    call_timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class FoundProcess:
    """A process of ours on a port.

    ``services`` is what ``Describe`` said; it is empty where there is no ``ServiceInfo``, and then
    ``listed`` is all that is known.
    """

    endpoint: str
    listed: tuple[str, ...]
    services: tuple[DescribedService, ...] = ()
    described: bool = False
    sdk: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that reflection lists, in the contract's order."""
        return tuple(kind for name, kind in KIND_OF_GRPC_SERVICE.items() if name in self.listed)


async def identify(endpoint: str, deadline_ms: int) -> FoundProcess:
    """Ask the process behind the endpoint what it is.

    Raises:
        ProbeError: it is not ours, or did not answer properly in time; the text says which.
    """
    try:
        async with asyncio.timeout(deadline_ms / 1000):
            async with grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS) as channel:
                return await _identify(channel, endpoint)
    except TimeoutError as error:
        raise ProbeError(f"{endpoint} did not answer within {deadline_ms} ms") from error


async def _identify(channel: grpc.aio.Channel, endpoint: str) -> FoundProcess:
    listed = await _list_services(channel, endpoint)
    answer = None
    if SERVICE_INFO in listed:
        answer = await _describe(channel, endpoint)
    found = FoundProcess(endpoint=endpoint, listed=listed)
    if answer is None:
        if not found.kinds:
            raise ProbeError(f"{endpoint} offers nothing of ours")
        return found
    return FoundProcess(
        endpoint=endpoint,
        listed=listed,
        services=tuple(_service(endpoint, item) for item in answer.services),
        described=True,
        sdk=answer.sdk[:64],
    )


async def _list_services(channel: grpc.aio.Channel, endpoint: str) -> tuple[str, ...]:
    for method in _REFLECTION_METHODS:
        # The stream's one request leaves together with the call: written later, it could meet a
        # call that the server has ended already, and its status would be lost.
        call = channel.unary_stream(
            method,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(reflection_pb2.ServerReflectionRequest(list_services="*"))
        try:
            answer = await call.read()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                continue
            raise ProbeError(f"{endpoint} answers no reflection: {_status(error)}") from error
        finally:
            call.cancel()
        if not isinstance(answer, reflection_pb2.ServerReflectionResponse):
            raise ProbeError(f"{endpoint} ended the reflection stream without an answer")
        names = {item.name for item in answer.list_services_response.service}
        return tuple(sorted(names)[:1024])
    raise ProbeError(f"{endpoint} serves gRPC without reflection")


async def _describe(channel: grpc.aio.Channel, endpoint: str) -> info_pb2.DescribeResponse | None:
    """The answer of Describe; None where it is listed but not implemented."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_DESCRIBE_METHOD)
    try:
        raw = await call(info_pb2.DescribeRequest().SerializeToString())
        answer = info_pb2.DescribeResponse.FromString(raw)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise ProbeError(f"{endpoint} failed to describe itself: {_status(error)}") from error
    except DecodeError as error:
        raise ProbeError(f"{endpoint} describes itself with garbage") from error
    if len(answer.services) > _SERVICES_MAX:
        raise ProbeError(
            f"{endpoint} describes {len(answer.services)} services; at most {_SERVICES_MAX}"
        )
    return answer


def _service(endpoint: str, item: info_pb2.ServiceDescription) -> DescribedService:
    kind = _KIND_OF_NUMBER.get(item.kind)
    if kind is None:
        raise ProbeError(f"{endpoint} describes service {item.name!r} without a known kind")
    if not is_name(item.name):
        raise ProbeError(
            f"{endpoint} describes a {kind} named {item.name[:80]!r}; a name has 1 to 63 "
            "lower-case letters, digits and hyphens"
        )
    if len(item.labels) > _LABELS_MAX or len(item.partitions) > _PARTITIONS_MAX:
        raise ProbeError(f"{endpoint} describes {item.name!r} with too many labels or partitions")
    if any(len(key) > 63 or len(value) > 256 for key, value in item.labels.items()):
        raise ProbeError(f"{endpoint} describes {item.name!r} with a label that is too long")
    if any(not 0 < len(name) <= _PARTITION_CHARACTERS_MAX for name in item.partitions):
        raise ProbeError(f"{endpoint} describes {item.name!r} with an impossible partition name")
    return DescribedService(
        name=item.name,
        kind=kind,
        version=item.version[:256],
        labels=tuple(sorted(item.labels.items())),
        batch_records_max=item.batch_records_max,
        batch_bytes_max=item.batch_bytes_max,
        concurrency_max=item.concurrency_max or 1,
        partitions=tuple(item.partitions) or (("0",) if kind == "source" else ()),
        stable_offsets=item.stable_offsets,
        bounded=item.bounded,
        idempotent=item.idempotent,
        transactional=item.transactional,
        call_timeout_ms=item.call_timeout.ToMilliseconds() if item.HasField("call_timeout") else 0,
    )


def _status(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {(error.details() or '')[:200]}"
