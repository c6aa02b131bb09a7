"""`GroupCoordinator`: consumer groups with generations and even partitions.

What for: members of a group share partitions. Each join and leave makes a new generation with an
assignment that is even and moves as little as possible (`core/assignors`, the same function that
the planner uses), agreed in one atomic entry: there is no moment in which a generation has no
assignment. A commit carries its generation and is refused when it is an old one.

Rules kept: partition numbers are the places of names in an append-only table, so a number means the
same partition for ever. A member that joins again unchanged (after a restart) disturbs nobody. A
member that is silent for a lease is made to leave by `Liveness.decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import Outcome, RouterCommand, RouterState
from conveyor_registry.core.groups import joining, leaving, partition_names_of
from conveyor_registry.errors import Contended, InvalidRegistration, NotRegistered
from conveyor_registry.liveness import Liveness
from conveyor_registry.model import nearest
from conveyor_registry.port import RaftPort
from conveyor_registry.service_registry import DEADLINE_S, monotonic_ms
from conveyor_registry.views import GroupMember, PartitionAssignment, ServiceGroup

ATTEMPTS_MAX = 16

__all__ = ["GroupCoordinator", "GroupMember", "PartitionAssignment", "ServiceGroup"]


class GroupCoordinator:
    """Join, leave and look at groups.

    Args:
        raft_node: The replicated log; joins and leaves belong to the leader.
        liveness: The leader's memory, which expires silent members; None: nobody expires.
        clock: Monotonic milliseconds.
    """

    def __init__(
        self,
        raft_node: RaftPort,
        *,
        liveness: Liveness | None = None,
        clock: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._raft = raft_node
        self._liveness = liveness
        self._clock = clock

    @classmethod
    def new(cls, raft_node: RaftPort) -> GroupCoordinator:
        """A coordinator with the defaults."""
        return cls(raft_node)

    async def join_group(
        self,
        group_id: str,
        member_id: str,
        service_name: str,
        topics: Sequence[str],
        *,
        partitions: Sequence[str] | int | None = None,
    ) -> PartitionAssignment:
        """Make somebody a member; the others' partitions move as little as evenness allows.

        Args:
            group_id: The group; made by its first member.
            member_id: The member; the same one again changes its wishes, if they are others.
            service_name: The source that the group reads.
            topics: What of it. The partitions of a topic bear its name, alone or before a slash;
                they are those that are recorded or that registered services declare, else one.
            partitions: Their names, or their number in each topic, where no service says.

        Raises:
            InvalidRegistration: a name or number is outside its bounds.
            Contended: others kept changing the group; try again.
            conveyor_raft.NotLeader: this node does not lead; the error says who does.
        """

        def change(state: RouterState) -> RouterCommand | None:
            try:
                return joining(
                    state.groups.get(group_id),
                    group_id=group_id,
                    member_id=member_id,
                    service_name=service_name,
                    topics=topics,
                    partition_names=_names(state, group_id, service_name, topics, partitions),
                )
            except ValidationError as error:
                raise InvalidRegistration.of(f"member {member_id!r}", error) from error

        await self._change(group_id, change)
        if self._liveness is not None:
            self._liveness.beat_member(group_id, member_id, self._clock())
        return await self.get_assignment(group_id, member_id)

    async def leave_group(self, group_id: str, member_id: str) -> bool:
        """End a membership; its partitions go to the others. Tell whether it was one."""
        was = False

        def change(state: RouterState) -> RouterCommand | None:
            nonlocal was
            group = state.groups.get(group_id)
            was = group is not None and group.member(member_id) is not None
            return leaving(group, [member_id]) if group is not None and was else None

        await self._change(group_id, change)
        return was

    async def heartbeat(self, group_id: str, member_id: str) -> PartitionAssignment:
        """Note that a member is alive, and tell what it shall read now.

        Raises:
            NotRegistered: join (again).
        """
        assignment = await self.get_assignment(group_id, member_id)
        if self._liveness is not None:
            self._liveness.beat_member(group_id, member_id, self._clock())
        return assignment

    async def get_assignment(self, group_id: str, member_id: str) -> PartitionAssignment:
        """What a member reads now.

        Raises:
            NotRegistered: it is no member.
        """
        group = (await self._raft.state()).groups.get(group_id)
        member = None if group is None else group.member(member_id)
        if group is None or member is None:
            known = [] if group is None else [one.member_id for one in group.members]
            raise NotRegistered(
                f"member of group {group_id!r}", member_id, nearest(member_id, known)
            )
        return PartitionAssignment.of(group, member)

    async def get_group(self, group_id: str) -> ServiceGroup | None:
        """One group, if anybody ever joined it."""
        group = (await self._raft.state()).groups.get(group_id)
        return None if group is None else ServiceGroup.of(group)

    async def commit_offset(
        self, group_id: str, member_id: str, generation: int, partition: int, offset: int
    ) -> None:
        """Record how far a partition is read; older offsets change nothing.

        Raises:
            conveyor_raft.CommandRejected: of another generation, or not the member's partition.
        """
        await self._propose(
            RouterCommand.CommitGroupOffset(
                group_id=group_id,
                member_id=member_id,
                generation=generation,
                partition=partition,
                offset=offset,
            )
        )

    async def _change(
        self, group_id: str, change: Callable[[RouterState], RouterCommand | None]
    ) -> None:
        for _ in range(ATTEMPTS_MAX):
            command = change(await self._raft.state())
            if command is None:
                if not self._raft.is_leader:
                    # This node may be behind: let the leader say that nothing is to be done.
                    await self._propose(RouterCommand.Noop())
                return
            try:
                await self._propose(command)
            except CommandRejected as refusal:
                if refusal.code != "fenced":
                    raise
                continue
            return
        raise Contended(f"group {group_id!r} changed {ATTEMPTS_MAX} times meanwhile; try again")

    async def _propose(self, command: RouterCommand) -> Outcome:
        return await self._raft.propose(command, timeout=DEADLINE_S)


def _names(
    state: RouterState,
    group_id: str,
    service_name: str,
    topics: Sequence[str],
    partitions: Sequence[str] | int | None,
) -> Sequence[str]:
    if isinstance(partitions, int):
        return [f"{topic}/{number}" for topic in topics for number in range(partitions)]
    if partitions is not None:
        return partitions
    group = state.groups.get(group_id)
    declared = [] if group is None else list(group.partition_names)
    settled = set() if group is None else {one for m in group.members for one in m.topics}
    for _, record in sorted(state.services.items()):
        if record.service_name == service_name:
            declared.extend(record.partitions)
    return partition_names_of(declared, topics, settled)
