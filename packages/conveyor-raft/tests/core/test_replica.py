import pytest

from conveyor_raft.core.messages import TermNotice, VoteReply
from conveyor_raft.core.replica import PROMISES_MAX
from conveyor_raft.errors import InvariantViolation


@pytest.fixture
def replica(harness, frame):
    return harness(frames=[frame(2, 2, "a", "b")], term=4, voted_for=3).core._replica


@pytest.mark.parametrize(("term", "vote"), [(3, None), (4, 2), (4, None)])
def test_terms_and_votes_do_not_go_back(replica, term, vote):
    """Neither an older term, nor a second vote, nor a vote withdrawn."""
    with pytest.raises(InvariantViolation, match="must not replace term 4 with vote 3"):
        replica.adopt(term, vote)


def test_the_same_vote_is_not_written_again(replica):
    """Nothing changed, so there is nothing to wait for."""
    replica.adopt(4, 3)
    assert replica.ledger.barrier() == 0


@pytest.mark.parametrize("index", [0, 4])
def test_the_commit_index_stays_within_what_there_is(replica, index):
    """It neither goes back nor beyond the log."""
    replica.commit_to(2)
    with pytest.raises(InvariantViolation, match="does not follow 2"):
        replica.commit_to(index)


def test_a_promise_waits_for_more_than_a_revealed_term(replica, frame):
    """Entries on their way to the disk concern what is promised, not what the envelope says."""
    replica.append(frame(4, 4))
    replica.promise(2, VoteReply(granted=False))
    replica.reveal_term(2, TermNotice())
    assert [write_id for write_id, _ in replica.messages_after] == [1]
    assert [message.body for message in replica.messages] == [TermNotice()]


def test_timestamps_continue_the_log_or_the_snapshot(replica, frame):
    """The wall clock counts only if it is ahead."""
    assert replica.timestamp_ms(7) == 7
    replica.append(frame(4, 4, timestamp_ms=20))
    assert (replica.timestamp_ms(7), replica.timestamp_ms(21)) == (20, 21)


def test_of_several_acknowledgements_in_one_batch_the_furthest_says_all(replica, frame):
    """One message for each batch; those of another stream, leader or term stand for themselves."""
    replica.append(frame(4, 4, "a", "b", "c"))
    for to, session, match in ((2, 1, 4), (2, 1, 6), (2, 1, 5), (2, 2, 4), (3, 2, 4), (3, 2, 5)):
        replica.acknowledge(to, session, match)
    replica.adopt(5, None)
    replica.acknowledge(3, 2, 6)
    assert [(m.to, m.term, *m.body) for _, m in replica.messages_after] == [
        (2, 4, 1, 6),
        (2, 4, 2, 4),
        (3, 4, 2, 5),
        (3, 5, 2, 6),
    ]


def test_a_disk_that_stands_still_holds_a_bounded_number_of_messages(replica, frame):
    """The rest is lost and counted; when the disk goes on, so do the promises."""
    replica.append(frame(4, 4))
    for _ in range(PROMISES_MAX + 5):
        replica.promise(2, VoteReply(granted=False))
    assert len(replica.messages_after) == PROMISES_MAX
    assert replica.counters["promises_dropped"] == 5
    replica.ledger.take_write(4)
    replica.ledger.written(1)
    replica.append(frame(5, 4))
    replica.promise(2, VoteReply(granted=False))
    assert len(replica.messages_after) == PROMISES_MAX + 1
