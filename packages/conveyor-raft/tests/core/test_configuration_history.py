"""Configurations against plain sets and lists: what is in force, and where changes lead."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.membership import Membership, MembershipHistory
from conveyor_raft.core.quorum import is_quorum
from conveyor_raft.core.types import LogId, LogIndex, Member, NodeId
from conveyor_raft.errors import InvalidChange, InvariantViolation


def member(node_id):
    return Member(NodeId(node_id), f"node-{node_id}:1")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 3)),
        st.tuples(st.just("cut"), st.integers(1, 30)),
        st.tuples(st.just("compact"), st.integers(1, 30)),
    ),
    max_size=40,
)


@given(STEPS)
def test_the_history_is_a_list_of_what_stands_in_the_log(steps):
    """E72. After any appends, truncations and compactions, the newest entry left is in force."""
    first = Membership((member(1),))
    history = MembershipHistory([(LogIndex(0), first)])
    model, end, base = {0: first}, 0, 0
    for kind, number in steps:
        if kind == "append":
            end += number
            model[end] = Membership(tuple(member(node) for node in range(1, end % 5 + 2)))
            history.append(LogIndex(end), model[end])
        elif kind == "cut" and number > base:
            model = {index: value for index, value in model.items() if index < number}
            history.truncate_from(LogIndex(number))
            end = min(end, number - 1)
        elif kind == "compact" and number <= end:
            history.compact(LogIndex(number))
            base = max(base, number)
        assert history.active == model[max(model)]
        for index in range(base, end + 1):
            assert history.at(LogIndex(index)) == model[max(i for i in model if i <= index)]


def test_before_the_first_configuration_there_is_none():
    """Nobody may ask what was in force before anything was."""
    history = MembershipHistory()
    assert history.active is None
    with pytest.raises(InvariantViolation, match="no configuration was in force at index 3"):
        history.at(LogIndex(3))


ids = st.sets(st.integers(1, 7), max_size=3)


@given(st.sets(st.integers(1, 5), min_size=1), st.data())
def test_changes_are_set_algebra_and_never_lose_the_quorum(voters, data):
    """Whatever is added, promoted, demoted and removed: the sets come out, by way of steps of which
    any two that follow each other share a member in all their quorums."""
    draw = data.draw
    learners = draw(ids) - voters
    everybody = voters | learners
    add = draw(ids) - everybody
    promote = {node for node in learners | add if draw(st.booleans())}
    remove = {node for node in everybody - promote if draw(st.booleans())}
    demote = {node for node in voters - remove if draw(st.booleans())}
    before = Membership(tuple(map(member, sorted(everybody))), tuple(map(NodeId, learners)))
    change = MembershipChange(
        add=tuple(map(member, sorted(add))),
        promote=tuple(map(NodeId, promote)),
        demote=tuple(map(NodeId, demote)),
        remove=tuple(map(NodeId, remove)),
    )
    expected_voters = (voters | promote) - demote - remove
    try:
        change.check(before)
    except InvalidChange:
        assert not expected_voters or not (add or promote or demote or remove)
        return
    steps, now = [before], before
    for index in range(5):
        version = LogId(LogIndex(10 + index), 1)
        if now.joint:
            now = now.settled(version)
            steps.append(now)
            break
        staged = change.staged(now, version)
        now = change.final(now, version) if staged is None else staged
        steps.append(now)
        if staged is None and not now.joint:
            break
    assert set(now.voters) == expected_voters
    assert {m.node_id for m in now.members} == (everybody | add) - remove
    assert set(now.learners) == ((learners | add | demote) - promote) - remove
    for old, new in pairwise(steps):
        assert_quorums_meet(old, new)


def assert_quorums_meet(old, new):
    """The complement of a quorum of one is never a quorum of the other."""
    nodes = sorted({*old.electors, *new.electors})
    for bits in range(1 << len(nodes)):
        group = {node for place, node in enumerate(nodes) if bits >> place & 1}
        if is_quorum(old.halves, group):
            assert not is_quorum(new.halves, set(nodes) - group)
