"""What can be seen of a node from outside: its levels of now, and how to wait for other ones.

What for: a node is looked at far more often than it is asked for something, by tests, by operators
and by upper layers that follow the leader. All of that is here; `node` holds what one can do.

Rules kept: looking changes nothing and works at any time, before there is a cluster and after the
end; who waits is told when the node stops.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from conveyor_raft.core.types import LogIndex, Member, NodeId, RaftRole, Term
from conveyor_raft.errors import ShuttingDown
from conveyor_raft.life import Life
from conveyor_raft.network import RaftNetwork
from conveyor_raft.status import Applied, LeadershipChanged, PeerStatus, RaftStatus
from conveyor_raft.watch import Watcher

C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S")

_NOBODY = LeadershipChanged(RaftRole.FOLLOWER, Term(0), None)


class NodeViews(Generic[C, R, S]):
    """The read-only side of `RaftNode`."""

    network: RaftNetwork
    _life: Life[C, R, S]

    async def wait_for_leader(self, timeout: float | None = None) -> Member:
        """Return the leader as soon as this node knows one.

        Raises:
            TimeoutError: there was none in time; `status().waiting_for` may say why.
            NodeStopped: the node has stopped by itself.
        """
        async with asyncio.timeout(timeout):
            async for _ in self.watch():
                if (leader := self.leader_member) is not None:
                    return leader
        self._life.raise_failure()
        raise ShuttingDown("the node was shut down")

    async def wait_applied(self, index: int, timeout: float | None = None) -> None:
        """Return when everything up to the index is in this node's state."""
        async with asyncio.timeout(timeout):
            async for event in self.watch():
                if isinstance(event, Applied) and event.index >= index:
                    return
        self._life.raise_failure()
        raise ShuttingDown("the node was shut down")

    def watch(self) -> Watcher:
        """Return an async iterator over `NodeEvent`: the levels of now, then every change.

        A slow watcher sees the newest level, not each step. It ends when the node stops.
        """
        driver = self._life.driver
        leadership = _NOBODY if driver is None else driver.leadership()
        return self._life.watchers.add(leadership, Applied(self.applied_index))

    def status(self) -> RaftStatus:
        """Return one picture of the node."""
        driver = self._life.driver
        peers = []
        if driver is not None:
            peers = [
                PeerStatus(member.node_id, member.raft_address, member.node_id in driver.connected)
                for member in driver.members
                if member.node_id != driver.identity.node_id
            ]
        return RaftStatus(
            node_id=self.node_id,
            cluster_id=self.cluster_id,
            role=self.role,
            term=self.term,
            leader_id=self.leader_id,
            last_index=LogIndex(0) if driver is None else driver.core.last_id.index,
            commit_index=self.commit_index,
            applied_index=self.applied_index,
            snapshot_index=self._snapshot_index,
            members=self.members,
            peers=tuple(peers),
            waiting_for=self.network.waiting_for,
            stopped_because=None if self._life.failure is None else str(self._life.failure),
            statistics=self.statistics(),
        )

    def statistics(self) -> dict[str, int]:
        """Return counters since the start."""
        return {} if self._life.driver is None else self._life.driver.statistics()

    @property
    def node_id(self) -> NodeId:
        """This node."""
        return self._life.own.node_id

    @property
    def address(self) -> str:
        """The raft address that the peers are told; empty before the start."""
        return self._life.own.raft_address

    @property
    def cluster_id(self) -> str:
        """The cluster, as hexadecimal digits; empty while there is none."""
        return "" if self._life.driver is None else self._life.driver.identity.cluster_id.hex()

    @property
    def role(self) -> RaftRole:
        """What this node is at the moment."""
        return RaftRole.FOLLOWER if self._life.driver is None else self._life.driver.core.role

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.role is RaftRole.LEADER

    @property
    def term(self) -> Term:
        """The newest term that this node has seen."""
        return Term(0) if self._life.driver is None else self._life.driver.core.term

    @property
    def leader_id(self) -> NodeId | None:
        """Who leads, as far as this node knows."""
        return None if self._life.driver is None else self._life.driver.core.leader_id

    @property
    def leader_member(self) -> Member | None:
        """The leader with its addresses."""
        return None if self._life.driver is None else self._life.driver.member(self.leader_id)

    @property
    def members(self) -> tuple[Member, ...]:
        """The membership in force; empty while there is no cluster."""
        return () if self._life.driver is None else self._life.driver.members

    @property
    def commit_index(self) -> LogIndex:
        """Everything up to here is agreed, as far as this node knows."""
        return LogIndex(0) if self._life.driver is None else self._life.driver.core.commit_index

    @property
    def applied_index(self) -> LogIndex:
        """Everything up to here is in this node's state."""
        return LogIndex(0) if self._life.driver is None else self._life.driver.applier.index

    @property
    def _snapshot_index(self) -> LogIndex:
        snapshot = None if self._life.driver is None else self._life.driver.core.snapshot
        return LogIndex(0) if snapshot is None else snapshot.index
