"""Services: what a process offers and what is recorded of it, both ways."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from conveyor_grpc.errors import InvalidRequestError
from conveyor_grpc.wire import registry_pb2 as wire
from conveyor_grpc.wire import sidecar_pb2 as sidecar_wire
from conveyor_raft.machines.router import ServiceHealth, ServiceOffer, ServiceRecord, ServiceType
from conveyor_registry import model
from conveyor_sdk.wire import info_pb2

TYPE_OF_KIND = {
    info_pb2.KIND_SOURCE: ServiceType.SOURCE,
    info_pb2.KIND_TRANSFORM: ServiceType.TRANSFORM,
    info_pb2.KIND_SINK: ServiceType.SINK,
    info_pb2.KIND_LOOKUP: ServiceType.LOOKUP,
}
KIND_OF_TYPE = {service_type: kind for kind, service_type in TYPE_OF_KIND.items()}

_HEALTH_OF_MESSAGE = {
    wire.SERVICE_HEALTH_UNSPECIFIED: ServiceHealth.HEALTHY,
    wire.SERVICE_HEALTH_HEALTHY: ServiceHealth.HEALTHY,
    wire.SERVICE_HEALTH_DEGRADED: ServiceHealth.DEGRADED,
    wire.SERVICE_HEALTH_UNHEALTHY: ServiceHealth.UNHEALTHY,
}
MESSAGE_OF_HEALTH = {
    ServiceHealth.HEALTHY: wire.SERVICE_HEALTH_HEALTHY,
    ServiceHealth.DEGRADED: wire.SERVICE_HEALTH_DEGRADED,
    ServiceHealth.UNHEALTHY: wire.SERVICE_HEALTH_UNHEALTHY,
    ServiceHealth.UNKNOWN: wire.SERVICE_HEALTH_UNKNOWN,
}


def health_of(value: wire.ServiceHealth.ValueType) -> ServiceHealth:
    """Return the health that a message says; one of a later release counts as unknown."""
    return _HEALTH_OF_MESSAGE.get(value, ServiceHealth.UNKNOWN)


def duration(milliseconds: int) -> Duration:
    """Return a duration message."""
    message = Duration()
    message.FromMilliseconds(milliseconds)
    return message


def timestamp(milliseconds: int) -> Timestamp | None:
    """Return a timestamp message for milliseconds since 1970; None for 0, which means never."""
    if not milliseconds:
        return None
    message = Timestamp()
    message.FromMilliseconds(milliseconds)
    return message


def offer_of(
    *,
    service_id: str,
    description: info_pb2.ServiceDescription,
    endpoint: str,
    namespace: str,
    group_id: str = "",
    health: wire.ServiceHealth.ValueType = wire.SERVICE_HEALTH_HEALTHY,
    health_reason: str = "",
    grpc_services: tuple[str, ...] = (),
    described: bool = True,
) -> ServiceOffer:
    """Return what a process offers, checked.

    Raises:
        InvalidRequestError: the description has no kind.
        pydantic.ValidationError: a name or number is outside its bounds.
    """
    service_type = TYPE_OF_KIND.get(description.kind)
    if service_type is None:
        raise InvalidRequestError(
            f"service {service_id!r} says no kind (or one this release does not know):"
            " its description must be a source, transform, sink or lookup"
        )
    return ServiceOffer(
        service_id=service_id,
        service_type=service_type,
        endpoint=endpoint,
        service_name=description.name,
        namespace=namespace or model.DEFAULT_NAMESPACE,
        version=description.version,
        labels=dict(description.labels),
        group_id=group_id,
        grpc_services=grpc_services,
        partitions=tuple(description.partitions),
        stable_offsets=description.stable_offsets,
        bounded=description.bounded,
        idempotent=description.idempotent,
        transactional=description.transactional,
        concurrency_max=description.concurrency_max,
        batch_records_max=description.batch_records_max,
        batch_bytes_max=description.batch_bytes_max,
        call_timeout_ms=(
            description.call_timeout.ToMilliseconds() if description.HasField("call_timeout") else 0
        ),
        described=described,
        health=health_of(health),
        health_reason=health_reason,
    )


def local_offer(service: sidecar_wire.LocalService, namespace: str) -> ServiceOffer:
    """Return what a sidecar found beside itself, checked; raises as `offer_of`."""
    return offer_of(
        service_id=service.service_id,
        description=service.description,
        endpoint=service.endpoint,
        namespace=namespace,
        group_id=service.group_id,
        health=service.health,
        health_reason=service.reason,
        grpc_services=tuple(service.grpc_services),
        described=not service.undescribed,
    )


def description_message(record: ServiceRecord) -> info_pb2.ServiceDescription:
    """Return what a recorded service said of itself."""
    message = info_pb2.ServiceDescription(
        name=record.service_name,
        kind=KIND_OF_TYPE[record.service_type],
        version=record.version,
        labels=record.labels,
        batch_records_max=record.batch_records_max,
        batch_bytes_max=record.batch_bytes_max,
        concurrency_max=record.concurrency_max,
        partitions=record.partitions,
        stable_offsets=record.stable_offsets,
        bounded=record.bounded,
        idempotent=record.idempotent,
        transactional=record.transactional,
    )
    if record.call_timeout_ms:
        message.call_timeout.FromMilliseconds(record.call_timeout_ms)
    return message


def service_message(record: ServiceRecord, last_heartbeat_ms: int = 0) -> wire.Service:
    """Return the message for a recorded service; `last_heartbeat_ms` comes from the leader."""
    return wire.Service(
        service_id=record.service_id,
        description=description_message(record),
        endpoint=record.endpoint,
        health=MESSAGE_OF_HEALTH[record.health],
        health_reason=record.health_reason,
        group_id=record.group_id,
        sidecar_id=record.sidecar_id,
        registered_at=timestamp(record.registered_ms),
        last_heartbeat=timestamp(max(last_heartbeat_ms, record.last_heartbeat_ms)),
        lease=duration(record.lease_ms),
        namespace=record.namespace,
        grpc_services=record.grpc_services,
        undescribed=not record.described,
    )
