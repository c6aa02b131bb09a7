"""Consumer groups: generations, recorded assignments, fenced commits."""

from __future__ import annotations

import pytest

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import RouterCommand

C = RouterCommand


def join(member_id, names=(), topics=("t",)):
    return C.JoinGroup(
        group_id="g",
        member_id=member_id,
        service_name="src",
        topics=topics,
        partition_names=names,
    )


def give(generation, **members):
    assignments = tuple({"member_id": one, "partitions": what} for one, what in members.items())
    return C.AssignPartitions(group_id="g", generation=generation, assignments=assignments)


def commit(**change):
    what = {"member_id": "a", "generation": 1, "partition": 0, "offset": 5, **change}
    return C.CommitGroupOffset(group_id="g", **what)


def test_each_change_of_membership_is_a_generation(log):
    """Joining again unchanged is none, and disturbs nobody."""
    log(join("a", names=("t/0", "t/1")))
    log(join("b"))
    assert log.state.groups["g"].generation == 2
    assert not log(join("b", names=("t/0",))).changed
    log(join("b", topics=("t", "u")))
    log(C.LeaveGroup(group_id="g", member_id="a"))
    assert not log(C.LeaveGroup(group_id="g", member_id="a")).changed
    group = log.state.groups["g"]
    assert (group.generation, [one.member_id for one in group.members]) == (4, ["b"])


def test_partition_numbers_are_append_only(log):
    """A name keeps its number for ever."""
    log(join("a", names=("x", "y")))
    log(join("b", names=("z", "x")))
    log(C.LeaveGroup(group_id="g", member_id="a"))
    assert log.state.groups["g"].partition_names == ("x", "y", "z")


def test_an_assignment_is_for_its_generation(log):
    """Computed for another generation, given twice, or of no member: refused."""
    log(join("a", names=("0", "1")))
    log(give(1, a=(1, 0)))
    assert log.state.groups["g"].members[0].partitions == (0, 1)
    for wrong, words in (
        (give(2, a=(0,)), "at generation 1, not 2"),
        (give(1, a=(0, 0)), "given to two members"),
        (give(1, a=(2,)), "does not have"),
        (give(1, z=(0,)), "'z' is no member"),
    ):
        with pytest.raises(CommandRejected, match=words):
            log(wrong)


def test_offsets_are_fenced_and_monotone(log):
    """An old generation or somebody else's partition is refused; older offsets change nothing."""
    log(join("a", names=("0", "1")))
    log(give(1, a=(0,)))
    log(commit())
    assert not log(commit(offset=4)).changed
    assert log.state.groups["g"].offsets == {0: 5}
    for wrong in (commit(generation=0), commit(partition=1), commit(member_id="b")):
        with pytest.raises(CommandRejected) as caught:
            log(wrong)
        assert caught.value.code == "fenced"
    with pytest.raises(CommandRejected, match="there is no group"):
        log(C.CommitGroupOffset(group_id="h", member_id="a", generation=1, partition=0, offset=1))
