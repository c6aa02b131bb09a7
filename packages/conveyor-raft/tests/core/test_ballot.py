import pytest

from conveyor_raft.core.ballot import at_least_as_complete
from conveyor_raft.core.messages import RequestVote, VoteReply
from conveyor_raft.core.types import LogId


@pytest.mark.parametrize(
    ("candidate", "granted"),
    [
        (LogId(9, 2), False),
        (LogId(1, 4), True),
        (LogId(5, 3), True),
        (LogId(4, 3), False),
        (LogId(6, 3), True),
    ],
)
def test_logs_are_compared_by_term_then_index(candidate, granted, harness, frame):
    """Own log ends at 5 of term 3: longer but older loses, shorter but newer wins."""
    own = LogId(5, 3)
    assert at_least_as_complete(candidate, own) is granted
    voter = harness(frames=[frame(2, 3, "a", "b", "c", "d")])
    voter.hear(2, 9, RequestVote(candidate))
    voter.flush()
    assert voter.bodies() == [VoteReply(granted)]


def test_no_answer_before_the_vote_is_durable(harness):
    """Neither a grant nor a refusal leaves while the write that it depends on is pending."""
    voter = harness()
    out = voter.hear(2, 5, RequestVote(LogId(9, 4)))
    assert out.messages == []
    assert out.write.hard_state == (5, 2)
    assert [(write_id, m.body) for write_id, m in out.messages_after] == [(1, VoteReply(True))]
    out = voter.hear(3, 5, RequestVote(LogId(9, 4)))
    assert out.messages == []
    assert [(write_id, m.body) for write_id, m in out.messages_after] == [(1, VoteReply(False))]


def test_one_vote_for_each_term_also_after_a_restart(harness):
    """The same candidate gets the same answer again; another one is refused."""
    voter = harness(term=5, voted_for=2)
    voter.hear(3, 5, RequestVote(LogId(9, 5)))
    voter.hear(2, 5, RequestVote(LogId(9, 5)))
    assert voter.bodies() == [VoteReply(False), VoteReply(True)]
    voter.hear(3, 6, RequestVote(LogId(9, 5)))
    voter.flush()
    assert voter.bodies() == [VoteReply(True)]


def test_a_candidate_keeps_its_vote_when_it_gives_up(harness):
    """Back to follower in the same term, it refuses others."""
    node = harness()
    node.expire()
    node.flush()
    for voter in (2, 3):
        node.hear(voter, 2, VoteReply(False))
    assert node.core.role.value == "follower"
    node.bodies()
    node.hear(3, 2, RequestVote(LogId(9, 1)))
    assert node.bodies() == [VoteReply(False)]


def test_a_granted_vote_renews_patience_a_refused_one_does_not(harness):
    """Otherwise a candidate that cannot win could keep everybody from campaigning."""
    node = harness()
    before = node.core.next_deadline
    node.tick(100)
    node.hear(2, 2, RequestVote(LogId(0, 0)))
    assert node.core.next_deadline == before
    node.hear(2, 3, RequestVote(LogId(9, 2)))
    assert node.core.next_deadline > before
