"""Changes of a consumer group, each as one atomic command with the new assignment in it.

The generation that the assignment is for is the one that the change will make; if somebody else
changes the group first, the whole command is refused and computed again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from conveyor_raft.machines.router.commands import RouterCommand, SingleCommand
from conveyor_raft.machines.router.parts import MemberPartitions
from conveyor_raft.machines.router.records import GroupRecord
from conveyor_registry.core.assignors import assign


def joining(
    group: GroupRecord | None,
    *,
    group_id: str,
    member_id: str,
    service_name: str,
    topics: Sequence[str],
    partition_names: Sequence[str],
) -> RouterCommand | None:
    """The command by which a member joins; None: it is in already, with the same wishes."""
    old = group or GroupRecord(group_id=group_id, generation=0)
    fresh = [name for name in dict.fromkeys(partition_names) if name not in old.partition_names]
    member = old.member(member_id)
    if (
        member is not None
        and not fresh
        and (member.service_name, member.topics) == (service_name, tuple(topics))
    ):
        return None
    join = RouterCommand.JoinGroup(
        group_id=group_id,
        member_id=member_id,
        service_name=service_name,
        topics=tuple(topics),
        partition_names=tuple(fresh),
    )
    members = {one.member_id for one in old.members} | {member_id}
    return _with_assignment(old, [join], members, len(old.partition_names) + len(fresh))


def leaving(group: GroupRecord, member_ids: Sequence[str]) -> RouterCommand:
    """The command by which members leave; all of them must be in the group."""
    leaves: list[SingleCommand] = [
        RouterCommand.LeaveGroup(group_id=group.group_id, member_id=one) for one in member_ids
    ]
    members = {one.member_id for one in group.members} - set(member_ids)
    return _with_assignment(group, leaves, members, len(group.partition_names))


def partition_names_of(
    declared: Iterable[str], topics: Sequence[str], settled: Collection[str] = ()
) -> list[str]:
    """The partitions of topics: those of the declared ones that are theirs, else one per topic.

    A declared partition belongs to a topic whose name it bears, alone or before a slash. Settled
    topics are read by somebody already, so the group has the partitions that it shall have.
    """
    known = list(dict.fromkeys(declared))
    found: list[str] = []
    for topic in topics:
        mine = [name for name in known if name == topic or name.startswith(f"{topic}/")]
        found.extend(mine or ([] if topic in settled else [topic]))
    return list(dict.fromkeys(found))


def _with_assignment(
    old: GroupRecord, changes: Sequence[SingleCommand], members: set[str], partitions: int
) -> RouterCommand:
    owners = {number: one.member_id for one in old.members for number in one.partitions}
    given = assign(range(partitions), sorted(members), owners)
    assignment = RouterCommand.AssignPartitions(
        group_id=old.group_id,
        generation=old.generation + len(changes),
        assignments=tuple(
            MemberPartitions(
                member_id=member_id,
                partitions=tuple(sorted(n for n, owner in given.items() if owner == member_id)),
            )
            for member_id in sorted(members)
        ),
    )
    return RouterCommand.Batch(commands=(*changes, assignment))
