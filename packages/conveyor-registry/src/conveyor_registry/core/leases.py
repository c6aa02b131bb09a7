"""Leases: from who was last heard of when, to what the leader should record.

The rules, which hold for services, sidecars and members of groups alike (a member only leaves):

* silent for one lease: unhealthy;
* silent for two leases more: removed;
* heard of again while unhealthy: healthy.

A new leader has heard of nobody, so it begins as if everybody had just spoken: a full lease for
all. Who was recorded as unhealthy has used its one lease, and has the two others left.

The guard: if within one lease more than 30 per cent of the sidecars, and at least five, fall
silent, then it is more likely that the routers are the ones who cannot hear (Eureka's self
preservation, Envoy's panic threshold). Nothing is recorded about them until a quorum has confirmed
that this leader still leads and a further lease has passed, or an operator lets go.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

LEASES_UNTIL_REMOVED = 3
GUARD_SHARE = 0.3
GUARD_COUNT_MIN = 5


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease at one moment."""

    id: str
    lease_ms: int
    silent_ms: int
    spoke: bool
    """Whether it was heard of since this leader leads."""
    unhealthy: bool
    """Whether it is recorded as unhealthy."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What should be recorded about one lease."""

    id: str
    step: str
    """``unhealthy``, ``healthy`` or ``removed``."""
    reason: str


UNHEALTHY = "unhealthy"
HEALTHY = "healthy"
REMOVED = "removed"


def judge(lease: Lease) -> Verdict | None:
    """What one lease's silence means; None: nothing new."""
    if lease.silent_ms >= LEASES_UNTIL_REMOVED * lease.lease_ms:
        return Verdict(lease.id, REMOVED, silence(lease))
    if lease.silent_ms >= lease.lease_ms:
        return None if lease.unhealthy else Verdict(lease.id, UNHEALTHY, silence(lease))
    if lease.unhealthy and lease.spoke:
        return Verdict(lease.id, HEALTHY, "it is heard of again")
    return None


def silence(lease: Lease) -> str:
    """The reason in words."""
    return (
        f"not heard of for {lease.silent_ms / 1_000:.1f} s,"
        f" its lease is {lease.lease_ms / 1_000:.1f} s"
    )


def suspects(leases: Collection[Lease]) -> list[Lease]:
    """Whose lease has ended within the last lease."""
    return [one for one in leases if one.lease_ms <= one.silent_ms < 2 * one.lease_ms]


def is_mass_expiry(silent: int, total: int) -> bool:
    """Whether so many fell silent together that the routers should doubt themselves."""
    return silent >= GUARD_COUNT_MIN and silent > GUARD_SHARE * total
