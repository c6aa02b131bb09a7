import pytest

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.messages import (
    AppendAck,
    AppendConflict,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    SnapshotMeta,
    TermNotice,
)
from conveyor_raft.core.types import EntryKind, LogId, RaftRole
from conveyor_raft.errors import InvariantViolation


@pytest.fixture
def stale(harness, frame):
    """A follower in term 5 with entries 2..7 of term 2 and 8..12 of term 3."""
    return harness(frames=[frame(2, 2, *"abcdef"), frame(8, 3, *"vwxyz")], term=5)


def append(prev: LogId, *frames: Frame, commit: int = 0, session: int = 7) -> AppendEntries:
    return AppendEntries(session, prev, commit, frames)


def test_an_acknowledgement_waits_for_the_disk(harness, frame):
    """It leaves with the completion of the write that holds the entries."""
    node = harness()
    out = node.hear(2, 1, append(LogId(1, 1), frame(2, 1, "a", "b")))
    assert out.messages == []
    assert out.write.frames == (frame(2, 1, "a", "b"),)
    node.flush()
    assert node.bodies() == [AppendAck(7, 3)]


def test_only_what_was_proved_is_acknowledged(stale):
    """Entries 8..12 are of nobody's concern to a leader that proves 7."""
    stale.hear(2, 5, append(LogId(7, 2)))
    stale.flush()
    assert stale.bodies() == [AppendAck(7, 7)]


def test_only_what_was_proved_is_committed(stale):
    """The leader's commit index may lie in entries that this node has differently."""
    stale.hear(2, 5, append(LogId(7, 2), commit=12))
    assert stale.core.commit_index == 7


def test_a_late_short_message_does_not_shorten_the_log(stale, frame):
    """Equal entries are left alone, whatever stands behind them."""
    out = stale.hear(2, 5, append(LogId(3, 2), frame(4, 2, "c", "d")))
    assert out.write is None or out.write.truncate_from is None
    assert stale.core.last_id == (12, 3)


def test_a_conflict_cuts_exactly_there(stale, frame):
    """In the middle of a frame of the leader and of one's own."""
    longer = frame(6, 2, "e", "f", "G", "H")
    out = stale.hear(2, 5, append(LogId(5, 2), longer, frame(10, 5, "I")))
    assert stale.core.last_id == (10, 5)
    assert out.write.truncate_from == 8
    assert [(f.first_index, f.last_index) for f in out.write.frames] == [(8, 9), (10, 10)]
    assert [f.payloads() for f in stale.core.frames(6, 10)] == [[b"e", b"f"], [b"G", b"H"], [b"I"]]


def test_a_gap_is_never_stored(harness, frame):
    """Reordered messages: the later one is refused until the earlier one is there."""
    node = harness()
    later = append(LogId(3, 1), frame(4, 1, "c"))
    node.hear(2, 1, later)
    assert node.bodies() == [AppendConflict(7, 3, 0, 2)]
    node.hear(2, 1, append(LogId(1, 1), frame(2, 1, "a", "b")))
    node.hear(2, 1, later)
    node.flush()
    assert node.bodies() == [AppendAck(7, 3), AppendAck(7, 4)]


def test_a_refusal_names_the_whole_term(stale):
    """The term that stands there and where it begins, so the leader can skip it."""
    stale.hear(2, 5, append(LogId(11, 4)))
    assert stale.bodies() == [AppendConflict(7, 11, 3, 8)]


def test_what_is_committed_is_never_cut(harness, frame):
    """A leader that wants to replace a committed entry has broken the rules; this node stops."""
    node = harness(frames=[frame(2, 2, "a", "b", "c")], term=3)
    node.hear(2, 3, append(LogId(4, 2), commit=3))
    assert node.core.commit_index == 3
    with pytest.raises(InvariantViolation, match="where term 2 is committed"):
        node.hear(2, 3, append(LogId(3, 3), frame(4, 3, "x")))
    other = harness(frames=[frame(2, 2, "a", "b", "c")], term=3)
    with pytest.raises(InvariantViolation, match="replaces entry 2"):
        other.core._replica.commit_to(3)
        other.core._replica.truncate_from(2)


