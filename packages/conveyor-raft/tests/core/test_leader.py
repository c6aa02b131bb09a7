import pytest

from conveyor_raft.core.messages import (
    AppendAck,
    AppendConflict,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    TermNotice,
)
from conveyor_raft.core.types import Applied, EntryKind, LogId, Proposed, RaftRole, Refused, Unknown
from conveyor_raft.errors import PayloadTooLarge


@pytest.fixture
def leader(harness):
    """Leads term 2 of three; its own entry of the term, at index 2, is durable and committed."""
    node = harness()
    node.lead()
    node.flush()
    node.hear(2, 2, AppendAck(1, 2))
    node.hear(3, 2, AppendAck(2, 2))
    node.core.on_applied(2)
    node.bodies()
    return node


def test_it_begins_with_an_entry_of_its_own_term(harness):
    """Nothing of the past could be committed without one."""
    node = harness()
    node.lead()
    assert node.core.last_id == (2, 2)
    (entry,) = node.core.frames(2, 2)
    assert entry.kind is EntryKind.NOOP
    appends = [m.body for m in node.sent if isinstance(m.body, AppendEntries)]
    assert appends[0] == AppendEntries(1, LogId(1, 1), 0, (entry,))
    assert [a.session for a in appends] == [1, 2]


def test_entries_leave_while_the_own_disk_writes(leader):
    """Own copy and one other: committed when both are durable, whichever comes last."""
    answer = leader.core.propose([b"a", b"b"], wall_ms=10, token=1)
    assert answer == Proposed(3, 4, 2)
    out = leader.take()
    assert [type(body) for body in leader.bodies()] == [AppendEntries] * 2
    assert out.write is not None
    leader.hear(2, 2, AppendAck(1, 4))
    assert leader.core.commit_index == 2
    out = leader.flush()
    assert (leader.core.commit_index, out.apply) == (4, (3, 4))
    leader.core.on_applied(4)
    assert leader.take().finished == [(1, Applied(3, 4))]


def test_two_followers_suffice(leader):
    """The quorum need not contain the leader's own disk; but it applies only what it has."""
    leader.core.propose([b"a"], wall_ms=0, token=1)
    leader.take()
    leader.hear(2, 2, AppendAck(1, 3))
    out = leader.hear(3, 2, AppendAck(2, 3))
    assert leader.core.commit_index == 3
    assert out.apply is None
    assert leader.flush().apply == (3, 3)


def test_old_entries_are_not_committed_by_counting(harness, frame):
    """Figure 8: entries of term 2 on a majority wait for one of term 3."""
    node = harness(frames=[frame(2, 2, "a", "b")])
    node.lead()
    node.flush()
    node.hear(2, 3, AppendAck(1, 3))
    assert node.core.commit_index == 0
    node.hear(2, 3, AppendAck(1, 4))
    assert node.core.commit_index == 4


def test_a_proposal_is_one_frame_where_it_fits(leader, harness):
    """Otherwise as few as the limit on a batch allows; a larger payload travels alone."""
    leader.core.propose([b"x"] * 100, wall_ms=0, token=1)
    assert len(leader.take().write.frames) == 1
    node = harness(max_batch_bytes=100)
    node.lead()
    node.flush()
    node.core.propose([b"x" * 20, b"y" * 20, b"z" * 20, b"w" * 300, b"v"], wall_ms=0, token=1)
    counts = [frame.count for frame in node.take().write.frames]
    assert counts == [2, 1, 1, 1]


def test_timestamps_never_decrease(leader):
    """Whatever the wall clock does; one call shares one timestamp."""
    for wall_ms in (100, 50, 200):
        leader.core.propose([b"a", b"b"], wall_ms=wall_ms, token=wall_ms)
    assert [frame.timestamp_ms for frame in leader.core.frames(3, 8)] == [100, 100, 200]


def test_what_cannot_be_accepted_is_refused_at_once(harness):
    """Too much on its way, not the leader, too large, nothing at all."""
    node = harness(max_uncommitted_entries=3, max_payload_bytes=10)
    assert isinstance(node.core.propose([b"a"], wall_ms=0, token=1), Refused)
    node.lead()
    with pytest.raises(PayloadTooLarge, match="11 bytes"):
        node.core.propose([b"a", b"x" * 11], wall_ms=0, token=1)
    with pytest.raises(ValueError, match="at least one payload"):
        node.core.propose([], wall_ms=0, token=1)
    last = node.core.last_id.index
    assert isinstance(node.core.propose([b"a"], wall_ms=0, token=1), Proposed)
    busy = node.core.propose([b"a"], wall_ms=0, token=2)
    assert (busy.reason.value, busy.leader_id) == ("busy", 1)
    assert node.core.last_id.index == last + 1


