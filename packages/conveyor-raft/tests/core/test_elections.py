"""Pre-votes, loyalty, and leaders without a majority: that elections disturb nobody."""

import pytest

from conveyor_raft.core.messages import (
    AppendAck,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    PreVote,
    PreVoteReply,
    RequestVote,
    SnapshotMeta,
    TermNotice,
    VoteReply,
)
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.types import LogId, RaftRole

ON = {"pre_vote": True, "check_quorum": True}
EQUAL = LogId(1, 1)


@pytest.fixture
def node(harness):
    """Node 1 of three, as it is by default."""
    return harness(**ON)


@pytest.fixture
def leader(harness):
    """It leads term 2 of three by plain election, and checks its majority."""
    node = harness(check_quorum=True)
    node.lead()
    node.flush()
    node.bodies()
    return node


class TestPreVote:
    """Asking first."""

    def test_nothing_changes_however_often_it_asks(self, node):
        """A node that is cut off stays in its term, with its vote, and writes nothing."""
        for _ in range(100):
            out = node.expire()
            assert out.write is None
        assert node.core.role is RaftRole.PRE_CANDIDATE
        assert (node.core.term, node.core.voted_for, node.core.leader_id) == (1, None, None)

    def test_a_majority_that_would_is_followed_by_the_election(self, node):
        """The question leaves at once; the request of the real election waits for the disk."""
        node.expire()
        (asked, _) = node.bodies()
        assert asked == PreVote(EQUAL, 2, node.now_ms)
        out = node.hear(2, 1, PreVoteReply(True, 2, asked.round))
        assert node.core.role is RaftRole.CANDIDATE
        assert out.write.hard_state == (2, 1)
        assert [m.body for _, m in out.messages_after] == [RequestVote(EQUAL)] * 2

    def test_voters_are_counted_not_messages(self, harness):
        """A duplicate counts once, a stranger never, and neither does another attempt."""
        node = harness(5, **ON)
        node.expire()
        asked = node.bodies()[0]
        for sender in (2, 2, 2, 8, 9):
            node.hear(sender, 1, PreVoteReply(True, 2, asked.round))
        node.hear(3, 1, PreVoteReply(True, 2, asked.round - 1))
        node.hear(3, 1, PreVoteReply(True, 3, asked.round))
        assert node.core.role is RaftRole.PRE_CANDIDATE
        node.hear(4, 1, PreVoteReply(True, 2, asked.round))
        assert node.core.role is RaftRole.CANDIDATE

    def test_late_answers_begin_no_campaign(self, node):
        """Answers to an attempt that has ended, in whatever role they arrive."""
        node.expire()
        first = node.bodies()[0]
        node.hear(2, 1, PreVoteReply(True, 2, first.round))
        node.flush()
        node.hear(2, 2, VoteReply(True))
        assert node.core.role is RaftRole.LEADER
        node.hear(3, 1, PreVoteReply(True, 2, first.round))
        assert (node.core.role, node.core.term) == (RaftRole.LEADER, 2)

    def test_an_answer_from_an_older_term_counts(self, harness, frame):
        """Who is behind may still be part of the majority."""
        node = harness(frames=[frame(2, 7, "a")], **ON)
        node.expire()
        asked = node.bodies()[0]
        node.hear(2, 3, PreVoteReply(True, 8, asked.round))
        assert (node.core.role, node.core.term) == (RaftRole.CANDIDATE, 8)

    def test_a_refusal_from_a_newer_term_is_obeyed(self, node):
        """The term is adopted, without a vote; the next attempt asks for the term behind it."""
        node.expire()
        asked = node.bodies()[0]
        node.hear(2, 5, PreVoteReply(False, 2, asked.round))
        assert (node.core.role, node.core.term) == (RaftRole.FOLLOWER, 5)
        assert node.core.voted_for is None
        node.flush()
        node.expire()
        assert node.bodies()[-1].term == 6

    def test_a_majority_of_refusals_ends_the_attempt(self, node):
        """Back to waiting, until the time of this attempt is over."""
        node.expire()
        asked = node.bodies()[0]
        for sender in (2, 3):
            node.hear(sender, 1, PreVoteReply(False, 2, asked.round))
        assert node.core.role is RaftRole.FOLLOWER

    def test_a_leader_ends_the_attempt(self, node):
        """Its heartbeat was only late."""
        node.expire()
        node.hear(3, 1, Heartbeat(1, 0))
        assert (node.core.role, node.core.leader_id) == (RaftRole.FOLLOWER, 3)

    def test_a_lost_question_is_repeated(self, node):
        """To those who have not answered."""
        node.expire()
        node.bodies()
        node.tick(50)
        assert len(node.bodies()) == 2

    def test_newer_term_against_longer_log(self, harness, frame):
        """The third node is dead; the one with the newer term has the shorter log. They agree."""
        newer = harness(frames=[], term=5, **ON)
        longer = harness(frames=[frame(2, 1, "a", "b")], node_id=2, **ON)
        both = {1: newer, 2: longer}
        for _ in range(20):
            for name, node in both.items():
                node.flush()
                node.expire()
                for message in node.sent:
                    if message.to in both:
                        both[message.to].hear(name, message.term, message.body)
                node.sent.clear()
            if longer.core.role is RaftRole.LEADER:
                break
        assert longer.core.role is RaftRole.LEADER
        assert longer.core.term == 6

    def test_a_sole_voter_asks_nobody(self, harness):
        """There is nobody to disturb."""
        node = harness(1, **ON)
        node.take()
        node.flush()
        assert node.core.role is RaftRole.LEADER


