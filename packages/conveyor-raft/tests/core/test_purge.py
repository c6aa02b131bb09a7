import pytest

from conveyor_raft.core.messages import AppendAck, HeartbeatReply, Message
from conveyor_raft.core.types import LogId, NodeId


@pytest.fixture
def leader(harness):
    """Node 1 leads two others that have the log up to entry 2; then it appends 20 entries alone."""

    def build(**options):
        limits = {"snapshot_trailing_entries": 3, "max_inflight_messages": 100, **options}
        one = harness(3, **limits)
        one.lead()
        one.flush()
        for peer in (2, 3):
            one.hear(peer, 2, AppendAck(one.core.progress[peer].session, 2))
        for number in range(20):
            one.core.propose([b"%d" % number], wall_ms=0, token=number)
            one.take()
        one.flush()
        return one

    return build


def snapshot_at(one, index):
    """Apply up to the index, and adopt a snapshot there; return how far the log is forgotten."""
    while one.core.applied_index < index:
        handed = max(out.apply[1] for out in one.outputs if out.apply is not None)
        one.core.on_applied(min(handed, index))
        one.take()
    one.core.on_snapshot_created(one.core.describe_snapshot(index))
    one.take()
    return one.core.first_index - 1


def acknowledge(one, peer, index):
    one.hear(peer, 2, AppendAck(one.core.progress[peer].session, index))


def test_a_slow_follower_that_is_alive_is_spared(leader):
    """It gets the entries that it lacks, beyond the trail, instead of a snapshot."""
    one = leader()
    acknowledge(one, 2, 20)
    acknowledge(one, 3, 5)
    assert snapshot_at(one, 20) == 5


def test_a_silent_follower_holds_nothing_back(leader):
    """Who has not answered for an election's time will get a snapshot."""
    one = leader()
    acknowledge(one, 3, 5)
    for _ in range(8):
        one.tick(50)
        one.hear(2, 2, HeartbeatReply(one.core.progress[2].session))
    acknowledge(one, 2, 20)
    assert snapshot_at(one, 20) == 17


@pytest.mark.parametrize("bound", [{"snapshot_spared_entries": 10}, {"snapshot_spared_bytes": 300}])
def test_nobody_is_spared_beyond_the_bounds(leader, bound):
    """Too many entries, or too many bytes: only the trail stays."""
    one = leader(**bound)
    acknowledge(one, 2, 20)
    acknowledge(one, 3, 5)
    assert snapshot_at(one, 20) == 17


def test_a_follower_that_is_close_leaves_the_trail_as_it_is(leader):
    """Sparing never makes the trail shorter."""
    one = leader()
    acknowledge(one, 2, 22)
    acknowledge(one, 3, 21)
    assert snapshot_at(one, 20) == 17


def test_the_log_behind_a_snapshot_on_its_way_stays_until_a_deadline(leader):
    """Whoever installs it needs what comes after it."""
    for hold_ms, base in ((60_000, 12), (1, 18)):
        one = leader(snapshot_hold_ms=hold_ms, snapshot_spared_entries=9)
        acknowledge(one, 2, 22)
        assert snapshot_at(one, 12) == 9
        one.hear(3, 2, AppendAck(one.core.progress[3].session, 2))
        one.core.on_peer(NodeId(3), up=False)  # where it is, the log is gone: a snapshot is sent
        one.take()
        one.hear(3, 2, HeartbeatReply(one.core.progress[3].session))
        sent = [send for out in one.outputs for send in out.send_snapshot]
        assert [send.meta.last_id for send in sent] == [LogId(12, 2)]
        assert isinstance(sent[0].message, Message)
        one.tick(5)
        one.hear(3, 2, HeartbeatReply(one.core.progress[3].session))
        assert snapshot_at(one, 21) == base
