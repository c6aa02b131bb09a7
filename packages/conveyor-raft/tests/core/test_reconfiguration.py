import pytest

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.messages import (
    AppendAck,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    RequestVote,
    TermNotice,
    VoteReply,
)
from conveyor_raft.core.types import (
    Applied,
    LogId,
    Member,
    Proposed,
    RaftRole,
    RefusedReason,
    Unknown,
    Withdrawn,
)
from conveyor_raft.errors import InvalidChange

FOUR = Member(4, "node-4:1")


@pytest.fixture
def leader(harness):
    """Node 1 of three leads, and an entry of its term is committed."""

    def build(nodes=3, *, ready=True, **options):
        one = harness(nodes, election_timeout_min_ms=150, **options)
        one.lead()
        one.flush()
        if ready:
            acknowledge(one, *range(2, nodes + 1))
        one.sent.clear()
        return one

    return build


def acknowledge(one, *peers):
    """Let peers prove the whole log of the leader, as it is now."""
    for peer in peers:
        progress = one.core.progress.get(peer)
        if progress is not None:
            one.hear(peer, one.core.term, AppendAck(progress.session, one.core.last_id.index))


def finished(one):
    return [ended for out in one.outputs for ended in out.finished]


def apply_all(one):
    """Apply what was handed out, and what is handed out for that."""
    while True:
        last = max((out.apply[1] for out in one.outputs if out.apply is not None), default=0)
        if last <= one.core.applied_index:
            return
        one.core.on_applied(last)
        one.take()


def change(one, token=7, **wish):
    answer = one.core.change_membership(MembershipChange(**wish), token=token)
    one.take()
    return answer


def test_a_learner_is_replicated_to_and_not_counted(leader):
    """It gets entries from the moment it is added; commits and elections go without it."""
    one = leader()
    assert isinstance(change(one, add=(FOUR,)), Proposed)
    assert any(isinstance(body, AppendEntries) for body in one.bodies(to=4))
    index = one.core.last_id.index
    one.flush()
    acknowledge(one, 4)
    assert one.core.commit_index < index
    acknowledge(one, 2)
    assert one.core.commit_index == index
    apply_all(one)
    assert finished(one) == [(7, Applied(index, index))]


def test_nothing_changes_before_an_entry_of_the_own_term_is_committed(leader):
    """The bug of the single-server change of 2015 cannot begin."""
    one = leader(ready=False)
    answer = change(one, remove=(3,))
    assert answer.reason is RefusedReason.NOT_READY
    acknowledge(one, 2)
    assert isinstance(change(one, remove=(3,)), Proposed)


def test_one_change_at_a_time_and_only_of_what_was_expected(leader):
    """A second wish is refused until the first is committed, one for another version always."""
    one = leader()
    first = one.core.membership.version
    change(one, add=(FOUR,))
    assert change(one, remove=(3,)).reason is RefusedReason.CHANGE_IN_PROGRESS
    one.flush()
    acknowledge(one, 2)
    moved = change(one, remove=(3,), expected=first)
    assert moved.reason is RefusedReason.CONFIGURATION_MOVED
    with pytest.raises(InvalidChange):
        change(one, remove=(9,))
    assert one.core.membership.version == LogId(one.core.last_id.index, one.core.term)
    assert isinstance(change(one, remove=(3,), expected=one.core.membership.version), Proposed)


def test_others_refuse_changes(harness):
    """A follower names the leader it knows; an uninitialised node knows none."""
    for loaded in (None, LoadedState()):
        answer = change(harness(loaded=loaded), add=(FOUR,))
        assert answer.reason is RefusedReason.NOT_LEADER