class TestAnswers:
    """What a node says when it is asked."""

    @pytest.mark.parametrize(
        ("last", "term", "granted"),
        [
            (EQUAL, 2, True),
            (LogId(9, 2), 3, True),
            (LogId(0, 0), 2, False),
            (EQUAL, 1, False),
        ],
    )
    def test_it_would_vote_as_it_votes(self, last, term, granted, node):
        """For a complete log, and for a term newer than its own."""
        node.hear(2, 1, PreVote(last, term, 7))
        assert node.bodies() == [PreVoteReply(granted, term, 7)]
        assert (node.core.term, node.core.voted_for) == (1, None)

    def test_asking_from_a_newer_term_does_not_spread_it(self, node):
        """The question of a node in term 8 leaves the others in term 1."""
        node.hear(2, 8, PreVote(EQUAL, 9, 7))
        assert node.core.term == 1
        assert node.bodies() == [PreVoteReply(True, 9, 7)]

    def test_an_answer_renews_no_patience(self, node):
        """A node that asks for ever keeps nobody from campaigning."""
        before = node.core.next_deadline
        node.tick(100)
        node.hear(2, 1, PreVote(EQUAL, 2, 7))
        assert node.core.next_deadline == before

    def test_while_the_leader_is_heard_the_answer_is_no(self, node):
        """But the leader itself may ask: then it leads no more."""
        node.hear(2, 1, Heartbeat(1, 0))
        node.bodies()
        node.tick(149)
        node.hear(3, 1, PreVote(EQUAL, 2, 7))
        node.hear(2, 1, PreVote(EQUAL, 2, 8))
        assert node.bodies() == [PreVoteReply(False, 2, 7), PreVoteReply(True, 2, 8)]
        node.tick(1)
        node.hear(3, 1, PreVote(EQUAL, 2, 9))
        assert node.bodies()[-1] == PreVoteReply(True, 2, 9)

    def test_a_leader_says_no(self, leader):
        """And stays where it is."""
        leader.hear(2, 2, PreVote(LogId(9, 2), 3, 7))
        assert leader.bodies() == [PreVoteReply(False, 3, 7)]
        assert (leader.core.role, leader.core.term) == (RaftRole.LEADER, 2)


class TestLoyalty:
    """Nobody is elected over the head of a live leader."""

    def test_a_fresh_follower_does_not_hear_candidates(self, node):
        """Neither vote nor term, until it has heard nothing for the shortest timeout."""
        node.hear(2, 1, AppendEntries(1, EQUAL, 0, ()))
        node.bodies()
        node.tick(149)
        node.hear(3, 2, RequestVote(EQUAL))
        assert (node.core.term, node.core.leader_id, node.bodies()) == (1, 2, [])
        assert node.core.statistics()["votes_withheld"] == 1
        node.tick(1)
        node.hear(3, 2, RequestVote(EQUAL))
        node.flush()
        assert node.bodies()[-1] == VoteReply(True)

    def test_it_outlives_the_term(self, node):
        """A term learned elsewhere does not end the time for which a leader may count on it."""
        node.hear(2, 1, Heartbeat(1, 0))
        node.hear(3, 5, TermNotice())
        assert node.core.term == 5
        node.flush()
        node.bodies()
        node.hear(3, 6, RequestVote(EQUAL))
        assert (node.core.term, node.bodies()) == (5, [])

    def test_a_candidate_sent_by_the_leader_is_heard(self, node):
        """A transfer needs no silence."""
        node.hear(2, 1, Heartbeat(1, 0))
        node.hear(3, 2, RequestVote(EQUAL, forced=True))
        node.flush()
        assert node.bodies()[-1] == VoteReply(True)

    def test_a_leader_is_loyal_to_itself(self, leader):
        """It learns of a newer term from answers, not from candidates."""
        leader.hear(3, 5, RequestVote(LogId(9, 4)))
        assert (leader.core.role, leader.core.term) == (RaftRole.LEADER, 2)
        leader.hear(3, 5, TermNotice())
        assert leader.core.term == 5

    def test_without_it_elections_are_the_papers(self, harness):
        """`check_quorum=False`."""
        node = harness()
        node.hear(2, 1, Heartbeat(1, 0))
        node.hear(3, 2, RequestVote(EQUAL))
        assert node.core.term == 2


