"""What the services of one router share: its node, what the leader hears, and when it may answer.

Questions about agreed facts and everything that changes them go to the leader, and only once it
has caught up with all that earlier leaders agreed on: `leader_state` and `propose` refuse before.
Whoever leads calls `begin_leading` when that is so. Tables for sidecars and the status of a node
come from what this node has applied, whatever its role.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from conveyor_grpc.errors import NotLeaderError, NotReadyError
from conveyor_grpc.services.counters import CountersBook
from conveyor_grpc.services.feed import StateFeed
from conveyor_raft.errors import NotLeader
from conveyor_raft.machines.router import (
    Outcome,
    PositionCommit,
    Refusal,
    RouterCommand,
    RouterState,
)
from conveyor_raft.node import RaftNode
from conveyor_registry.liveness import Liveness

ORIGINS_MAX = 1_024

RouterNode = RaftNode[RouterCommand, Outcome, RouterState]


@dataclass(frozen=True, slots=True)
class ControlPlaneOptions:
    """What the routers' settings say and sidecars are told."""

    sidecar_heartbeat_ms: int = 5_000
    sidecar_lease_ms: int = 15_000
    service_heartbeat_ms: int = 10_000
    service_lease_ms: int = 30_000
    buffer_total_records_max: int = 100_000
    buffer_stage_records_max: int = 10_000
    buffer_backpressure_threshold: float = 0.8
    propose_timeout_s: float = 5.0
    version: str = ""


class PositionCommitter(Protocol):
    """Merges the position commits of many sidecars into few log entries."""

    async def commit(
        self, commits: Sequence[PositionCommit]
    ) -> tuple[int, Sequence[Refusal | None]]:
        """Return the revision after the commits and, for each of them in order, why it
        was refused.
        """
        ...


class ControlPlane:
    """One per router; the services and the duties of the leader hold it."""

    def __init__(
        self, node: RouterNode, committer: PositionCommitter, options: ControlPlaneOptions
    ) -> None:
        self.node = node
        self.committer = committer
        self.options = options
        self.feed = StateFeed(node)
        self.liveness = Liveness()
        self.counters = CountersBook()
        self._ready_term: int | None = None
        self._origins: dict[str, SpanContext] = {}

    async def begin_leading(self) -> None:
        """Catch up with all that was agreed on before, then answer.

        Raises:
            RaftError: this node does not lead (any more).
        """
        term = self.node.term
        await self.node.propose(RouterCommand.Noop(), timeout=self.options.propose_timeout_s)
        if self.node.term != term:
            raise NotLeader(term=self.node.term)
        self.liveness.begin(await self.node.state(), self.now_ms())
        self.counters.restart(self.wall_ms())
        self._ready_term = term

    def end_leading(self) -> None:
        """This node leads no more: forget what was heard."""
        self._ready_term = None
        self.liveness.end()

    @property
    def leading(self) -> bool:
        """Whether this node leads and has caught up."""
        return self.node.is_leader and self._ready_term == self.node.term

    def require_leading(self) -> None:
        """Raise unless this node leads and has caught up.

        Raises:
            NotLeaderError: another node leads, or nobody is known to.
            NotReadyError: this one leads but is still catching up.
        """
        if not self.node.is_leader:
            raise self.not_leader()
        if not self.leading:
            raise NotReadyError("this router has begun to lead and is catching up; try again")

    def not_leader(self) -> NotLeaderError:
        """Return the refusal that names who leads and where."""
        leader = self.node.leader_member
        addresses = self.member_addresses()
        if leader is None:
            return NotLeaderError(
                "no router leads at the moment (an election is on, or most routers are away)",
                term=self.node.term,
                member_addresses=addresses,
            )
        return NotLeaderError(
            f"router {leader.node_id} at {leader.client_address} leads, not this one",
            leader_id=leader.node_id,
            leader_address=leader.client_address,
            term=self.node.term,
            member_addresses=addresses,
        )

    def member_addresses(self) -> list[str]:
        """Return the client addresses of all routers."""
        return [member.client_address for member in self.node.members if member.client_address]

    def note_origin(self, pipeline_id: str) -> None:
        """Remember the present trace as the one in which a pipeline was changed."""
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            self._origins[pipeline_id] = context
            if len(self._origins) > ORIGINS_MAX:
                del self._origins[next(iter(self._origins))]

    def take_origin(self, pipeline_id: str) -> SpanContext | None:
        """Return, once, the trace in which a pipeline was changed."""
        return self._origins.pop(pipeline_id, None)

    @staticmethod
    def now_ms() -> int:
        """Return monotonic milliseconds, the liveness memory's time."""
        return time.monotonic_ns() // 1_000_000

    @staticmethod
    def wall_ms() -> int:
        """Return milliseconds since 1970, the log's time."""
        return time.time_ns() // 1_000_000

    def heard_ms(self, *, sidecar_id: str = "", service_id: str = "") -> int:
        """Return the wall time of the last heartbeat of a sidecar or service; 0: none yet."""
        silent = self.liveness.silent_ms(
            self.now_ms(), sidecar_id=sidecar_id, service_id=service_id
        )
        return 0 if silent is None else self.wall_ms() - silent

    async def leader_state(self) -> RouterState:
        """Return the agreed state on the leader; raises as `require_leading`."""
        self.require_leading()
        return await self.node.state()

    async def propose(self, command: RouterCommand) -> Outcome:
        """Have `command` agreed and applied; raises as `require_leading` and `RaftNode.propose`."""
        self.require_leading()
        return await self.node.propose(command, timeout=self.options.propose_timeout_s)