def test_who_is_to_vote_catches_up_before(leader):
    """Added as a learner, in the log of a quorum, answered in a short round, then promoted."""
    one = leader()
    answer = change(one, add=(FOUR,), promote=(4,))
    assert isinstance(answer, Proposed)
    assert one.core.membership.learners == (4,)
    one.flush()
    acknowledge(one, 2)
    assert one.core.membership.learners == (4,)
    one.tick(50)
    acknowledge(one, 4)
    assert one.core.membership.voters == (1, 2, 3, 4)
    one.flush()
    acknowledge(one, 2, 3)
    apply_all(one)
    assert finished(one) == [(7, Applied(one.core.last_id.index, one.core.last_id.index))]


def test_a_slow_learner_gets_ten_rounds(leader):
    """Each as long as an election: it is not promoted, and the wish is withdrawn."""
    one = leader(catch_up_rounds_max=3)
    change(one, add=(FOUR,), promote=(4,))
    one.flush()
    acknowledge(one, 2)
    for _ in range(3):
        assert not finished(one)
        one.tick(200)
        acknowledge(one, 4)
        one.core.propose([b"x"], wall_ms=0, token=100)
        one.take()
    ((token, outcome),) = [end for end in finished(one) if end[0] == 7]
    assert token == 7
    assert outcome == Withdrawn("node 4 does not catch up; it stays a learner")
    assert one.core.membership.learners == (4,)
    assert isinstance(change(one, remove=(4,)), Proposed)


def test_a_dead_learner_is_given_up(leader):
    """Even one that had everything before it died: it must answer in this very round."""
    one = leader(catch_up_silence_ms=1_000)
    change(one, add=(FOUR,))
    one.flush()
    acknowledge(one, 2, 4)
    change(one, token=8, promote=(4,))
    for _ in range(25):
        one.tick(50)
    assert one.core.membership.learners == (4,)
    assert (8, Withdrawn("node 4 does not catch up; it stays a learner")) in finished(one)


def test_an_idle_learner_that_answers_is_promoted_at_once(leader):
    """A heartbeat's reply is a sign of life, too."""
    one = leader()
    change(one, add=(FOUR,))
    one.flush()
    acknowledge(one, 2, 4)
    change(one, token=8, promote=(4,))
    session = one.core.progress[4].session
    one.hear(4, one.core.term, HeartbeatReply(session))
    assert one.core.membership.voters == (1, 2, 3, 4)


def test_a_joint_configuration_needs_both_halves_and_is_left_by_itself(leader):
    """{1, 2, 3} to {1, 4, 5}: neither half alone commits, then the settled one follows."""
    one = leader()
    change(one, add=(FOUR, Member(5, "node-5:1")))
    one.flush()
    acknowledge(one, 2, 3, 4, 5)
    change(one, token=8, promote=(4, 5), remove=(2, 3))
    for peer in (4, 5):
        one.hear(peer, one.core.term, HeartbeatReply(one.core.progress[peer].session))
    joint = one.core.last_id.index
    assert one.core.membership.halves == ((1, 4, 5), (1, 2, 3))
    one.flush()
    acknowledge(one, 4, 5)
    assert one.core.commit_index < joint
    acknowledge(one, 2)
    assert one.core.commit_index == joint
    assert one.core.membership.halves == ((1, 4, 5),)
    assert one.core.last_id.index == joint + 1
    one.flush()
    acknowledge(one, 2, 3)
    assert one.core.commit_index == joint
    acknowledge(one, 4)
    assert one.core.commit_index == joint + 1
    apply_all(one)
    assert finished(one)[-1] == (8, Applied(joint + 1, joint + 1))


def test_a_leader_that_removes_itself_goes_last(leader):
    """It does not count itself, sends the commit index out, and steps down for good."""
    one = leader()
    change(one, remove=(1,))
    index = one.core.last_id.index
    one.flush()
    acknowledge(one, 2)
    assert one.core.commit_index < index
    assert one.core.role is RaftRole.LEADER
    one.bodies()
    acknowledge(one, 3)
    assert one.core.commit_index == index
    assert one.core.role is RaftRole.FOLLOWER
    assert [body.commit for body in one.bodies(to=2) if isinstance(body, Heartbeat)] == [index]
    apply_all(one)
    assert finished(one) == [(7, Applied(index, index))]
    assert one.core.next_deadline is None


