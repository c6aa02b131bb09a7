"""The end of a run: without faults, a cluster that is worth its name comes to rest.

What for: under faults, no rule may break, but a node that does nothing breaks none either. So in
the end everything heals, and then somebody must lead, every proposal must end, and all nodes must
be in equal states. What a crash or a partition has left behind shows here.

Rules kept: liveness is judged by progress, not by time alone; a machine that does not belong to the
cluster any more is switched off, as operators do, and owes nothing.
"""

from __future__ import annotations

from conveyor_raft.core.membership import Membership
from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.core.types import NodeId, RaftRole
from conveyor_raft.testing.violated import Violated
from conveyor_raft.testing.world import World

_SERVE_MS = 500
_PATIENCE_ELECTIONS = 10


class Settling:
    """The end phase of one world, from which all faults are gone."""

    def __init__(self, world: World) -> None:
        """Prepare."""
        self._world = world
        self._strangers: set[int] = set()

    def run(self) -> None:
        """Serve a while, then go on until all is quiet and equal.

        Raises:
            Violated: nothing has moved for longer than ten elections take.
        """
        world = self._world
        quiet_from = world.now + _SERVE_MS
        while world.now < quiet_from:
            world.step()
        world.knobs = world.knobs.quiet()
        patience_ms = _PATIENCE_ELECTIONS * world.knobs.options.election_timeout_max_ms
        give_up, furthest = world.now + patience_ms, 0
        while not self._is_over():
            for _ in range(20):
                world.step()
            self._switch_off_strangers()
            reached = sum(
                node.core.applied_index + node.disk.last_index for node in world.nodes.values()
            )
            if reached > furthest:
                give_up, furthest = world.now + patience_ms, reached
            elif world.now > give_up:
                raise Violated("liveness", f"nothing moved for {patience_ms} ms: {world}")
        world.invariants.at_the_end()
        for node in world.nodes.values():
            if not node.down:
                node.machine.capture()
                world.count_core(node)
        if world.clients is not None:
            world.clients.at_the_end()

    def _membership(self) -> Membership | None:
        """Return what the newest leader works with, if it is in force for good."""
        leader: RaftCore | None = None
        for node in self._world.nodes.values():
            core = node.core
            newer = leader is None or core.term > leader.term
            if not node.down and core.role is RaftRole.LEADER and newer:
                leader = core
        if leader is None:
            return None
        since, membership = leader.configurations[-1]
        return None if membership.joint or since > leader.commit_index else membership

    def _switch_off_strangers(self) -> None:
        """Do what operators do with machines that do not belong to the cluster any more."""
        membership = self._membership()
        if membership is None:
            return
        for node in self._world.nodes.values():
            member = membership.get(NodeId(node.node_id))
            known = member is not None and member.incarnation == node.identity.incarnation
            if not known and not node.down:
                self._world.kill(node)
                self._strangers.add(node.node_id)

    def _is_over(self) -> bool:
        """Whether one leads, nobody waits, and all nodes are equal."""
        states = set()
        leaders = 0
        if self._membership() is None:
            return False
        for node in self._world.nodes.values():
            if node.node_id in self._strangers:
                continue
            core = node.core
            if node.down or core.applied_index != core.last_id.index or node.disk.pending:
                return False
            leaders += core.role is RaftRole.LEADER
            states.add((core.last_id, node.state, node.state_index))
        return (
            leaders == 1
            and len(states) == 1
            and not self._world.invariants.open_tokens
            and not self._world.promises
        )
