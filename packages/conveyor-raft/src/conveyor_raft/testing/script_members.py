"""Memberships in scripts: what is to become of whom, and who belongs to the cluster now."""

from __future__ import annotations

from collections.abc import Mapping

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.types import LogId, LogIndex, Member, NodeId, Term
from conveyor_raft.testing.simulated_node import SimulatedNode


def parse_change(nodes: Mapping[int, SimulatedNode], named: Mapping[str, str]) -> MembershipChange:
    """Build the change of `add=4,5 promote=4 demote=3 remove=1 update=2@host:1 expected=7/2`.

    A node that exists is added with its incarnation, so that it is told from one without its disk.
    """
    words = dict(named)
    expected = words.pop("expected", "")
    index, _, term = expected.partition("/")
    lists = {name: value.split(",") for name, value in words.items()}
    return MembershipChange(
        add=tuple(_member(nodes, word) for word in lists.pop("add", ())),
        update=tuple(_member(nodes, word) for word in lists.pop("update", ())),
        **{name: tuple(NodeId(int(word)) for word in ids) for name, ids in lists.items()},
        expected=LogId(LogIndex(int(index)), Term(int(term))) if expected else None,
    )


def _member(nodes: Mapping[int, SimulatedNode], word: str) -> Member:
    number, _, address = word.partition("@")
    node_id = NodeId(int(number))
    node = nodes.get(node_id)
    member = Member(node_id, address or f"node-{node_id}:1")
    return member if node is None else member._replace(incarnation=node.identity.incarnation)


def describe_membership(membership: Membership | None) -> str:
    """Say who votes, who learns, and which half is on its way out."""
    if membership is None:
        return "knows no configuration"
    parts = [f"voters {_names(membership.voters)}"]
    if membership.learners:
        parts.append(f"learners {_names(membership.learners)}")
    if membership.joint:
        parts.append(f"jointly with {_names(membership.outgoing)}")
    if membership.leaving:
        parts.append(f"leaving {_names(membership.leaving)}")
    return "; ".join(parts)


def _names(ids: tuple[NodeId, ...]) -> str:
    return " ".join(map(str, ids))
