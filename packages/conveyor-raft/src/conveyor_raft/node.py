"""`RaftNode`: the one driver of the core (signatures first; the body follows)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from conveyor_raft.config import RaftConfig
from conveyor_raft.core.types import LogIndex, Member, NodeId, RaftRole, Term
from conveyor_raft.machines.base import StateMachine
from conveyor_raft.status import NodeEvent, RaftStatus

C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S")

Peers = Sequence[str] | Mapping[int, str] | Sequence[tuple[int, str]]
"""Raft addresses of the other nodes: plain, or with their ids. One's own entry is ignored."""


class RaftNode(Generic[C, R, S]):
    """One member of a cluster."""

    def __init__(
        self, config: RaftConfig, state_machine: StateMachine[C, R, S], peers: Peers = ()
    ) -> None: ...

    @classmethod
    async def new(
        cls, config: RaftConfig, state_machine: StateMachine[C, R, S], peers: Peers = ()
    ) -> Self:
        """Construct and start."""
        raise AssertionError

    async def start(self) -> None:
        """Open the disk, bind the port, form or join the cluster in the background."""

    async def shutdown(self) -> None:
        """Stop; every waiter is told. Safe to call twice."""

    async def __aenter__(self) -> Self:
        raise AssertionError

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def wait_stopped(self) -> None:
        """Return when the node has been shut down; raise `NodeStopped` when it stopped by itself."""

    async def propose(self, command: C, *, timeout: float | None = None) -> R:
        """Have the command agreed and applied; return what `apply` returned. Leader only."""
        raise AssertionError

    def propose_nowait(self, command: C) -> asyncio.Future[R]:
        """As `propose`, without waiting and without a time limit. Refusals raise at once."""
        raise AssertionError

    async def propose_many(
        self, commands: Sequence[C], *, timeout: float | None = None
    ) -> list[R | Exception]:
        """Propose a run of commands, in order, with one waiter; one outcome for each."""
        raise AssertionError

    async def state(self) -> S:
        """Return this node's own, applied state; on a follower it may be behind the leader's."""
        raise AssertionError

    async def wait_for_leader(self, timeout: float | None = None) -> Member:
        """Return the leader's member record; raise TimeoutError, or what stopped the node."""
        raise AssertionError

    async def wait_applied(self, index: int, timeout: float | None = None) -> None:
        """Return when everything up to `index` is in the state."""

    def watch(self) -> AsyncIterator[NodeEvent]:
        """Yield changes of leadership and of the applied index, newest level, until shutdown."""
        raise AssertionError

    def status(self) -> RaftStatus:
        """One picture of the node."""
        raise AssertionError

    def statistics(self) -> dict[str, int]:
        """Counters since the start."""
        raise AssertionError

    node_id: NodeId
    cluster_id: str
    is_leader: bool
    role: RaftRole
    term: Term
    leader_id: NodeId | None
    leader_member: Member | None
    members: tuple[Member, ...]
    commit_index: LogIndex
    applied_index: LogIndex
    address: str
    """The bound raft address."""