class TestCheckQuorum:
    """A leader that nobody answers."""

    def wait(self, node, ms):
        for _ in range(ms // 50):
            node.tick(50)

    def test_it_steps_down_in_its_term(self, leader):
        """After the longest timeout; its proposals end, and so do new ones."""
        leader.core.propose([b"a"], wall_ms=0, token=1)
        leader.take()
        self.wait(leader, 300)
        assert leader.core.role is RaftRole.LEADER
        out = leader.tick(50)
        assert (leader.core.role, leader.core.leader_id) == (RaftRole.FOLLOWER, None)
        assert (leader.core.term, leader.core.voted_for) == (2, 1)
        assert [token for token, _ in out.finished] == [1]
        assert leader.core.statistics()["quorums_lost"] == 1

    def test_one_answer_of_three_is_enough(self, leader):
        """With its own voice that is a majority; an old or foreign answer is none."""
        for _ in range(20):
            self.wait(leader, 200)
            leader.hear(2, 2, HeartbeatReply(1, 1))
        assert leader.core.role is RaftRole.LEADER
        for _ in range(8):
            self.wait(leader, 50)
            leader.hear(2, 2, HeartbeatReply(9, 1))
            leader.hear(3, 1, HeartbeatReply(2, 1))
        assert leader.core.role is RaftRole.FOLLOWER

    def test_any_answer_counts(self, leader):
        """A follower that stores entries is there."""
        for _ in range(20):
            self.wait(leader, 200)
            leader.hear(3, 2, AppendAck(2, 1))
        assert leader.core.role is RaftRole.LEADER

    def test_a_sole_voter_leads_for_ever(self, harness):
        """It is its own majority."""
        node = harness(1, **ON)
        node.take()
        node.flush()
        self.wait(node, 5_000)
        assert node.core.role is RaftRole.LEADER

    def test_without_it_the_leader_stays(self, harness):
        """`check_quorum=False`."""
        node = harness()
        node.lead()
        self.wait(node, 5_000)
        assert node.core.role is RaftRole.LEADER


class TestCampaigns:
    """Who does not campaign, and who does so later."""

    def test_not_while_the_disk_writes(self, node, frame):
        """Entries of the leader are on their way to it: look again soon."""
        node.hear(2, 1, AppendEntries(1, EQUAL, 0, (frame(2, 1),)))
        for _ in range(5):
            node.expire()
        assert node.core.role is RaftRole.FOLLOWER
        node.flush()
        node.expire()
        assert node.core.role is RaftRole.PRE_CANDIDATE

    def test_not_while_a_snapshot_is_installed(self, node, membership):
        """What it would lead with is not there yet."""
        meta = SnapshotMeta(9, 1, 0, membership(3))
        node.hear(2, 1, InstallSnapshot(1, meta))
        node.flush()
        node.expire()
        assert node.core.role is RaftRole.FOLLOWER
        node.core.on_snapshot_installed(meta)
        node.expire()
        assert node.core.role is RaftRole.PRE_CANDIDATE

    def test_not_while_applying_is_far_behind(self, harness, frame):
        """As a leader it would accept nothing."""
        node = harness(max_uncommitted_entries=3, **ON)
        node.hear(2, 1, AppendEntries(1, EQUAL, 4, (frame(2, 1, "a", "b", "c"),)))
        node.core.on_applied(1)
        assert node.flush().apply == (2, 4)
        node.expire()
        assert node.core.role is RaftRole.FOLLOWER
        assert node.core.statistics()["campaigns_withheld"] == 1
        node.take()
        node.core.on_applied(4)
        node.expire()
        assert node.core.role is RaftRole.PRE_CANDIDATE

    def test_priority_is_patience(self, harness):
        """The delay comes on top of what chance draws, and changes no vote."""
        node = harness(priority_delay_ms=1_000, **ON)
        assert 1_150 <= node.core.next_deadline <= 1_300
        node.hear(2, 1, PreVote(EQUAL, 2, 1))
        assert node.bodies() == [PreVoteReply(True, 2, 1)]

    def test_mixed_settings_elect(self, harness):
        """A node that does not ask gets the vote of one that does, and the other way round."""
        for one, other in ((True, False), (False, True)):
            node = harness(2, pre_vote=one)
            peer = harness(2, node_id=2, pre_vote=other)
            node.expire()
            for _ in range(4):
                node.flush()
                for message in node.sent:
                    peer.hear(1, message.term, message.body)
                node.sent.clear()
                peer.flush()
                for message in peer.sent:
                    node.hear(2, message.term, message.body)
                peer.sent.clear()
            assert node.core.role is RaftRole.LEADER


def test_options_say_no_to_what_makes_no_sense():
    """A negative delay is none."""
    with pytest.raises(ValueError, match="priority_delay_ms"):
        CoreOptions(priority_delay_ms=-1)