def test_a_message_that_reaches_back_into_what_is_committed_needs_no_check(harness, frame):
    """It is answered with the commit index; only what lies behind it is new."""
    node = harness(frames=[frame(2, 2, "a", "b", "c")], term=2)
    node.hear(2, 2, append(LogId(4, 2), commit=4))
    node.bodies()
    node.hear(2, 2, append(LogId(1, 1), frame(2, 2, "a")))
    assert node.bodies() == [AppendAck(7, 4)]
    node.hear(2, 2, append(LogId(2, 2), frame(3, 2, "b"), frame(4, 2, "c", "d")))
    node.flush()
    assert node.bodies() == [AppendAck(7, 5)]
    assert [f.payloads() for f in node.core.frames(4, 5)][-1] == [b"d"]


@pytest.mark.parametrize("case", ["gap before", "gap between", "older", "too new", "below prev"])
def test_malformed_messages_are_dropped_and_counted(case, harness, frame):
    """What no leader can have sent changes nothing."""
    node = harness()
    frames = {
        "gap before": (frame(3, 1),),
        "gap between": (frame(2, 1), frame(4, 1)),
        "older": (frame(2, 2), frame(3, 1)),
        "too new": (frame(2, 9),),
        "below prev": (frame(2, 0),),
    }[case]
    node.hear(2, 5, append(LogId(1, 1), *frames))
    assert node.core.last_id == (1, 1)
    assert node.core.statistics()["malformed"] == 1
    assert node.core.leader_id == 2


def test_a_heartbeat_is_answered_when_the_term_is_durable(harness):
    """It commits what the leader knows that this node has."""
    node = harness()
    out = node.hear(2, 3, Heartbeat(4, 1))
    assert out.messages == []
    assert node.core.commit_index == 1
    node.flush()
    assert node.bodies() == [HeartbeatReply(4)]
    node.hear(2, 3, Heartbeat(4, 1))
    assert node.bodies() == [HeartbeatReply(4)]


def test_a_leader_of_an_older_term_is_told(harness):
    """Every kind of message that only a leader or a candidate sends is answered with the term."""
    node = harness(term=5)
    for body in (append(LogId(0, 0)), Heartbeat(1, 0)):
        node.hear(2, 4, body)
    assert node.bodies() == [TermNotice(), TermNotice()]
    node.hear(2, 4, AppendAck(1, 1))
    assert node.bodies() == []
    assert node.core.leader_id is None


def test_two_leaders_of_one_term_stop_the_node(harness):
    """Election safety is broken somewhere; nobody may go on counting on it."""
    node = harness()
    node.hear(2, 1, Heartbeat(1, 0))
    with pytest.raises(InvariantViolation, match="node 3 leads term 1, which has the leader 2"):
        node.hear(3, 1, Heartbeat(1, 0))


def test_a_timer_that_is_noticed_much_too_late_waits_once_more(harness):
    """The process stood still: what piled up is heard first. The second alarm counts."""
    node = harness()
    node.tick(node.core.next_deadline + 200)
    assert node.core.role is RaftRole.FOLLOWER
    assert node.core.statistics()["pauses"] == 1
    node.hear(2, 1, Heartbeat(1, 0))
    node.tick(node.core.next_deadline - node.now_ms + 200)
    assert node.core.role is RaftRole.FOLLOWER
    node.tick(1000)
    assert node.core.role is RaftRole.CANDIDATE


def test_a_heartbeat_in_the_inbox_beats_the_timer(harness):
    """Timers fire after the other inputs of a batch."""
    node = harness()
    node.core.tick(node.core.next_deadline)
    node.hear(2, 1, Heartbeat(1, 0))
    assert node.core.role is RaftRole.FOLLOWER