def test_bytes_bound_what_is_on_its_way(harness):
    """An idle way takes one proposal of any size."""
    node = harness(1, max_uncommitted_bytes=200)
    node.take()
    node.flush()
    node.core.on_applied(node.flush().apply[1])
    assert isinstance(node.core.propose([b"x" * 500], wall_ms=0, token=1), Proposed)
    assert isinstance(node.core.propose([b"x"], wall_ms=0, token=2), Refused)
    node.take()
    node.core.on_applied(node.flush().apply[1])
    assert isinstance(node.core.propose([b"x"], wall_ms=0, token=3), Proposed)


def test_heartbeats_carry_no_more_than_the_receiver_has(leader):
    """A follower never commits what it has not proved."""
    leader.core.propose([b"a"], wall_ms=0, token=1)
    leader.take()
    leader.flush()
    leader.hear(2, 2, AppendAck(1, 3))
    leader.bodies()
    leader.expire()
    assert leader.bodies(2) == [Heartbeat(1, 3, 1)]
    leader.expire()
    assert leader.bodies(3) == [Heartbeat(2, 2, 2)]


def test_the_window_bounds_what_is_unanswered(leader):
    """Full, it waits; an acknowledgement frees it; everything that gathered leaves together."""
    for token in range(10):
        leader.core.propose([b"x"], wall_ms=0, token=token)
        leader.take()
    assert len(leader.bodies(2)) == 4
    leader.hear(2, 2, AppendAck(1, 3))
    (append,) = leader.bodies(2)
    assert [frame.first_index for frame in append.frames] == [7, 8, 9, 10, 11, 12]


def test_lost_messages_are_noticed_by_the_next_heartbeat(leader):
    """An empty message behind the last one meets a conflict, and the stream begins anew."""
    leader.core.propose([b"x"], wall_ms=0, token=1)
    leader.take()
    leader.bodies()
    leader.hear(2, 2, HeartbeatReply(1))
    assert leader.bodies(2) == [AppendEntries(1, LogId(3, 2), 2, ())]
    leader.hear(2, 2, AppendConflict(1, 3, 0, 3))
    (again,) = leader.bodies(2)
    assert (again.prev, len(again.frames)) == ((2, 2), 1)
    leader.take()
    assert leader.bodies(2) == []
    leader.hear(2, 2, HeartbeatReply(1))
    assert len(leader.bodies(2)) == 1


def test_answers_of_another_stream_are_dropped(leader):
    """A session number that was never given out, or one of another follower."""
    leader.core.propose([b"x"], wall_ms=0, token=1)
    leader.take()
    leader.flush()
    leader.hear(2, 2, AppendAck(2, 3))
    leader.hear(9, 2, AppendAck(1, 3))
    leader.hear(2, 2, AppendConflict(2, 3, 0, 1))
    leader.hear(2, 2, HeartbeatReply(2))
    assert leader.core.commit_index == 2
    assert leader.core.statistics()["stale"] == 4


def test_an_acknowledgement_of_more_than_there_is_counts_for_nothing(leader):
    """No follower can have proved what was never sent."""
    leader.core.propose([b"x"], wall_ms=0, token=1)
    leader.take()
    leader.flush()
    leader.hear(2, 2, AppendAck(1, 99))
    assert leader.core.commit_index == 2
    assert leader.core.statistics()["malformed"] == 1


def test_a_divergent_log_is_met_in_few_round_trips(harness, frame):
    """A thousand entries over five terms: one message for each term, not for each entry."""
    node = harness(frames=[frame(2, 1, "a"), frame(3, 9, *["x"] * 1500)])
    stale = [frame(3 + 200 * step, 2 + step, *["y"] * 200) for step in range(5)]
    follower = harness(node_id=2, frames=[frame(2, 1, "a"), *stale])
    node.lead()
    trips = 0
    while follower.core.last_id != node.core.last_id:
        trips += 1
        for append in [body for body in node.bodies(2) if isinstance(body, AppendEntries)]:
            follower.hear(1, 10, append)
        follower.flush()
        for answer in follower.bodies():
            node.hear(2, 10, answer)
    assert trips <= 7
    assert follower.core.statistics()["truncations"] == 1


