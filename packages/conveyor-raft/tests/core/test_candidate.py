import pytest

from conveyor_raft.core.messages import AppendEntries, Heartbeat, RequestVote, TermNotice, VoteReply
from conveyor_raft.core.types import LogId, RaftRole


def test_requests_leave_after_the_own_vote_is_durable(harness):
    """Otherwise a crash could make this node vote twice in the term it asked for."""
    node = harness()
    out = node.expire()
    assert out.messages == []
    assert out.write.hard_state == (2, 1)
    assert [m.to for _, m in out.messages_after] == [2, 3]
    node.flush()
    assert node.bodies() == [RequestVote(LogId(1, 1))] * 2


def test_voters_are_counted_not_messages(harness):
    """A duplicate counts once, a stranger never."""
    node = harness(5)
    node.expire()
    node.flush()
    for _ in range(3):
        node.hear(2, 2, VoteReply(True))
    for stranger in (7, 8, 9):
        node.hear(stranger, 2, VoteReply(True))
    assert node.core.role is RaftRole.CANDIDATE
    node.hear(3, 2, VoteReply(True))
    assert node.core.role is RaftRole.LEADER


def test_a_lost_request_is_repeated_within_the_term(harness):
    """Only to those who have not answered."""
    node = harness()
    node.expire()
    node.flush()
    node.bodies()
    node.hear(2, 2, VoteReply(False))
    node.tick(50)
    assert [(m.to, m.term) for m in node.sent] == [(3, 2)]


def test_late_grants_elect_nobody(harness):
    """Grants of term 2 that arrive in term 7 are nothing."""
    node = harness()
    node.expire()
    node.flush()
    node.hear(2, 7, Heartbeat(1, 0))
    for voter in (2, 3):
        node.hear(voter, 2, VoteReply(True))
    assert node.core.role is RaftRole.FOLLOWER
    assert (node.core.term, node.core.leader_id) == (7, 2)


def test_a_leader_of_the_same_term_ends_the_candidacy(harness):
    """Somebody else has won."""
    node = harness()
    node.expire()
    node.hear(3, 2, AppendEntries(1, LogId(1, 1), 0, ()))
    assert (node.core.role, node.core.leader_id) == (RaftRole.FOLLOWER, 3)
    assert node.core.voted_for == 1


def test_an_election_without_result_is_followed_by_another(harness):
    """With a new term and a new timeout."""
    node = harness()
    node.expire()
    node.flush()
    for _ in range(10):
        node.expire()
    assert node.core.role is RaftRole.CANDIDATE
    assert node.core.term == 3


def test_a_slow_disk_begins_no_second_election(harness):
    """While the own vote is not durable, another term would only give it more to write."""
    node = harness()
    node.expire()
    for _ in range(50):
        node.expire()
    assert (node.core.role, node.core.term) == (RaftRole.CANDIDATE, 2)
    node.flush()
    node.hear(2, 2, VoteReply(True))
    assert node.core.role is RaftRole.LEADER


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_small_and_even_clusters_elect(nodes, harness):
    """A sole voter needs but its own, durable vote; else two of two, or three of four."""
    node = harness(nodes)
    if nodes == 1:
        assert node.core.next_deadline == 0
        node.take()
        assert node.core.role is RaftRole.CANDIDATE
        assert node.bodies() == []
        node.flush()
    else:
        node.lead()
    assert node.core.role is RaftRole.LEADER


def test_a_newer_term_in_any_answer_ends_the_candidacy(harness):
    """A notice says nothing but the term."""
    node = harness()
    node.expire()
    out = node.hear(2, 9, TermNotice())
    assert (node.core.role, node.core.term, node.core.voted_for) == (RaftRole.FOLLOWER, 9, None)
    assert out.write.hard_state == (9, None)


def test_timeouts_are_drawn_anew(harness):
    """Equal clocks do not stay in step."""
    draws = set()
    node = harness()
    for _ in range(8):
        draws.add(node.core.next_deadline - node.now_ms)
        node.hear(2, 1, Heartbeat(1, 0))
    assert len(draws) > 4
    assert all(150 <= draw <= 300 for draw in draws)
