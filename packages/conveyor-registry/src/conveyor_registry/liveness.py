"""Who is alive, in the leader's memory, and what follows from it.

What for: heartbeats come by the thousand and never enter the log. The leader notes here when it
last heard of each service, sidecar and group member; `decide` turns silence into the few commands
that are worth recording, each with its reason, by the rules of `core/leases`.

Rules kept: memory belongs to one leadership. `begin` starts it (a full lease of grace for
everybody), `end` forgets it. Time is an argument, in monotonic milliseconds. Everything is bounded
by what is registered: what is gone from the agreed state is forgotten at the next `decide`.

The order of a leader's duty: `decide`, propose the commands, and after any successful proposal
`confirm_quorum`, which is the proof that the guard against mass expiry waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from conveyor_raft.machines.router import (
    Expiry,
    LeaseRenewal,
    RouterCommand,
    RouterState,
    ServiceHealth,
    ServiceRecord,
    SidecarRecord,
)
from conveyor_registry.core.groups import leaving
from conveyor_registry.core.leases import (
    HEALTHY,
    REMOVED,
    UNHEALTHY,
    Lease,
    Verdict,
    is_mass_expiry,
    judge,
    silence,
    suspects,
)

K = TypeVar("K")
T = TypeVar("T", ServiceRecord, SidecarRecord)

RENEWALS_MAX = 1_000
"""Renewals in one command."""


@dataclass(frozen=True, slots=True)
class HeldExpiry:
    """An expiry that the guard holds back."""

    sidecar_id: str
    silent_ms: int
    reason: str


@dataclass(slots=True)
class _Seen:
    at_ms: int
    spoke: bool = False
    registered_revision: int = 0


@dataclass(frozen=True, slots=True)
class LivenessOptions:
    """Intervals of the leader's memory."""

    member_lease_ms: int = 30_000
    renewal_interval_ms: int = 30_000
    """How often last-heard times are recorded, to outlive a change of leader; 0: never."""


