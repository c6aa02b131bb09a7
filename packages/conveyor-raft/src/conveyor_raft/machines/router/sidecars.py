"""How commands about sidecars change the state.

Rules kept:

* A registration replaces the sidecar's service list in one step. A new boot id means that the
  process lost its memory: everything it owns gets the next term, so that what the dead process
  still has on the way is fenced, and stays where it is.
* A boot that another one has replaced is over. If it speaks again, two processes have one id, and
  they would take everything from each other for ever: the newer one keeps it, the older one is
  told. When the newer one's lease has ended, the older one may have the id again.
* Two sidecars may see one service (overlapping scan ranges on one machine). The first registration
  wins; the second is told which services it did not get and who has them. A loopback endpoint means
  the sidecar's own machine, so the same port in two pods is two services.
* What ends a sidecar (its own word, or the recorded end of its lease) takes its services and stage
  instances with it and leaves its source partitions without an owner, in one step.
"""

from __future__ import annotations

from dataclasses import replace

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router.commands import (
    DeregisterSidecar,
    DrainSidecar,
    ExpireSidecars,
    RegisterSidecar,
    UpdateSidecarHealth,
)
from conveyor_raft.machines.router.outcome import Moment, Outcome, Refusal, RefusalCode
from conveyor_raft.machines.router.ownership import change_boot, release_all
from conveyor_raft.machines.router.parts import ServiceOffer
from conveyor_raft.machines.router.records import LocationRecord, ServiceHealth, SidecarRecord
from conveyor_raft.machines.router.services import SERVICES_MAX, put_registration, record_of
from conveyor_raft.machines.router.state import RouterState

SIDECARS_MAX = 10_000
REPLACED_BOOTS_MAX = 8
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "0.0.0.0", "[::]"})  # noqa: S104


def location_of(endpoint: str, sidecar_endpoint: str) -> str:
    """Where a service listens, as the whole cluster would say it."""
    host, _, port = endpoint.rpartition(":")
    if host in _LOOPBACK or host.startswith("127."):
        host = sidecar_endpoint.rpartition(":")[0]
        if host in _LOOPBACK or host.startswith("127."):
            host = "localhost"
    return f"{host}:{port}"


def register_sidecar(state: RouterState, command: RegisterSidecar, moment: Moment) -> Outcome:
    """Put the sidecar with the services that are not somebody else's."""
    old = state.sidecars.get(command.sidecar_id)
    if old is None and len(state.sidecars) >= SIDECARS_MAX:
        raise CommandRejected("full", f"{SIDECARS_MAX} sidecars are registered; remove some first")
    if len(state.services) + len(command.services) > SERVICES_MAX:
        raise CommandRejected("full", f"{SERVICES_MAX} services are registered; remove some first")
    if len({offer.service_id for offer in command.services}) != len(command.services):
        raise CommandRejected("invalid", "a service id is given twice; ids are unique")
    replaced = _replaced_boots(old, command)
    mine, refused = _settle(state, command)
    _drop_services(state, old, keep={offer.service_id for offer in mine})
    if old is not None:
        _free_locations(state, old.sidecar_id)
    for offer in mine:
        service = record_of(
            offer, state, moment, lease_ms=command.lease_ms, sidecar_id=command.sidecar_id
        )
        put_registration(state, service)
        location = location_of(offer.endpoint, command.endpoint)
        state.put(LocationRecord(location=location, sidecar_id=command.sidecar_id))
    put_registration(
        state,
        SidecarRecord(
            sidecar_id=command.sidecar_id,
            endpoint=command.endpoint,
            boot_id=command.boot_id,
            replaced_boots=replaced,
            pod_name=command.pod_name,
            namespace=command.namespace,
            labels=dict(sorted(command.labels.items())),
            version=command.version,
            service_ids=tuple(sorted(offer.service_id for offer in mine)),
            lease_ms=command.lease_ms,
            draining=old is not None and old.draining and old.boot_id == command.boot_id,
            registered_ms=moment.timestamp_ms if old is None else old.registered_ms,
            last_heartbeat_ms=moment.timestamp_ms,
            registered_revision=moment.index,
        ),
    )
    change_boot(state, command.sidecar_id, command.boot_id, moment)
    return Outcome(refused=tuple(refused))


def _replaced_boots(old: SidecarRecord | None, command: RegisterSidecar) -> tuple[str, ...]:
    """The boots that may not come back, this registration's predecessor included."""
    if old is None or old.boot_id == command.boot_id:
        return () if old is None else old.replaced_boots
    if command.boot_id in old.replaced_boots and old.health is not ServiceHealth.UNHEALTHY:
        raise CommandRejected(
            "outdated",
            f"another process has registered as sidecar {command.sidecar_id!r} since (boot"
            f" {old.boot_id!r}, at {old.endpoint}); give each sidecar an id and a data directory"
            " of its own, or stop one of the two",
        )
    others = [boot for boot in old.replaced_boots if boot != command.boot_id]
    return (*others, old.boot_id)[-REPLACED_BOOTS_MAX:]


