"""What must hold of configurations: whoever decides meets whoever decided before.

Rules checked:

* configurations meet: any quorum of a configuration shares a member with any quorum of the one
  before it, by trying all groups of members;
* one change at a time: a leader appends a configuration only when the one before is committed;
* own term first: and only when an entry of its own term is committed;
* removed nodes never win: who leads is a voter, or does not know that its removal is committed;
* learners do not ask: who was never a voter as far as its log tells asks for no votes;
* in force when appended: what is in force is the newest configuration of the log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import combinations

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.types import EntryKind, LogIndex, RaftRole
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.violated import Violated

Halves = Sequence[Sequence[int]]


def is_quorum(halves: Halves, nodes: Collection[int]) -> bool:
    """Whether more than half of each group is among the nodes."""
    return all(2 * len([voter for voter in half if voter in nodes]) > len(half) for half in halves)


@cache
def meet(one: Halves, other: Halves) -> bool:
    """Whether no quorum of the one is apart from every quorum of the other; tries all groups."""
    everybody = {node for half in (*one, *other) for node in half}
    return not any(
        is_quorum(one, group) and is_quorum(other, everybody - {*group})
        for size in range(1, len(everybody) + 1)
        for group in combinations(sorted(everybody), size)
    )


class ConfigurationRules:
    """The account of the configurations of one run, by the ids of their entries."""

    def __init__(self, nodes: Mapping[int, SimulatedNode]) -> None:
        """Begin with what the disks hold."""
        self._by_id: dict[tuple[int, int], Membership] = {}
        self._checked: dict[int, tuple[int, int, int]] = {}
        for node in nodes.values():
            for frame in node.disk.frames:
                self.register(frame)

    def register(self, frame: Frame) -> None:
        """Note the configurations among entries on their way to a disk."""
        if frame.kind is EntryKind.CONFIG:
            for entry in frame.entries():
                self._by_id[entry.index, entry.term] = Membership.decode(entry.payload)

    def on_append(self, node: SimulatedNode, frame: Frame) -> None:
        """Check a configuration that its leader hands to the disk."""
        core = node.core
        history = core.configurations
        if core.role is not RaftRole.LEADER or frame.term != core.term or len(history) < 2:
            return
        (before_index, before), (index, after) = history[-2:]
        if index != frame.last_index:
            return
        if not meet(before.halves, after.halves):
            raise Violated(
                "configurations meet",
                f"node {node.node_id} goes from {before.halves} to {after.halves} at {index}",
            )
        if before_index > core.commit_index:
            raise Violated(
                "one change at a time",
                f"node {node.node_id} appended configuration {index}; {before_index} is not"
                f" committed (up to {core.commit_index})",
            )
        if core.term_at(core.commit_index) != core.term:
            raise Violated(
                "own term first",
                f"node {node.node_id} appended configuration {index} in term {core.term} without a"
                " committed entry of it",
            )

    def on_leader(self, node: SimulatedNode) -> None:
        """Check who has won."""
        core = node.core
        since, membership = core.configurations[-1]
        if node.node_id not in membership.electors and since <= core.commit_index:
            raise Violated(
                "removed nodes never win",
                f"node {node.node_id} leads term {core.term}; it has no vote since entry {since}",
            )

    def on_campaign(self, node: SimulatedNode) -> None:
        """Check who asks for votes."""
        history = node.core.configurations
        if not any(node.node_id in membership.electors for _, membership in history):
            raise Violated("learners do not ask", f"node {node.node_id} campaigns")

    def after_event(self, node: SimulatedNode) -> None:
        """Check what is in force, when it has changed."""
        history = node.core.configurations
        if not history:
            return
        index, membership = history[-1]
        mark = (node.life, index, len(history))
        if self._checked.get(node.node_id) == mark:
            return
        self._checked[node.node_id] = mark
        term = node.core.term_at(index)
        expected = None if term is None else self._by_id.get((index, term))
        if expected is not None and expected != membership:
            raise Violated(
                "in force when appended",
                f"node {node.node_id} works with {membership}, but entry {index} is {expected}",
            )
        for later in range(index + 1, node.core.last_id.index + 1):
            later_term = node.core.term_at(LogIndex(later))
            if later_term is not None and (later, later_term) in self._by_id:
                raise Violated(
                    "in force when appended", f"node {node.node_id} passes over entry {later}"
                )