@dataclass(slots=True)
class Liveness:
    """The leader's memory of heartbeats."""

    options: LivenessOptions = LivenessOptions()
    _leading: bool = False
    _services: dict[str, _Seen] = field(default_factory=dict)
    _sidecars: dict[str, _Seen] = field(default_factory=dict)
    _members: dict[tuple[str, str], _Seen] = field(default_factory=dict)
    _held: tuple[HeldExpiry, ...] = ()
    _held_since_ms: int | None = None
    _confirmed: bool = False
    _released: bool = False
    _renewed_ms: int = 0

    @property
    def leading(self) -> bool:
        """Whether this memory belongs to the present leader."""
        return self._leading

    @property
    def held(self) -> tuple[HeldExpiry, ...]:
        """Expiries that the guard holds back now."""
        return self._held

    def begin(self, state: RouterState, now_ms: int) -> None:
        """This node leads now: everybody has a full lease from here."""
        self.end()
        self._leading = True
        self._renewed_ms = now_ms
        self._follow(state, now_ms)

    def end(self) -> None:
        """This node leads no longer: forget everything."""
        self._leading = False
        self._services.clear()
        self._sidecars.clear()
        self._members.clear()
        self._drop_guard()

    # Heartbeats

    def beat_service(self, service_id: str, now_ms: int) -> None:
        """A service was heard of; the caller has checked that it is registered."""
        _note(self._services, service_id, now_ms)

    def beat_sidecar(self, sidecar_id: str, now_ms: int) -> None:
        """A sidecar was heard of; the caller has checked that this boot of it is registered."""
        _note(self._sidecars, sidecar_id, now_ms)

    def beat_member(self, group_id: str, member_id: str, now_ms: int) -> None:
        """A group's member was heard of."""
        _note(self._members, (group_id, member_id), now_ms)

    def silent_ms(self, now_ms: int, *, sidecar_id: str = "", service_id: str = "") -> int | None:
        """For how long somebody has been silent; None: not heard of since this leader leads."""
        seen = self._sidecars.get(sidecar_id) if sidecar_id else self._services.get(service_id)
        return None if seen is None or not seen.spoke else max(0, now_ms - seen.at_ms)

    # The guard

    def confirm_quorum(self) -> None:
        """A proposal was committed: this leader still leads a quorum."""
        if self._held_since_ms is not None:
            self._confirmed = True

    def release(self) -> None:
        """An operator says that the held expiries are real."""
        self._released = True

    # Decisions

    def decide(
        self, state: RouterState, now_ms: int, wall_ms: int | None = None
    ) -> list[RouterCommand]:
        """What should be recorded now.

        Args:
            state: The agreed state.
            now_ms: Monotonic time, as in all other calls.
            wall_ms: Wall time at the same moment; None: record no last-heard times.
        """
        if not self._leading:
            return []
        self._follow(state, now_ms)
        commands = self._sidecar_commands(state, now_ms)
        commands += self._service_commands(state, now_ms)
        commands += self._member_commands(state, now_ms)
        if wall_ms is not None:
            commands += self._renewals(now_ms, wall_ms)
        return commands

    def _follow(self, state: RouterState, now_ms: int) -> None:
        own = {key: row for key, row in state.services.items() if not row.sidecar_id}
        _follow(self._services, own, now_ms)
        _follow(self._sidecars, state.sidecars, now_ms)
        members = {(g.group_id, m.member_id) for g in state.groups.values() for m in g.members}
        for gone in [key for key in self._members if key not in members]:
            del self._members[gone]
        for key in members:
            self._members.setdefault(key, _Seen(now_ms))

    def _sidecar_commands(self, state: RouterState, now_ms: int) -> list[RouterCommand]:
        leases = _leases(self._sidecars, state.sidecars, now_ms)
        spared = self._guard(leases, now_ms)
        verdicts = [v for v in map(judge, leases) if v is not None and v.id not in spared]
        commands: list[RouterCommand] = [
            RouterCommand.UpdateSidecarHealth(
                sidecar_id=verdict.id,
                health=_HEALTH[verdict.step],
                reason=verdict.reason,
                registered_revision=state.sidecars[verdict.id].registered_revision,
            )
            for verdict in verdicts
            if verdict.step != REMOVED
        ]
        ended = _expiries(verdicts, state.sidecars)
        if ended:
            commands.append(RouterCommand.ExpireSidecars(sidecars=ended))
        return commands

    def _service_commands(self, state: RouterState, now_ms: int) -> list[RouterCommand]:
        own = {key: row for key, row in state.services.items() if not row.sidecar_id}
        verdicts = [v for v in map(judge, _leases(self._services, own, now_ms)) if v is not None]
        commands: list[RouterCommand] = [
            RouterCommand.UpdateServiceHealth(
                service_id=verdict.id, health=_HEALTH[verdict.step], reason=verdict.reason
            )
            for verdict in verdicts
            if verdict.step != REMOVED
        ]
        ended = _expiries(verdicts, own)
        if ended:
            commands.append(RouterCommand.ExpireServices(services=ended))
        return commands

    def _member_commands(self, state: RouterState, now_ms: int) -> list[RouterCommand]:
        silent: dict[str, list[str]] = {}
        for (group_id, member_id), seen in sorted(self._members.items()):
            if now_ms - seen.at_ms >= self.options.member_lease_ms:
                silent.setdefault(group_id, []).append(member_id)
        return [leaving(state.groups[group_id], ids) for group_id, ids in silent.items()]

    def _guard(self, leases: list[Lease], now_ms: int) -> frozenset[str]:
        fresh = suspects(leases)
        # Whoever the guard has held once stays under it until it speaks or is let go.
        before = {one.sidecar_id for one in self._held}
        held = [one for one in leases if one.silent_ms >= one.lease_ms and one.id in before]
        silent = {one.id: one for one in (*held, *fresh)}
        if not is_mass_expiry(len(silent), len(leases)):
            self._drop_guard()
            return frozenset()
        if self._held_since_ms is None:
            self._held_since_ms = now_ms
        wait_ms = max(one.lease_ms for one in silent.values())
        if self._released or (self._confirmed and now_ms - self._held_since_ms >= wait_ms):
            self._held = ()
            return frozenset()
        why = (
            f"{len(silent)} of {len(leases)} sidecars fell silent within one lease;"
            " held back until a quorum confirms and one further lease has passed"
        )
        self._held = tuple(
            HeldExpiry(one.id, one.silent_ms, f"{silence(one)}; {why}")
            for _, one in sorted(silent.items())
        )
        return frozenset(silent)

    def _drop_guard(self) -> None:
        self._held, self._held_since_ms = (), None
        self._confirmed = self._released = False

    def _renewals(self, now_ms: int, wall_ms: int) -> list[RouterCommand]:
        interval = self.options.renewal_interval_ms
        if not interval or now_ms - self._renewed_ms < interval:
            return []
        since, self._renewed_ms = self._renewed_ms, now_ms

        def heard(memory: Mapping[str, _Seen]) -> list[LeaseRenewal]:
            return [
                LeaseRenewal(id=key, at_ms=max(0, wall_ms - (now_ms - seen.at_ms)))
                for key, seen in sorted(memory.items())
                if seen.spoke and seen.at_ms > since
            ]

        services, sidecars = heard(self._services), heard(self._sidecars)
        commands: list[RouterCommand] = []
        for part in _slices(services):
            commands.append(RouterCommand.RenewLeases(services=part))
        for part in _slices(sidecars):
            commands.append(RouterCommand.RenewLeases(sidecars=part))
        return commands


