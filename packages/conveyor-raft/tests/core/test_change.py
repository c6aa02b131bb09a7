import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.types import LogId, Member
from conveyor_raft.errors import InvalidChange
from conveyor_raft.testing.configurations import meet

VERSION = LogId(9, 3)


def member(node_id, address=""):
    return Member(node_id, address or f"node-{node_id}:1")


FIVE = Membership(tuple(map(member, range(1, 6))), learners=(4, 5))


@st.composite
def wishes(draw):
    """A settled membership of up to seven nodes, and something to do with each of ten."""
    learners = draw(st.sets(st.integers(2, 7)))
    ids = {1, *learners, *draw(st.sets(st.integers(2, 7)))}
    membership = Membership(tuple(map(member, ids)), tuple(learners))
    fates = st.sampled_from(["stay", "change", "remove", "both"])
    fate = {node: draw(fates) for node in range(1, 11)}
    outside = [node for node in range(1, 11) if node not in ids]
    return membership, MembershipChange(
        add=tuple(member(node) for node in outside if fate[node] in {"change", "both"}),
        promote=tuple(
            node
            for node in range(1, 11)
            if (node in learners and fate[node] == "change")
            or (node in outside and fate[node] == "both")
        ),
        demote=tuple(node for node in membership.voters if fate[node] == "change"),
        remove=tuple(node for node in ids if fate[node] == "remove"),
    )


@given(wishes())
def test_a_change_ends_where_set_algebra_says(wish):
    """Through a staging of learners and a joint configuration, if it needs them."""
    membership, change = wish
    try:
        change.check(membership)
    except InvalidChange:
        assume(False)
    added = {node.node_id for node in change.add}
    everybody = {node.node_id for node in membership.members} | added
    expected_learners = {*membership.learners, *added, *change.demote}
    expected_learners -= {*change.promote, *change.remove}
    staged = change.staged(membership, VERSION)
    if staged is not None:
        assert staged.voters == membership.voters
        assert change.staged(staged, VERSION) is None
    before = staged or membership
    final = change.final(before, VERSION)
    assert meet(before.halves, final.halves)
    if final.joint:
        assert final.outgoing == membership.voters
        settled = final.settled(VERSION)
        assert meet(final.halves, settled.halves)
    else:
        settled = final
        assert len({*membership.voters} ^ {*final.voters}) <= 1
    assert {node.node_id for node in settled.members} == everybody - {*change.remove}
    assert {*settled.learners} == expected_learners
    assert not settled.joint
    for each in (before, final, settled):
        assert Membership.decode(each.encode()) == each


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (MembershipChange(), "empty"),
        (MembershipChange(add=(member(3),)), "a member already"),
        (MembershipChange(add=(member(0),)), "not positive"),
        (MembershipChange(add=(member(6), member(6))), "twice"),
        (MembershipChange(add=(member(6, "node-1:1"),)), "one address"),
        (MembershipChange(update=(member(1, "node-2:1"),)), "one address"),
        (MembershipChange(update=(member(9),)), "no member"),
        (MembershipChange(remove=(9,)), "no member"),
        (MembershipChange(promote=(3,)), "no learner"),
        (MembershipChange(promote=(9,)), "no learner"),
        (MembershipChange(demote=(4,)), "no voter"),
        (MembershipChange(promote=(4,), remove=(4,)), "twice"),
        (MembershipChange(demote=(1, 2), remove=(3,)), "no voter; a cluster"),
    ],
)
def test_what_makes_no_sense_is_named(change, words):
    """Unknown ids, ids named twice, shared addresses, no voter left."""
    with pytest.raises(InvalidChange, match=words) as refused:
        change.check(FIVE)
    assert refused.value.retry_safe


def test_another_data_directory_is_another_node():
    """An address may change in place, an incarnation only by removing and adding the node."""
    known = Membership((Member(1, "a:1", "", b"first"), Member(2, "b:1")))
    MembershipChange(update=(Member(1, "c:1", "d:1", b"first"),)).check(known)
    moved = MembershipChange(update=(Member(1, "c:1", "d:1"),)).final(known, VERSION)
    assert moved.get(1) == Member(1, "c:1", "d:1", b"first")
    assert not moved.joint
    with pytest.raises(InvalidChange, match="data directory"):
        MembershipChange(update=(Member(1, "c:1", "", b"second"),)).check(known)
    MembershipChange(update=(Member(2, "b:2", "", b"second"),)).check(known)


def test_a_joint_configuration_remembers_who_leaves():
    """Who is removed stays a member until the old half is left; a demoted one stays for good."""
    change = MembershipChange(promote=(4, 5), demote=(1,), remove=(2,))
    joint = change.final(FIVE, VERSION)
    assert joint.voters == (3, 4, 5)
    assert joint.outgoing == (1, 2, 3)
    assert (joint.learners, joint.leaving) == ((1,), (2,))
    assert joint.electors == (1, 2, 3, 4, 5)
    settled = joint.settled(LogId(10, 3))
    assert [node.node_id for node in settled.members] == [1, 3, 4, 5]
    assert (settled.voters, settled.learners, settled.version) == ((3, 4, 5), (1,), (10, 3))
