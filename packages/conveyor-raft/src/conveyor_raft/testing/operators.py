"""The operators of a world: they change who belongs to the cluster, and lose disks.

They are as careless as the protocol allows (dead nodes are promoted, old intentions are repeated,
several voters are exchanged at once), with one exception: a voter whose disk is gone counts for
nothing, so they see to it that the others are a majority of every configuration.
"""

from __future__ import annotations

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.types import ZERO_ID, LogId, Member, NodeId, Proposed, RaftRole
from conveyor_raft.errors import InvalidChange
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.world import World

_TOKENS_FROM = 1 << 40


class Operators:
    """They go on until the faults of the world end."""

    def __init__(self, world: World) -> None:
        """Begin with no wish."""
        self._world = world
        self.rng = world.rng
        self._token = _TOKENS_FROM
        self._seen_version: LogId = ZERO_ID

    def change(self) -> None:
        """Ask somebody who may lead for a change."""
        world = self._world
        node = self._leader()
        membership = None if node is None else node.core.membership
        if node is None or membership is None:
            return
        change = self._draw(membership)
        version = LogId(node.core.last_id.index, node.core.term)
        self._token += 1
        node.core.tick(world.local(node))
        try:
            change.check(membership)
            if not self._survives(change.final(membership, version)):
                return
            answer = node.core.change_membership(change, token=self._token)
        except InvalidChange:
            world.counts["changes_invalid"] += 1
            return
        if isinstance(answer, Proposed):
            world.counts["changes"] += 1
            world.invariants.on_proposed(node, self._token, answer, ())
        else:
            world.counts["changes_refused"] += 1
        world.events += 1
        world.after_input(node)
        world.invariants.after_event(node)

    def wipe(self) -> None:
        """Take a node's disk away, and give it an empty one."""
        world = self._world
        node = world.nodes[self.rng.choice(world.ids)]
        if world.invariants.open_changes or not self._can_lose(node):
            return
        world.counts["wiped"] += 1
        if not node.down:
            world.kill(node)
        world.wipe(node)
        world.revive_later(node)

    def lose_tail(self) -> None:
        """Let a disk forget the end of what was durable; its storage notices, and says so."""
        world = self._world
        node = world.nodes[self.rng.choice(world.ids)]
        disk = node.disk
        start = 1 if disk.snapshot is None else disk.snapshot.meta.index
        if world.invariants.open_changes or not self._can_lose(node) or disk.last_index <= start:
            return
        world.counts["lost_tails"] += 1
        if not node.down:
            world.kill(node)
        disk.lose_tail(self.rng.randint(start + 1, disk.last_index), vote=world.rng.random() < 0.5)
        world.revive_later(node)

    def _leader(self) -> SimulatedNode | None:
        world = self._world
        running = [
            node
            for node in world.nodes.values()
            if not node.down and node.node_id not in world.paused
        ]
        if not running:
            return None
        if self.rng.random() < 0.1:
            return self.rng.choice(running)
        leaders = [node for node in running if node.core.role is RaftRole.LEADER]
        return max(leaders, key=lambda node: node.core.term, default=None)

    def _member(self, node_id: int) -> Member:
        node = self._world.nodes[node_id]
        return Member(NodeId(node_id), f"node-{node_id}:{node.life}", "", node.identity.incarnation)

    def _draw(self, membership: Membership) -> MembershipChange:
        rng = self.rng
        outside = [i for i in self._world.ids if membership.get(NodeId(i)) is None]
        voters, learners = list(membership.voters), list(membership.learners)
        present = [member.node_id for member in membership.members]
        add = [self._member(i) for i in rng.sample(outside, min(len(outside), rng.randint(0, 2)))]
        wish = rng.random()
        expected = rng.choice((None, membership.version, self._seen_version))
        if rng.random() < 0.3:
            self._seen_version = membership.version
        if wish < 0.15:
            return MembershipChange(add=tuple(add), expected=expected)
        if wish < 0.3:
            ids = tuple(member.node_id for member in add)
            return MembershipChange(add=tuple(add), promote=ids)
        if wish < 0.45 and learners:
            return MembershipChange(promote=(rng.choice(learners),), expected=expected)
        if wish < 0.55:
            return MembershipChange(demote=(rng.choice(voters),))
        if wish < 0.7:
            return MembershipChange(remove=(rng.choice(present),), expected=expected)
        if wish < 0.75:
            return MembershipChange(update=(self._member(rng.choice(present)),))
        promoted = [member.node_id for member in add] + [i for i in learners if rng.random() < 0.5]
        removed = rng.sample(voters, rng.randint(0, len(voters) // 2 + 1))
        demoted = [voter for voter in voters if voter not in removed and rng.random() < 0.2]
        return MembershipChange(tuple(add), tuple(promoted), tuple(demoted), tuple(removed))

    def _survives(self, membership: Membership, lost: int = 0) -> bool:
        """Whether those who still have the disk that they were added with can decide."""
        nodes = self._world.nodes
        for half in membership.halves:
            healthy = 0
            for voter in half:
                member = membership.get(voter)
                assert member is not None
                same_disk = member.incarnation == nodes[voter].identity.incarnation
                trusted = same_disk and not nodes[voter].disk.suspect
                healthy += trusted and voter != lost
            if 2 * healthy <= len(half):
                return False
        return True

    def _can_lose(self, node: SimulatedNode) -> bool:
        return all(
            self._survives(membership, node.node_id)
            for other in self._world.nodes.values()
            for _, membership in other.core.configurations
        )