def test_the_loss_of_office_ends_what_is_not_committed(leader):
    """Committed proposals go on to be applied; the others are unknown, at once."""
    leader.core.propose([b"a"], wall_ms=0, token=1)
    leader.take()
    leader.flush()
    leader.core.propose([b"b"], wall_ms=0, token=2)
    leader.take()
    leader.hear(2, 2, AppendAck(1, 3))
    out = leader.hear(3, 5, TermNotice())
    assert [(token, type(outcome)) for token, outcome in out.finished] == [(2, Unknown)]
    assert leader.core.role is RaftRole.FOLLOWER
    leader.core.on_applied(3)
    assert leader.take().finished == [(1, Applied(3, 3))]


def test_connection_hints_only_change_when_to_try(leader):
    """Down: look again from what is proved; up: do not wait for the next heartbeat."""
    leader.core.propose([b"a"], wall_ms=0, token=1)
    leader.take()
    leader.bodies()
    leader.core.on_peer(2, up=False)
    leader.take()
    assert leader.bodies(2) == []
    leader.core.on_peer(2, up=True)
    leader.core.on_peer(9, up=True)
    leader.take()
    (append,) = leader.bodies(2)
    assert append.prev == (2, 2)
    leader.hear(2, 2, AppendAck(1, 3))
    leader.core.on_peer(2, up=True)
    assert leader.core.progress[2].match == 3


class TestSnapshot:
    """A follower that needs what is gone is offered the snapshot."""

    @pytest.fixture
    def compacted(self, harness):
        node = harness(snapshot_trailing_entries=0)
        node.lead()
        node.flush()
        node.hear(2, 2, AppendAck(1, 2))
        node.core.on_applied(2)
        node.core.propose([b"a", b"b"], wall_ms=0, token=1)
        node.take()
        node.flush()
        node.hear(2, 2, AppendAck(1, 4))
        node.core.on_applied(4)
        node.core.on_snapshot_created(node.core.describe_snapshot(4))
        assert node.take().compact_through == 4
        return node

    def offer(self, node):
        node.bodies()
        node.hear(3, 2, HeartbeatReply(2))
        out = node.hear(3, 2, AppendConflict(2, 1, 0, 1))
        return (out.send_snapshot or node.outputs[-2].send_snapshot)[0]

    def test_it_is_offered_once(self, compacted):
        """Heartbeats go on; nothing else is sent until the stream has ended."""
        send = self.offer(compacted)
        assert (send.peer, send.meta, send.session) == (3, compacted.core.snapshot, 2)
        assert send.message.body == InstallSnapshot(2, send.meta)
        assert send.message.to == 3
        compacted.bodies()
        for _ in range(3):
            compacted.hear(3, 2, HeartbeatReply(2))
        assert compacted.bodies(3) == []
        compacted.expire()
        assert compacted.bodies(3) == [Heartbeat(2, 0, 1)]

    def test_delivered_it_is_followed_by_entries(self, compacted):
        """The search goes on behind it; the late proof is welcome before or after."""
        send = self.offer(compacted)
        compacted.core.on_snapshot_sent(3, send.session, delivered=True)
        compacted.hear(3, 2, HeartbeatReply(2))
        (probe,) = compacted.bodies(3)[-1:]
        assert probe.prev == (4, 2)
        compacted.hear(3, 2, AppendAck(2, 4))
        assert compacted.core.progress[3].match == 4

    def test_a_broken_stream_is_tried_again(self, compacted):
        """After the next sign of life; reports of another stream change nothing."""
        send = self.offer(compacted)
        compacted.core.on_snapshot_sent(3, 99, delivered=False)
        compacted.core.on_snapshot_sent(9, send.session, delivered=False)
        assert compacted.hear(3, 2, HeartbeatReply(2)).send_snapshot == []
        compacted.core.on_snapshot_sent(3, send.session, delivered=False)
        assert compacted.take().send_snapshot == []
        out = compacted.hear(3, 2, HeartbeatReply(2))
        assert [again.peer for again in out.send_snapshot] == [3]

    def test_a_proof_that_came_first_makes_the_report_stale(self, compacted):
        """The follower installed and acknowledged before the stream's end was noticed."""
        send = self.offer(compacted)
        compacted.hear(3, 2, AppendAck(2, 4))
        compacted.core.on_snapshot_sent(3, send.session, delivered=True)
        assert compacted.core.progress[3].next == 5
