"""A wish to change the membership: whether it makes sense, and which configurations lead to it.

Rules kept: whoever is to vote is a learner first and has caught up; a change of more than one voter
goes through a joint configuration, a smaller one needs none, because the majorities before and
after it share a member anyway (Raft §6; Ongaro 2014, §4.1 and §4.3). A node that lost its disk is
another node: its incarnation changes by removing and adding it, never in place.
"""

from __future__ import annotations

from dataclasses import dataclass

from conveyor_raft.core.membership import Membership
from conveyor_raft.core.types import LogId, Member, NodeId
from conveyor_raft.errors import InvalidChange


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """What is to become of whom, all at once.

    `add`: new members; they stay learners unless `promote` names them, too. `promote`: learners
    that become voters when they have caught up. `demote`: voters that become learners. `remove`:
    members that leave. `update`: members with other addresses. `expected`: the
    `Membership.version` on which the wish was founded; another one refuses it.
    """

    add: tuple[Member, ...] = ()
    promote: tuple[NodeId, ...] = ()
    demote: tuple[NodeId, ...] = ()
    remove: tuple[NodeId, ...] = ()
    update: tuple[Member, ...] = ()
    expected: LogId | None = None

    def check(self, membership: Membership) -> None:
        """Refuse what makes no sense for this membership.

        Raises:
            InvalidChange: it names somebody twice, or somebody who is not what he would have to be,
                or leaves no voter, or two members with one address, or changes nothing.
        """
        added = tuple(member.node_id for member in self.add)
        updated = tuple(member.node_id for member in self.update)
        removed = (*self.remove, *self.demote)
        for ids in ((*added, *updated, *removed), (*self.promote, *updated, *removed)):
            if len(set(ids)) != len(ids):
                raise InvalidChange(f"the change names a node twice: {sorted(ids)}")
        for node_id in added:
            if node_id <= 0:
                raise InvalidChange(f"node id {node_id} is not positive")
            if membership.get(node_id) is not None:
                raise InvalidChange(f"node {node_id} is a member already")
        for node_id in (*updated, *self.remove):
            if membership.get(node_id) is None:
                raise InvalidChange(f"node {node_id} is no member")
        for node_id in self.promote:
            if node_id not in membership.learners and node_id not in added:
                raise InvalidChange(f"node {node_id} is no learner, so it cannot be promoted")
        for node_id in self.demote:
            if node_id not in membership.voters:
                raise InvalidChange(f"node {node_id} is no voter, so it cannot be demoted")
        self._check_members(membership)
        if not set(membership.voters) - set(removed) and not self.promote:
            raise InvalidChange("the change leaves no voter; a cluster needs at least one")

    def staged(self, membership: Membership, version: LogId) -> Membership | None:
        """Return the first step: who is added and then promoted is a learner before.

        None: there is nobody who still has to be added for that.
        """
        new = tuple(
            member
            for member in self.add
            if member.node_id in self.promote and membership.get(member.node_id) is None
        )
        if not new:
            return None
        learners = (*membership.learners, *(member.node_id for member in new))
        return Membership((*membership.members, *new), learners, version=version)

    def final(self, membership: Membership, version: LogId) -> Membership:
        """Return what follows when all have caught up; joint if more than one voter moves."""
        members = {member.node_id: member for member in membership.members}
        members |= {member.node_id: member for member in self.add}
        for member in self.update:
            incarnation = member.incarnation or members[member.node_id].incarnation
            members[member.node_id] = member._replace(incarnation=incarnation)
        learners = {*membership.learners, *(member.node_id for member in self.add), *self.demote}
        learners -= {*self.promote, *self.remove}
        before = set(membership.voters)
        voters = members.keys() - learners - {*self.remove}
        moved = before ^ voters
        leaving = before & {*self.remove} if len(moved) > 1 else set()
        gone = {*self.remove} - leaving
        return Membership(
            tuple(member for node_id, member in members.items() if node_id not in gone),
            tuple(learners),
            membership.voters if len(moved) > 1 else (),
            tuple(leaving),
            version,
        )

    def _check_members(self, membership: Membership) -> None:
        """Compare incarnations and addresses."""
        if not (self.add or self.promote or self.demote or self.remove or self.update):
            raise InvalidChange("the change is empty")
        after = {member.node_id: member for member in membership.members}
        for member in self.update:
            before = after[member.node_id].incarnation
            if before and member.incarnation not in {b"", before}:
                raise InvalidChange(
                    f"node {member.node_id} has another data directory than the member with its id;"
                    " remove it and add it again"
                )
        after |= {member.node_id: member for member in (*self.add, *self.update)}
        by_address: dict[str, NodeId] = {}
        for member in after.values():
            if member.node_id in self.remove:
                continue
            other = by_address.setdefault(member.raft_address, member.node_id)
            if other != member.node_id:
                raise InvalidChange(
                    f"nodes {other} and {member.node_id} have one address, {member.raft_address}"
                )
