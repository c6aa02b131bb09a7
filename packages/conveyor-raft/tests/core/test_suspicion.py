"""A node that may have lost what it promised: what it does not do, and how it is trusted again."""

import pytest

from conveyor_raft.core.loading import LoadedState, first_state
from conveyor_raft.core.messages import (
    AppendAck,
    AppendConflict,
    AppendEntries,
    Heartbeat,
    PreVote,
    ReadReply,
    ReadRequest,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from conveyor_raft.core.types import HardState, LogId, RaftRole


@pytest.fixture
def suspect(harness, membership):
    """Node 1 of three in term 4: its log ends at 1 now, its vote is forgotten."""
    frames = first_state(membership(3)).frames
    loaded = LoadedState(HardState(4, None), None, frames, suspect=True)
    return harness(loaded=loaded, pre_vote=True, check_quorum=True)


def question(node):
    """The question about how far to go that has left last."""
    return [body for body in node.bodies() if isinstance(body, ReadRequest)][-1]


def catch_up(node, frame, *, commit):
    """Hear leader 2 of term 5, and take entry 2 from it."""
    node.hear(2, 5, AppendEntries(1, LogId(1, 1), commit, (frame(2, 4),)))
    node.flush()
    return question(node)


def test_it_votes_for_nobody(suspect):
    """Neither for real nor in words, whoever asks and however often."""
    for sender in (2, 3):
        suspect.hear(sender, 4, PreVote(LogId(9, 4), 5, 1))
        suspect.hear(sender, 5, RequestVote(LogId(9, 4)))
    suspect.flush()
    answers = suspect.bodies()
    assert len(answers) == 4
    assert not any(body.granted for body in answers)
    assert suspect.core.voted_for is None


def test_it_never_campaigns(suspect):
    """Not by losing patience, not at a leader's wish."""
    for _ in range(50):
        suspect.expire()
    suspect.hear(2, 4, TimeoutNow())
    assert (suspect.core.role, suspect.core.term) == (RaftRole.FOLLOWER, 4)
    assert suspect.bodies() == []


def test_it_takes_entries_and_acknowledges_what_it_has(suspect, frame):
    """It is a copy like any other, for what it stores from now on."""
    suspect.hear(2, 5, AppendEntries(1, LogId(1, 1), 1, (frame(2, 4),)))
    suspect.flush()
    assert AppendAck(1, 2) in suspect.bodies()
    assert suspect.core.is_suspect


def test_it_believes_no_commit_index_beyond_what_was_proved(suspect, frame):
    """The leader still thinks that it has what it has lost."""
    suspect.hear(2, 5, Heartbeat(1, 40))
    assert suspect.core.commit_index == 0
    suspect.hear(2, 5, AppendEntries(2, LogId(1, 1), 0, (frame(2, 4),)))
    suspect.hear(2, 5, Heartbeat(2, 40))
    assert suspect.core.commit_index == 2


def test_it_is_trusted_when_it_has_caught_up(suspect, frame):
    """With the answer to its own question, all of it committed and durable; then it may vote."""
    asked = catch_up(suspect, frame, commit=2)
    assert asked.suspect
    assert not suspect.hear(2, 5, ReadReply(asked.batch + 1, 0)).recovered
    assert suspect.core.is_suspect
    assert not suspect.hear(2, 5, ReadReply(asked.batch, 2)).recovered
    assert suspect.core.is_suspect
    assert suspect.flush().recovered
    assert not suspect.core.is_suspect
    assert not suspect.take().recovered
    suspect.tick(1_000)
    suspect.flush()
    suspect.bodies()
    suspect.hear(3, 6, RequestVote(LogId(2, 4)))
    suspect.flush()
    assert suspect.bodies()[-1] == VoteReply(True)


def test_it_counts_as_having_voted_for_that_leader(suspect, frame):
    """The vote of the term may be among what was lost; another one must not follow."""
    asked = catch_up(suspect, frame, commit=2)
    suspect.hear(2, 5, ReadReply(asked.batch, 2))
    assert suspect.core.voted_for == 2


def test_not_before_everything_is_there(suspect, frame):
    """The index lies beyond what is committed here, or what is durable."""
    asked = catch_up(suspect, frame, commit=1)
    suspect.hear(2, 5, ReadReply(asked.batch, 3))
    assert suspect.core.is_suspect
    suspect.hear(2, 5, AppendEntries(1, LogId(2, 4), 3, (frame(3, 5),)))
    assert suspect.core.commit_index == 3
    for _ in range(2):  # the entry, then the vote
        assert suspect.core.is_suspect
        suspect.flush()
    assert not suspect.core.is_suspect


def test_another_leader_is_asked_anew(suspect, frame):
    """What the one before said counts no more."""
    asked = catch_up(suspect, frame, commit=1)
    suspect.hear(2, 5, ReadReply(asked.batch, 2))
    suspect.hear(3, 6, AppendEntries(1, LogId(2, 4), 2, ()))
    suspect.flush()
    assert suspect.core.is_suspect
    again = question(suspect)
    assert again.batch != asked.batch
    suspect.hear(3, 6, ReadReply(again.batch, 2))
    suspect.flush()
    assert not suspect.core.is_suspect


def test_a_lost_question_is_repeated(suspect):
    """With the same number, so that the leader begins one new stream and not many."""
    suspect.hear(2, 5, Heartbeat(1, 0))
    suspect.flush()
    first = question(suspect)
    suspect.tick(50)
    assert question(suspect) == first


class TestLeader:
    """What the leader makes of it."""

    @pytest.fixture
    def leader(self, harness):
        """Leads term 2 of three; follower 2 has acknowledged entry 3, and its disk forgets it."""
        node = harness()
        node.lead()
        node.flush()
        node.core.propose([b"a"], wall_ms=0, token=1)
        node.take()
        node.hear(2, 2, AppendAck(1, 3))
        node.bodies()
        return node

    def test_it_forgets_what_was_acknowledged(self, leader):
        """Entry 3 was not durable on the leader itself yet: that acknowledgement counts no more."""
        leader.hear(2, 2, ReadRequest(7, suspect=True))
        assert leader.core.progress[2].match == 0
        leader.flush()
        assert leader.core.commit_index == 2

    def test_late_acknowledgements_of_the_time_before_are_dropped(self, leader):
        """They name the old stream."""
        leader.hear(2, 2, ReadRequest(7, suspect=True))
        leader.hear(2, 2, AppendAck(1, 3))
        assert leader.core.progress[2].match == 0

    def test_it_goes_back_to_where_the_logs_agree(self, leader):
        """As with a follower that was never met."""
        leader.flush()
        leader.hear(2, 2, ReadRequest(7, suspect=True))
        session = leader.core.progress[2].session
        leader.hear(2, 2, AppendConflict(session, 3, 0, 2))
        leader.hear(2, 2, AppendAck(session, 3))
        assert leader.core.progress[2].match == 3

    def test_one_request_begins_one_stream(self, leader):
        """However often it arrives."""
        leader.hear(2, 2, ReadRequest(7, suspect=True))
        session = leader.core.progress[2].session
        leader.hear(2, 2, ReadRequest(7, suspect=True))
        assert leader.core.progress[2].session == session
        leader.hear(2, 2, ReadRequest(8, suspect=True))
        assert leader.core.progress[2].session > session
