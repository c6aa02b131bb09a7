"""What can be read off a core between inputs; everything here is cheap and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.leader import Leader
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.progress import Progress
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.requests import Requests
from conveyor_raft.core.role import Role
from conveyor_raft.core.types import LogId, LogIndex, Member, NodeId, RaftRole, Term


class CoreViews:
    """The read-only side of `RaftCore`."""

    _replica: Replica
    _role: Role
    _requests: Requests

    @property
    def next_deadline(self) -> int | None:
        """When `tick` and `take` are due if nothing else happens; None: never."""
        deadline_ms = self._role.deadline_ms
        transfer = self._requests.transfer
        if transfer is None:
            return deadline_ms
        leads = isinstance(self._role, Leader)
        end_ms = transfer.deadline_ms if leads else transfer.end_ms
        return end_ms if deadline_ms is None else min(deadline_ms, end_ms)

    @property
    def role(self) -> RaftRole:
        """What the node is."""
        return self._role.role

    @property
    def leader_id(self) -> NodeId | None:
        """Whom the node follows; itself if it leads."""
        return self._role.leader_id

    @property
    def term(self) -> Term:
        """The newest term that the node has seen; it may not be durable yet."""
        return self._replica.term

    @property
    def voted_for(self) -> NodeId | None:
        """The node's vote in its term; it may not be durable yet."""
        return self._replica.voted_for

    @property
    def commit_index(self) -> LogIndex:
        """Everything up to here is committed, as far as this node knows."""
        return self._replica.commit_index

    @property
    def applied_index(self) -> LogIndex:
        """Everything up to here is in the state machine."""
        return self._replica.applied_index

    @property
    def durable_index(self) -> LogIndex:
        """Up to here the log is durable on this node."""
        return self._replica.ledger.durable_index

    @property
    def first_index(self) -> LogIndex:
        """The first entry that is still in the log."""
        return self._replica.log.first_index

    @property
    def last_id(self) -> LogId:
        """The last entry of the log."""
        return self._replica.log.last_id

    @property
    def membership(self) -> Membership | None:
        """The configuration in force; None on an empty node."""
        return self._replica.membership

    @property
    def configurations(self) -> Sequence[tuple[LogIndex, Membership]]:
        """What is remembered of the configurations, oldest first, the one in force last."""
        return self._replica.configurations.entries

    @property
    def departing(self) -> tuple[Member, ...]:
        """Removed members to whom a leader still talks, so that they learn of it."""
        if not isinstance(self._role, Leader):
            return ()
        return tuple(self._replica.departing.values())

    @property
    def contacts(self) -> tuple[Member, ...]:
        """Whom to be connected with: all members, and those who are removed and still needed.

        The latter are members of a configuration that may come into force again, the leader that
        has removed itself among them, and those whom a leader tells of their removal.
        """
        history = self._replica.configurations.entries
        if not history:
            return ()
        members = history[-1][1].members
        if len(history) == 1 and not self._replica.departing:
            return members
        found = {member.node_id: member for member in self.departing}
        for index, membership in reversed(history):
            found = {member.node_id: member for member in membership.members} | found
            if index <= self._replica.commit_index:
                break
        found |= {member.node_id: member for member in members}
        return tuple(found[node_id] for node_id in sorted(found))

    @property
    def snapshot(self) -> SnapshotMeta | None:
        """The newest snapshot; right after stepping an `InstallSnapshot`, its own if accepted."""
        return self._replica.snapshot

    @property
    def snapshot_due(self) -> bool:
        """Whether enough was applied since the last snapshot for a new one."""
        return self._replica.snapshot_due

    @property
    def failed(self) -> bool:
        """Whether a write has failed; only a restart from the disk helps."""
        return self._replica.failed

    def has_lease(self, now_ms: int) -> bool:
        """Whether this node may answer reads by itself at this time."""
        return self._requests.has_lease(self._role, now_ms)

    @property
    def is_suspect(self) -> bool:
        """Whether this node may have lost what it has promised, and so neither votes nor leads."""
        return self._replica.is_suspect

    @property
    def transfer_target(self) -> NodeId | None:
        """To whom this leader is handing its office over, while it is."""
        transfer = self._requests.transfer
        return None if transfer is None else transfer.target

    @property
    def progress(self) -> Mapping[NodeId, Progress]:
        """What a leader knows about its followers; empty on others. Not to be changed."""
        return self._role.progress if isinstance(self._role, Leader) else {}

    def frames(self, first: LogIndex, last: LogIndex) -> list[Frame]:
        """Return the retained entries of the range, frame by frame; the ends are cut to fit."""
        return self._replica.log.frames(first, last)

    def term_at(self, index: LogIndex) -> Term | None:
        """Return the term of a retained entry, of the one before it, or None."""
        return self._replica.log.term_at(index)

    def statistics(self) -> Mapping[str, int]:
        """Return counters since the start, and the sizes of what is bounded."""
        replica = self._replica
        sizes = {
            "log_entries": replica.log.last_index - replica.log.base.index,
            "log_bytes": replica.log.bytes_after(replica.log.base.index),
            "open_proposals": len(self._requests.proposals),
            "open_reads": self._requests.open_reads(self._role),
        }
        return {**replica.counters, **sizes}