class TestEmptyNode:
    """A node without configuration waits for a leader and takes what it sends."""

    @pytest.fixture
    def empty(self, harness):
        return harness(loaded=LoadedState())

    def test_it_does_not_campaign(self, empty):
        """It does not even have a deadline."""
        assert empty.core.next_deadline is None
        empty.tick(10_000)
        assert empty.core.role is RaftRole.FOLLOWER

    def test_it_learns_the_configuration_by_appending_it(self, empty, membership):
        """From then on it is a voter with a timer; cut off again, it is not."""
        config = Frame.build(1, 1, 0, EntryKind.CONFIG, [membership(3).encode()])
        empty.hear(2, 1, append(LogId(0, 0), config))
        assert empty.core.membership == membership(3)
        assert empty.core.next_deadline is not None
        other = Frame.build(1, 2, 0, EntryKind.NOOP, [b""])
        empty.hear(3, 2, append(LogId(0, 0), other))
        assert empty.core.membership is None
        empty.tick(10_000)
        assert empty.core.role is RaftRole.FOLLOWER

    def test_a_lost_configuration_stops_the_timer(self, empty, membership):
        """A deadline that was set as a voter does not make a stranger campaign."""
        config = Frame.build(1, 1, 0, EntryKind.CONFIG, [membership(3).encode()])
        empty.hear(2, 1, append(LogId(0, 0), config))
        empty.core._replica.configurations.truncate_from(1)
        empty.expire()
        assert empty.core.role is RaftRole.FOLLOWER
        assert empty.core.next_deadline is None


class TestSnapshot:
    """A received snapshot takes the place of the log up to it."""

    def meta(self, index, term, membership):
        return SnapshotMeta(index, term, 50, membership(3))

    def test_it_replaces_a_log_that_lacks_its_entry(self, stale, membership, frame):
        """In one write; when that is durable, the state machine is restored, then all goes on."""
        meta = self.meta(20, 4, membership)
        out = stale.hear(2, 5, InstallSnapshot(7, meta))
        assert stale.core.snapshot == meta
        assert (out.write.snapshot, out.write.truncate_from) == (meta, 1)
        assert (out.install, out.apply, out.messages) == (None, None, [])
        out = stale.hear(2, 5, append(LogId(20, 4), frame(21, 5, "a"), commit=21))
        assert out.apply is None
        out = stale.flush()
        assert out.install == meta
        assert stale.bodies() == [AppendAck(7, 20), AppendAck(7, 21)]
        assert stale.flush().apply is None
        stale.core.on_snapshot_installed(meta)
        stale.core.on_snapshot_installed(meta)
        assert stale.take().apply == (21, 21)
        assert stale.core.applied_index == 20

    def test_one_that_ends_within_the_log_only_commits(self, stale, membership):
        """The entry is there in the same term, so all before it is equal, and nothing is lost."""
        out = stale.hear(2, 5, InstallSnapshot(7, self.meta(9, 3, membership)))
        assert (out.write, out.install, out.apply) == (None, None, (1, 9))
        assert stale.core.snapshot is None
        assert stale.core.last_id == (12, 3)
        assert stale.bodies() == [AppendAck(7, 9)]

    def test_it_drops_a_suffix_of_another_history(self, stale, membership):
        """The entry is there in another term: nothing behind it can be trusted."""
        stale.hear(2, 5, InstallSnapshot(7, self.meta(9, 4, membership)))
        assert stale.core.last_id == (9, 4)
        assert stale.core.term_at(10) is None

    def test_an_old_one_is_answered_with_the_commit_index(self, stale, membership):
        """It brings nothing new."""
        stale.hear(2, 5, append(LogId(7, 2), commit=7))
        stale.bodies()
        out = stale.hear(2, 5, InstallSnapshot(7, self.meta(6, 2, membership)))
        assert out.write is None
        assert stale.core.snapshot is None
        assert stale.bodies() == [AppendAck(7, 7)]

    def test_a_newer_one_overtakes_the_installation(self, stale, membership):
        """Nothing is applied before the newest accepted one has been restored."""
        older, newer = self.meta(20, 4, membership), self.meta(30, 4, membership)
        stale.hear(2, 5, InstallSnapshot(7, older))
        assert stale.flush().install == older
        stale.hear(2, 5, InstallSnapshot(7, newer))
        stale.core.on_snapshot_installed(older)
        assert stale.core.applied_index == 20
        assert stale.flush().install == newer
        stale.core.on_snapshot_installed(newer)
        assert stale.core.applied_index == 30
