"""How commands about consumer groups change the state.

Rules kept: each change of membership raises the generation; who reads what in a generation was
computed by the proposer and is recorded only for the generation that it was computed for. A commit
is fenced by the generation and by ownership, and offsets only move on. Partition names are numbered
once, in the order in which they appeared, for ever.
"""

from __future__ import annotations

from dataclasses import replace

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router.commands import (
    AssignPartitions,
    CommitGroupOffset,
    JoinGroup,
    LeaveGroup,
)
from conveyor_raft.machines.router.outcome import Moment, Outcome
from conveyor_raft.machines.router.parts import MEMBERS_MAX, PARTITIONS_MAX
from conveyor_raft.machines.router.records import GroupMemberRecord, GroupRecord
from conveyor_raft.machines.router.state import RouterState

GROUPS_MAX = 10_000


def join_group(state: RouterState, command: JoinGroup, moment: Moment) -> Outcome:
    """Add the member; one that joins again unchanged disturbs nobody."""
    old = state.groups.get(command.group_id)
    if old is None:
        if len(state.groups) >= GROUPS_MAX:
            raise CommandRejected("full", f"there are {GROUPS_MAX} groups; leave some first")
        old = GroupRecord(group_id=command.group_id, generation=0)
    fresh = tuple(
        name for name in dict.fromkeys(command.partition_names) if name not in old.partition_names
    )
    if len(old.partition_names) + len(fresh) > PARTITIONS_MAX:
        raise CommandRejected(
            "full", f"group {command.group_id!r} has more than {PARTITIONS_MAX} partitions"
        )
    member = old.member(command.member_id)
    wanted = GroupMemberRecord(
        member_id=command.member_id,
        service_name=command.service_name,
        topics=command.topics,
        partitions=() if member is None else member.partitions,
        joined_ms=moment.timestamp_ms if member is None else member.joined_ms,
    )
    if wanted == member and not fresh:
        return Outcome()
    others = tuple(one for one in old.members if one.member_id != command.member_id)
    if len(others) >= MEMBERS_MAX:
        raise CommandRejected("full", f"group {command.group_id!r} has {MEMBERS_MAX} members")
    state.put(
        replace(
            old,
            generation=old.generation + 1,
            members=_ordered((*others, wanted)),
            partition_names=(*old.partition_names, *fresh),
            revision=moment.index,
        )
    )
    return Outcome()


def leave_group(state: RouterState, command: LeaveGroup, moment: Moment) -> Outcome:
    """Remove the member, if it is there; the group's offsets and numbers stay."""
    old = state.groups.get(command.group_id)
    if old is None or old.member(command.member_id) is None:
        return Outcome()
    members = tuple(one for one in old.members if one.member_id != command.member_id)
    state.put(replace(old, generation=old.generation + 1, members=members, revision=moment.index))
    return Outcome()


def assign_partitions(state: RouterState, command: AssignPartitions, moment: Moment) -> Outcome:
    """Record who reads what in this generation."""
    old = _at_generation(state, command.group_id, command.generation)
    given = {one.member_id: tuple(sorted(one.partitions)) for one in command.assignments}
    every = [number for numbers in given.values() for number in numbers]
    if len(set(every)) != len(every):
        raise CommandRejected("invalid", "a partition is given to two members")
    if any(number >= len(old.partition_names) for number in every):
        raise CommandRejected("invalid", "a partition is given that the group does not have")
    unknown = sorted(set(given) - {one.member_id for one in old.members})
    if unknown:
        raise CommandRejected("unknown", f"{unknown[0]!r} is no member of {command.group_id!r}")
    members = tuple(replace(one, partitions=given.get(one.member_id, ())) for one in old.members)
    state.put(replace(old, members=members, revision=moment.index))
    return Outcome()


def commit_group_offset(state: RouterState, command: CommitGroupOffset, moment: Moment) -> Outcome:
    """Record how far the group has read a partition."""
    old = _at_generation(state, command.group_id, command.generation)
    member = old.member(command.member_id)
    if member is None or command.partition not in member.partitions:
        raise CommandRejected(
            "fenced",
            f"{command.member_id!r} does not own partition {command.partition} of"
            f" {command.group_id!r} in generation {old.generation}",
        )
    if command.offset > old.offsets.get(command.partition, -1):
        offsets = dict(sorted({**old.offsets, command.partition: command.offset}.items()))
        state.put(replace(old, offsets=offsets))
    return Outcome()


def _at_generation(state: RouterState, group_id: str, generation: int) -> GroupRecord:
    group = state.groups.get(group_id)
    if group is None:
        raise CommandRejected("unknown", f"there is no group {group_id!r}")
    if group.generation != generation:
        raise CommandRejected(
            "fenced",
            f"group {group_id!r} is at generation {group.generation}, not {generation};"
            " take the new assignment first",
        )
    return group


def _ordered(members: tuple[GroupMemberRecord, ...]) -> tuple[GroupMemberRecord, ...]:
    return tuple(sorted(members, key=lambda one: one.member_id))
