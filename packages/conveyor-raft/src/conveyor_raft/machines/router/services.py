"""How commands about services change the state.

Rules kept: a service that came with a sidecar belongs to that sidecar, and neither a registration
of its own nor an expiry of its own can take it away; only the sidecar's can. Health changes by
recorded decisions with a reason; a registration starts healthy, because somebody just spoke.
"""

from __future__ import annotations

from dataclasses import replace

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router.commands import (
    DeregisterService,
    ExpireServices,
    RegisterService,
    RenewLeases,
    UpdateServiceHealth,
)
from conveyor_raft.machines.router.outcome import Moment, Outcome, Refusal, RefusalCode
from conveyor_raft.machines.router.parts import ServiceOffer
from conveyor_raft.machines.router.records import ServiceRecord, SidecarRecord
from conveyor_raft.machines.router.state import RouterState

SERVICES_MAX = 100_000


def record_of(
    offer: ServiceOffer,
    state: RouterState,
    moment: Moment,
    *,
    lease_ms: int,
    sidecar_id: str = "",
) -> ServiceRecord:
    """The record of an offer; a service that stays keeps the time of its first registration."""
    old = state.services.get(offer.service_id)
    return ServiceRecord(
        service_id=offer.service_id,
        service_name=offer.service_name,
        service_type=offer.service_type,
        endpoint=offer.endpoint,
        sidecar_id=sidecar_id,
        namespace=offer.namespace,
        version=offer.version,
        labels=dict(sorted(offer.labels.items())),
        group_id=offer.group_id,
        grpc_services=offer.grpc_services,
        partitions=offer.partitions,
        stable_offsets=offer.stable_offsets,
        bounded=offer.bounded,
        idempotent=offer.idempotent,
        transactional=offer.transactional,
        concurrency_max=offer.concurrency_max,
        batch_records_max=offer.batch_records_max,
        batch_bytes_max=offer.batch_bytes_max,
        call_timeout_ms=offer.call_timeout_ms,
        described=offer.described,
        lease_ms=lease_ms,
        health=offer.health,
        health_reason=offer.health_reason,
        registered_ms=moment.timestamp_ms if old is None else old.registered_ms,
        last_heartbeat_ms=moment.timestamp_ms,
        registered_revision=moment.index,
    )


def put_registration(state: RouterState, record: ServiceRecord | SidecarRecord) -> None:
    """Put a registration; one that says nothing new moves no revision, for nobody has to act."""
    old: ServiceRecord | SidecarRecord | None
    if isinstance(record, ServiceRecord):
        old = state.services.get(record.service_id)
    else:
        old = state.sidecars.get(record.sidecar_id)
    quiet = old is not None and old == replace(
        record,
        last_heartbeat_ms=old.last_heartbeat_ms,
        registered_revision=old.registered_revision,
    )
    state.put(record, quiet=quiet)


def register_service(state: RouterState, command: RegisterService, moment: Moment) -> Outcome:
    """Put the service; one that a sidecar brought is refused."""
    old = state.services.get(command.service_id)
    if old is not None and old.sidecar_id:
        raise CommandRejected(
            "taken",
            f"service {command.service_id!r} belongs to sidecar {old.sidecar_id!r};"
            " register under another id, or stop that sidecar",
        )
    if old is None and len(state.services) >= SERVICES_MAX:
        raise CommandRejected("full", f"{SERVICES_MAX} services are registered; remove some first")
    put_registration(state, record_of(command, state, moment, lease_ms=command.lease_ms))
    return Outcome()


def deregister_service(state: RouterState, command: DeregisterService, moment: Moment) -> Outcome:
    """Drop the service, if it is there."""
    old = state.services.get(command.service_id)
    if old is None:
        return Outcome()
    if old.sidecar_id:
        raise CommandRejected(
            "taken",
            f"service {command.service_id!r} belongs to sidecar {old.sidecar_id!r},"
            " which registers its services itself",
        )
    state.drop(old)
    return Outcome()


def update_service_health(
    state: RouterState, command: UpdateServiceHealth, moment: Moment
) -> Outcome:
    """Record the health with its reason."""
    old = state.services.get(command.service_id)
    if old is None:
        raise CommandRejected("unknown", f"no service {command.service_id!r} is registered")
    state.put(replace(old, health=command.health, health_reason=command.reason))
    return Outcome()


def renew_leases(state: RouterState, command: RenewLeases, moment: Moment) -> Outcome:
    """Record when services and sidecars were heard of; who is gone is left out."""
    for renewal in command.services:
        service = state.services.get(renewal.id)
        if service is not None and renewal.at_ms > service.last_heartbeat_ms:
            state.put(replace(service, last_heartbeat_ms=renewal.at_ms), quiet=True)
    for renewal in command.sidecars:
        sidecar = state.sidecars.get(renewal.id)
        if sidecar is not None and renewal.at_ms > sidecar.last_heartbeat_ms:
            state.put(replace(sidecar, last_heartbeat_ms=renewal.at_ms), quiet=True)
    return Outcome()


def expire_services(state: RouterState, command: ExpireServices, moment: Moment) -> Outcome:
    """Drop services whose registrations have ended, each judged by itself."""
    refused = []
    for position, expiry in enumerate(command.services):
        old = state.services.get(expiry.id)
        if old is None:
            refused.append(
                Refusal(position, expiry.id, RefusalCode.UNKNOWN, "it is not registered")
            )
        elif old.sidecar_id:
            message = f"it belongs to sidecar {old.sidecar_id!r}"
            refused.append(Refusal(position, expiry.id, RefusalCode.INVALID, message))
        elif old.registered_revision != expiry.registered_revision:
            message = "it was registered again since"
            refused.append(Refusal(position, expiry.id, RefusalCode.OUTDATED, message))
        else:
            state.drop(old, expiry.reason)
    return Outcome(refused=tuple(refused))