def _settle(
    state: RouterState, command: RegisterSidecar
) -> tuple[list[ServiceOffer], list[Refusal]]:
    mine: list[ServiceOffer] = []
    refused: list[Refusal] = []
    for position, offer in enumerate(command.services):
        holder = ""
        claim = state.service_locations.get(location_of(offer.endpoint, command.endpoint))
        known = state.services.get(offer.service_id)
        if claim is not None and claim.sidecar_id != command.sidecar_id:
            other = state.sidecars.get(claim.sidecar_id)
            # Who is silent holds nothing: its claim goes to the one that speaks.
            if other is not None and other.health is not ServiceHealth.UNHEALTHY:
                holder = claim.sidecar_id
        if not holder and known is not None and known.sidecar_id != command.sidecar_id:
            holder = known.sidecar_id or "(registered without a sidecar)"
        if holder:
            message = f"{offer.endpoint} is registered by {holder}"
            refused.append(
                Refusal(position, offer.service_id, RefusalCode.TAKEN, message, holder=holder)
            )
        else:
            mine.append(offer)
    return mine, refused


def _drop_services(
    state: RouterState,
    sidecar: SidecarRecord | None,
    keep: frozenset[str] | set[str],
    reason: str = "",
) -> None:
    for service_id in sidecar.service_ids if sidecar is not None else ():
        service = state.services.get(service_id)
        if service is not None and service_id not in keep:
            state.drop(service, reason)


def _free_locations(state: RouterState, sidecar_id: str) -> None:
    held = [row for row in state.service_locations.values() if row.sidecar_id == sidecar_id]
    for row in held:
        state.drop(row)


def _remove(state: RouterState, sidecar: SidecarRecord, moment: Moment, reason: str) -> None:
    release_all(state, sidecar.sidecar_id, moment)
    because = f"sidecar {sidecar.sidecar_id}: {reason}"
    _drop_services(state, sidecar, keep=frozenset(), reason=because)
    _free_locations(state, sidecar.sidecar_id)
    state.drop(sidecar, reason)


def deregister_sidecar(state: RouterState, command: DeregisterSidecar, moment: Moment) -> Outcome:
    """Remove the sidecar with all that it has."""
    old = state.sidecars.get(command.sidecar_id)
    if old is None:
        return Outcome()
    if command.boot_id and old.boot_id != command.boot_id:
        raise CommandRejected(
            "outdated",
            f"sidecar {command.sidecar_id!r} has started again as {old.boot_id!r};"
            f" boot {command.boot_id!r} cannot deregister it",
        )
    _remove(state, old, moment, "it deregistered")
    return Outcome()


def drain_sidecar(state: RouterState, command: DrainSidecar, moment: Moment) -> Outcome:
    """Mark the sidecar: it gets nothing more."""
    old = _known(state, command.sidecar_id)
    state.put(replace(old, draining=True, health_reason=command.reason or old.health_reason))
    return Outcome()


def update_sidecar_health(
    state: RouterState, command: UpdateSidecarHealth, moment: Moment
) -> Outcome:
    """Record the health of the sidecar and, where it follows from that, of its services."""
    old = _known(state, command.sidecar_id)
    if command.registered_revision and old.registered_revision != command.registered_revision:
        raise CommandRejected(
            "outdated", f"sidecar {command.sidecar_id!r} has registered again since"
        )
    state.put(replace(old, health=command.health, health_reason=command.reason))
    silent = command.health is ServiceHealth.UNHEALTHY
    because = f"sidecar {old.sidecar_id}: "
    for service_id in old.service_ids:
        service = state.services.get(service_id)
        if service is None:
            continue
        if silent:
            reason = (because + command.reason)[:1_024]
            state.put(replace(service, health=command.health, health_reason=reason))
        elif service.health_reason.startswith(because):
            state.put(replace(service, health=command.health, health_reason=command.reason))
    return Outcome()


def expire_sidecars(state: RouterState, command: ExpireSidecars, moment: Moment) -> Outcome:
    """Remove sidecars whose registrations have ended, each judged by itself."""
    refused = []
    for position, expiry in enumerate(command.sidecars):
        old = state.sidecars.get(expiry.id)
        if old is None:
            refused.append(
                Refusal(position, expiry.id, RefusalCode.UNKNOWN, "it is not registered")
            )
        elif old.registered_revision != expiry.registered_revision:
            message = "it has registered again since"
            refused.append(Refusal(position, expiry.id, RefusalCode.OUTDATED, message))
        else:
            _remove(state, old, moment, expiry.reason)
    return Outcome(refused=tuple(refused))


def _known(state: RouterState, sidecar_id: str) -> SidecarRecord:
    sidecar = state.sidecars.get(sidecar_id)
    if sidecar is None:
        raise CommandRejected("unknown", f"no sidecar {sidecar_id!r} is registered")
    return sidecar
