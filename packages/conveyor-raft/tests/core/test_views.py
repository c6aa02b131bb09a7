"""What can be seen of a core, and what its driver needs to know of members that come and go."""

import pytest

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import AppendAck, AppendEntries, HeartbeatReply, TermNotice
from conveyor_raft.core.types import (
    LogId,
    Member,
    NodeId,
    Refused,
    RefusedReason,
    Unknown,
)


@pytest.fixture
def leader(harness):
    """Node 1 of three leads, and an entry of its term is committed."""
    node = harness(3)
    node.lead()
    node.flush()
    node.hear(2, 2, AppendAck(1, 2))
    node.hear(3, 2, AppendAck(2, 2))
    return node


def ids(members):
    return [member.node_id for member in members]


def test_whom_to_be_connected_with(leader, harness):
    """All members; those who were removed, until they know it or the change is committed."""
    assert ids(leader.core.contacts) == [1, 2, 3]
    leader.core.change_membership(MembershipChange(remove=(NodeId(3),)), token=1)
    leader.take()
    assert leader.core.membership.voters == (1, 2)
    assert ids(leader.core.contacts) == [1, 2, 3]
    assert ids(leader.core.departing) == [3]
    assert harness(loaded=LoadedState()).core.contacts == ()


def test_a_follower_keeps_the_configuration_that_may_come_back(harness, membership):
    """The newest is in force; the one before may be again, as long as this is not committed."""
    node = harness(3)
    node.hear(2, 2, AppendEntries(1, LogId(1, 1), 1, ()))
    newer = membership(2)
    frames = harness(2).core.frames(1, 1)
    frame = frames[0].build(2, 2, 0, frames[0].kind, [newer.encode()])
    node.hear(2, 2, AppendEntries(1, LogId(1, 1), 1, (frame,)))
    assert node.core.membership.voters == (1, 2)
    assert ids(node.core.contacts) == [1, 2, 3]
    assert node.core.departing == ()
    node.hear(2, 2, AppendEntries(1, LogId(2, 2), 2, ()))
    assert ids(node.core.contacts) == [1, 2]


def test_what_is_durable_is_seen(leader):
    """The end of the log, when it has reached the disk."""
    leader.core.propose([b"a"], wall_ms=0, token=3)
    leader.take()
    assert (leader.core.durable_index, leader.core.last_id.index) == (2, 3)
    leader.flush()
    assert leader.core.durable_index == 3


def test_a_failed_node_changes_nothing(leader):
    """Nor does it say that somebody else leads."""
    leader.core.on_write_failed(9)
    answer = leader.core.change_membership(MembershipChange(remove=(NodeId(3),)), token=1)
    assert answer == Refused(RefusedReason.FAILED, None, 2)


def test_nothing_changes_while_the_office_is_handed_over(leader):
    """The target is named: it will be the one to ask."""
    assert leader.core.transfer(NodeId(2), token=4) == 2
    answer = leader.core.change_membership(MembershipChange(remove=(NodeId(3),)), token=5)
    assert answer == Refused(RefusedReason.TRANSFERRING, NodeId(2), 2)


def test_the_loss_of_office_in_a_joint_configuration_is_an_unknown_outcome(harness):
    """The joint configuration is in the log; the next leader may finish what it began."""
    node = harness(3)
    node.lead()
    node.flush()
    for peer in (2, 3):
        node.hear(peer, 2, AppendAck(peer - 1, 2))
    add = tuple(Member(NodeId(own), f"node-{own}:1") for own in (4, 5))
    node.core.change_membership(MembershipChange(add=add), token=1)
    node.take()
    node.flush()
    for peer in (2, 3):
        node.hear(peer, 2, AppendAck(peer - 1, 3))
    node.core.change_membership(MembershipChange(promote=(NodeId(4), NodeId(5))), token=2)
    node.take()
    for session, peer in ((3, 4), (4, 5)):
        node.hear(peer, 2, AppendAck(session, 3))
        node.hear(peer, 2, HeartbeatReply(session))
    assert node.core.membership.joint
    node.hear(2, 9, TermNotice())
    outcomes = dict(ended for out in node.outputs for ended in out.finished)
    assert isinstance(outcomes[2], Unknown)


@pytest.mark.parametrize(
    "parts",
    [
        {"learners": (1, 2, 3)},
        {"learners": (9,)},
        {"leaving": (3,)},
        {"learners": (3,), "outgoing": (1, 3), "leaving": (3,)},
    ],
)
def test_a_membership_does_not_contradict_itself(membership, parts):
    """No voter at all, strangers, who leaves without having voted, who leaves and stays."""
    with pytest.raises(ValueError, match="contradict each other"):
        Membership(membership(3).members, **parts)