def test_a_removed_member_is_told_and_then_left_alone(leader):
    """It gets its removal and the commit index; then nothing more is sent to it."""
    one = leader()
    change(one, remove=(3,))
    assert [member.node_id for member in one.core.departing] == [3]
    index = one.core.last_id.index
    one.flush()
    acknowledge(one, 2, 3)
    assert one.core.commit_index == index
    one.bodies()
    for _ in range(3):
        one.tick(50)
    told = one.bodies(to=3)
    assert [body.commit for body in told if isinstance(body, Heartbeat)] == [index, index]
    assert one.core.departing == ()
    assert 3 not in one.core.progress


def test_a_removed_member_that_is_silent_is_given_up(leader):
    """After two elections' time."""
    one = leader()
    change(one, remove=(3,))
    one.flush()
    acknowledge(one, 2)
    for _ in range(40):
        one.tick(50)
        one.hear(2, one.core.term, HeartbeatReply(one.core.progress[2].session))
    assert one.core.departing == ()


def test_a_late_answer_of_the_session_before_is_stale(leader):
    """Node 3 is removed and added again in one term: what it had proved before is forgotten."""
    one = leader()
    old = one.core.progress[3].session
    change(one, remove=(3,))
    one.flush()
    acknowledge(one, 2)
    change(one, token=8, add=(Member(3, "node-3:2"),))
    assert one.core.progress[3].session != old
    one.hear(3, one.core.term, AppendAck(old, one.core.last_id.index))
    assert one.core.progress[3].match == 0


def test_losing_the_office_ends_the_wish(leader):
    """Before its last entry is appended it surely fails; afterwards nobody can say."""
    one = leader()
    change(one, add=(FOUR,), promote=(4,))
    one.hear(2, one.core.term + 1, TermNotice())
    assert finished(one) == [(7, Withdrawn("the leader lost its office"))]
    two = leader()
    change(two, remove=(3,))
    two.hear(2, two.core.term + 1, TermNotice())
    ((token, outcome),) = finished(two)
    assert token == 7
    assert isinstance(outcome, Unknown)


def test_a_cut_off_configuration_gives_way_to_the_one_before(leader, frame):
    """Another leader replaces the entry: the voters are those of before."""
    one = leader()
    change(one, remove=(3,))
    assert one.core.membership.voters == (1, 2)
    index, term = one.core.last_id
    other = frame(index, term + 1)
    prev = LogId(index - 1, one.core.term_at(index - 1))
    one.hear(2, term + 1, AppendEntries(1, prev, 0, (other,)))
    assert one.core.membership.voters == (1, 2, 3)


def test_a_learner_never_campaigns_and_votes_when_asked(harness, membership):
    """It waits for ever; a candidate that knows more about its promotion gets its vote."""
    three = harness(loaded=LoadedState(), node_id=4)
    assert three.core.next_deadline is None
    three.hear(1, 5, RequestVote(LogId(3, 4)))
    three.flush()
    assert three.bodies() == [VoteReply(granted=True)]


def test_a_node_that_was_removed_gets_no_vote(harness):
    """Its log is not ahead, so it cannot be a voter by an entry that is missing here."""
    one = harness(3)
    one.hear(9, 2, RequestVote(LogId(1, 1)))
    one.flush()
    assert one.bodies() == [VoteReply(granted=False)]


def test_a_message_for_another_life_is_dropped(harness):
    """What was said to the node before it lost its disk is not meant for it."""
    one = harness(3)
    one.hear(2, 9, Heartbeat(1, 0), to_incarnation=b"an earlier one")
    assert one.core.term == 1
    assert one.core.statistics()["foreign"] == 1
