"""`ServiceRegistry`: services with leases and health on a replicated log.

What for: `register` and `deregister` are agreed facts; `heartbeat` is a note in the leader's memory
that costs no log entry; `cleanup_expired` turns silence into recorded decisions (unhealthy after
one lease, removed after two more). Queries read this node's own state and work on every node, also
while no leader is known.

Rules kept: writes and heartbeats belong to the leader and raise `NotLeader` (with its address)
elsewhere. `register` is idempotent. A heartbeat of somebody unknown raises `NotRegistered`, whose
remedy is to register again. Each write has a deadline.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from pydantic import ValidationError

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import (
    Outcome,
    RouterCommand,
    RouterState,
    ServiceHealth,
    ServiceType,
)
from conveyor_registry.errors import InvalidRegistration, NotRegistered
from conveyor_registry.liveness import Liveness
from conveyor_registry.model import nearest
from conveyor_registry.port import RaftPort
from conveyor_registry.views import RegisteredService

LEASE_DEFAULT = timedelta(seconds=30)
HEARTBEAT_DEFAULT = timedelta(seconds=10)
DEADLINE_S = 5.0


def monotonic_ms() -> int:
    """The process's monotonic time."""
    return time.monotonic_ns() // 1_000_000


class ServiceRegistry:
    """Register, find, keep alive and clean up services.

    Args:
        raft_node: The replicated log.
        liveness: The leader's memory, where a process shares one between its parts.
        lease: What `register` grants unless told otherwise.
        clock: Monotonic milliseconds.
    """

    def __init__(
        self,
        raft_node: RaftPort,
        *,
        liveness: Liveness | None = None,
        lease: timedelta = LEASE_DEFAULT,
        clock: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._raft = raft_node
        self._liveness = liveness or Liveness()
        self._shared = liveness is not None
        self._lease = lease
        self._clock = clock

    @classmethod
    def new(cls, raft_node: RaftPort) -> ServiceRegistry:
        """A registry with the defaults."""
        return cls(raft_node)

    @property
    def liveness(self) -> Liveness:
        """The leader's memory of heartbeats."""
        return self._liveness

    # Writing: the leader

    async def register(  # noqa: PLR0917 - the positions are the specification's
        self,
        service_id: str,
        service_name: str,
        service_type: ServiceType,
        endpoint: str,
        labels: Mapping[str, str] | None = None,
        group_id: str | None = None,
        *,
        lease: timedelta | None = None,
        namespace: str = "default",
    ) -> timedelta:
        """Register a service that has no sidecar; again is the same as once.

        Returns:
            The lease: to be renewed by heartbeats, at best three times as often.

        Raises:
            InvalidRegistration: a name, label or lease is outside its bounds.
            conveyor_raft.CommandRejected: the id belongs to a sidecar's service.
            conveyor_raft.NotLeader: this node does not lead; the error says who does.
        """
        granted = self._lease if lease is None else lease
        try:
            command = RouterCommand.RegisterService(
                service_id=service_id,
                service_name=service_name,
                service_type=service_type,
                endpoint=endpoint,
                labels=dict(labels or {}),
                group_id=group_id or "",
                namespace=namespace,
                lease_ms=round(granted.total_seconds() * 1_000),
            )
        except ValidationError as error:
            raise InvalidRegistration.of(f"service {service_id!r}", error) from error
        await self._propose(command)
        self._remember(await self._raft.state())
        self._liveness.beat_service(service_id, self._clock())
        return granted

    async def deregister(self, service_id: str) -> bool:
        """Remove a service; tell whether it was there."""
        return (await self._propose(RouterCommand.DeregisterService(service_id=service_id))).changed

    async def heartbeat(
        self,
        service_id: str,
        health: ServiceHealth = ServiceHealth.HEALTHY,
        reason: str = "",
    ) -> timedelta:
        """Note that a service is alive; only a change of its health is recorded.

        Returns:
            The lease, counted from now.

        Raises:
            NotRegistered: register (again).
            conveyor_raft.NotLeader: this node does not lead; the error says who does.
        """
        state = await self._lead()
        record = state.services.get(service_id)
        if record is None:
            raise NotRegistered("service", service_id, nearest(service_id, state.services))
        self._liveness.beat_service(service_id, self._clock())
        if (record.health, record.health_reason) != (health, reason):
            await self._propose(
                RouterCommand.UpdateServiceHealth(
                    service_id=service_id, health=health, reason=reason
                )
            )
        return timedelta(milliseconds=record.lease_ms)

    async def cleanup_expired(self) -> list[str]:
        """Record what silence means now.

        Returns:
            The ids of the services that were removed.
        """
        state = await self._lead()
        commands = self._liveness.decide(state, self._clock())
        before = set(state.services)
        for command in commands:
            # A refusal means that the log overtook the decision: the next look decides anew.
            with contextlib.suppress(CommandRejected):
                await self._propose(command)
                self._liveness.confirm_quorum()
        return sorted(before - set((await self._raft.state()).services))

    # Reading: every node

    async def get_service(self, service_id: str) -> RegisteredService | None:
        """One service, if it is registered."""
        record = (await self._raft.state()).services.get(service_id)
        return None if record is None else RegisteredService.of(record)

    async def get_services(
        self,
        *,
        name: str | None = None,
        service_type: ServiceType | None = None,
        labels: Mapping[str, str] | None = None,
        healthy: bool = False,
        namespace: str | None = None,
    ) -> list[RegisteredService]:
        """The services that fit, by id."""
        wanted = dict(labels or {})
        state = await self._raft.state()
        return [
            RegisteredService.of(record)
            for _, record in sorted(state.services.items())
            if (name is None or record.service_name == name)
            and (service_type is None or record.service_type is service_type)
            and (not healthy or record.health is ServiceHealth.HEALTHY)
            and (namespace is None or record.namespace == namespace)
            and all(record.labels.get(key) == value for key, value in wanted.items())
        ]

    async def get_services_by_name(self, service_name: str) -> list[RegisteredService]:
        """The services of a name, whatever their health."""
        return await self.get_services(name=service_name)

    async def get_services_by_type(self, service_type: ServiceType) -> list[RegisteredService]:
        """The services of a kind, whatever their health."""
        return await self.get_services(service_type=service_type)

    async def get_services_by_labels(self, labels: Mapping[str, str]) -> list[RegisteredService]:
        """The services that have all these labels, whatever their health."""
        return await self.get_services(labels=labels)

    async def get_healthy_services_by_labels(
        self, labels: Mapping[str, str]
    ) -> list[RegisteredService]:
        """The healthy services that have all these labels."""
        return await self.get_services(labels=labels, healthy=True)

    # Within

    async def _lead(self) -> RouterState:
        """The state, on the leader."""
        self._remember(await self._raft.state())
        if not self._raft.is_leader:
            # The log knows best who leads: it refuses, and says where to go.
            await self._propose(RouterCommand.Noop())
        return await self._raft.state()

    def _remember(self, state: RouterState) -> None:
        """Begin or end an own memory of heartbeats as leadership changed."""
        if self._shared or self._liveness.leading == self._raft.is_leader:
            return
        if self._raft.is_leader:
            self._liveness.begin(state, self._clock())
        else:
            self._liveness.end()

    async def _propose(self, command: RouterCommand) -> Outcome:
        return await self._raft.propose(command, timeout=DEADLINE_S)
