"""Sidecars: their registration and what is recorded of them."""

from __future__ import annotations

from collections.abc import Sequence

from conveyor_grpc.convert.services import MESSAGE_OF_HEALTH, local_offer, timestamp
from conveyor_grpc.wire import sidecar_pb2 as wire
from conveyor_raft.machines.router import RouterCommand, SidecarRecord
from conveyor_registry import model


def register_command(request: wire.RegisterSidecarRequest, lease_ms: int) -> RouterCommand:
    """Return the command of a registration.

    Raises:
        InvalidRequestError: a service without a kind.
        pydantic.ValidationError: something is outside its bounds.
    """
    namespace = request.namespace or model.DEFAULT_NAMESPACE
    return RouterCommand.RegisterSidecar(
        sidecar_id=request.sidecar_id,
        endpoint=request.endpoint,
        services=tuple(local_offer(service, namespace) for service in request.services),
        boot_id=request.boot_id,
        pod_name=request.pod_name,
        namespace=namespace,
        labels=dict(request.labels),
        version=request.version,
        lease_ms=lease_ms,
    )


def sidecar_message(
    record: SidecarRecord,
    *,
    last_heartbeat_ms: int = 0,
    revision_applied: int = 0,
    load: float = 0.0,
    dead_letters: Sequence[wire.DeadLetterCount] = (),
) -> wire.Sidecar:
    """Return the message for a recorded sidecar, with what the leader heard from it."""
    return wire.Sidecar(
        sidecar_id=record.sidecar_id,
        boot_id=record.boot_id,
        endpoint=record.endpoint,
        pod_name=record.pod_name,
        namespace=record.namespace,
        labels=record.labels,
        version=record.version,
        service_ids=record.service_ids,
        health=MESSAGE_OF_HEALTH[record.health],
        health_reason=record.health_reason,
        draining=record.draining,
        registered_at=timestamp(record.registered_ms),
        last_heartbeat=timestamp(max(last_heartbeat_ms, record.last_heartbeat_ms)),
        revision_applied=revision_applied,
        load=load,
        dead_letters=dead_letters,
    )