_HEALTH: Mapping[str, ServiceHealth] = {
    UNHEALTHY: ServiceHealth.UNHEALTHY,
    HEALTHY: ServiceHealth.HEALTHY,
}


def _note(memory: dict[K, _Seen], key: K, now_ms: int) -> None:
    seen = memory.setdefault(key, _Seen(now_ms))
    seen.at_ms, seen.spoke = max(seen.at_ms, now_ms), True


def _follow(memory: dict[str, _Seen], records: Mapping[str, T], now_ms: int) -> None:
    for gone in [key for key in memory if key not in records]:
        del memory[gone]
    for key, record in records.items():
        seen = memory.get(key)
        if seen is None:
            # Recorded as unhealthy: its first lease is used up, the two others are not.
            used = record.lease_ms if record.health is ServiceHealth.UNHEALTHY else 0
            memory[key] = _Seen(now_ms - used, registered_revision=record.registered_revision)
        elif seen.registered_revision != record.registered_revision:
            seen.registered_revision = record.registered_revision
            seen.at_ms = now_ms


def _leases(memory: Mapping[str, _Seen], records: Mapping[str, T], now_ms: int) -> list[Lease]:
    return [
        Lease(
            id=key,
            lease_ms=records[key].lease_ms,
            silent_ms=max(0, now_ms - seen.at_ms),
            spoke=seen.spoke,
            unhealthy=records[key].health is ServiceHealth.UNHEALTHY,
        )
        for key, seen in sorted(memory.items())
        if key in records
    ]


def _expiries(verdicts: Iterable[Verdict], records: Mapping[str, T]) -> tuple[Expiry, ...]:
    return tuple(
        Expiry(
            id=verdict.id,
            registered_revision=records[verdict.id].registered_revision,
            reason=verdict.reason,
        )
        for verdict in verdicts
        if verdict.step == REMOVED
    )


def _slices(renewals: list[LeaseRenewal]) -> list[tuple[LeaseRenewal, ...]]:
    return [
        tuple(renewals[start : start + RENEWALS_MAX])
        for start in range(0, len(renewals), RENEWALS_MAX)
    ]
