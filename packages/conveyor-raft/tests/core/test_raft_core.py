import ast
import dataclasses
from pathlib import Path

import pytest

import conveyor_raft.core
from conveyor_raft.core.loading import LoadedState, first_state
from conveyor_raft.core.messages import (
    AppendAck,
    AppendEntries,
    Heartbeat,
    InstallSnapshot,
    Message,
    SnapshotMeta,
    VoteReply,
)
from conveyor_raft.core.types import (
    Applied,
    ClusterId,
    Incarnation,
    LogId,
    Member,
    NodeId,
    RaftRole,
    RefusedReason,
    Unknown,
)
from conveyor_raft.errors import InvariantViolation

FORBIDDEN = {"asyncio", "grpc", "sqlite3", "socket", "os", "time", "datetime", "random"}
FORBIDDEN |= {"threading", "logging", "uuid", "secrets"}


def test_the_core_imports_no_clock_no_chance_and_no_io():
    """Time and chance are arguments; within the package only the errors are known."""
    allowed = "conveyor_raft.core"
    for file in Path(conveyor_raft.core.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in FORBIDDEN, f"{file.name} imports {name}"
                if name.startswith("conveyor_raft"):
                    assert name.startswith(allowed) or name == "conveyor_raft.errors"


def test_roles_do_not_know_each_other():
    """Only the core changes the role."""
    folder = Path(conveyor_raft.core.__file__).parent
    roles = {"follower", "candidate", "leader"}
    for role in roles:
        text = (folder / f"{role}.py").read_text()
        assert not any(f"core.{other}" in text for other in roles - {role})


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster_id": ClusterId(b"other")},
        {"to": NodeId(2)},
        {"sender_id": 1},
    ],
)
def test_foreign_messages_are_dropped_and_counted(changes, harness):
    """Another cluster, another addressee, an echo of oneself: never stepped, whatever the term."""
    node = harness()
    sender = changes.pop("sender_id", 2)
    node.hear(sender, 99, Heartbeat(1, 0), **changes)
    assert node.core.term == 1
    assert node.core.statistics()["foreign"] == 1


def test_a_member_that_lost_its_disk_is_not_itself_any_more(harness, membership):
    """The same id with another incarnation has forgotten its votes; nobody listens to it."""
    members = tuple(
        Member(node, f"node-{node}:1", "", Incarnation(b"%d" % node)) for node in (1, 2, 3)
    )
    loaded = first_state(type(membership(1))(members))
    node = harness(loaded=loaded)
    node.hear(2, 5, Heartbeat(1, 0), incarnation=b"new")
    assert node.core.term == 1
    node.hear(2, 5, Heartbeat(1, 0), incarnation=b"2")
    assert node.core.term == 5
    node.hear(9, 6, Heartbeat(1, 0), incarnation=b"anything")
    assert node.core.term == 6


def test_answers_to_an_earlier_life_are_dropped(harness):
    """A leader that was restarted in its term does not know its followers any more."""
    node = harness(term=4, voted_for=1)
    node.hear(2, 4, AppendAck(1, 1))
    node.hear(2, 4, VoteReply(True))
    assert node.core.role is RaftRole.FOLLOWER
    assert node.core.statistics()["stale"] == 1


def test_inputs_between_two_takes_share_one_write(harness):
    """Group commit needs no timer: what arrives while the disk is busy gathers."""
    node = harness(1)
    node.take()
    node.flush()
    node.flush()
    for token in range(3):
        node.core.propose([b"x"], wall_ms=0, token=token)
        assert node.take(write=False).write is None
    out = node.take()
    assert len(out.write.frames) == 3
    assert node.take().write is None


def test_messages_may_wait_for_a_write_that_is_not_handed_out_yet(harness, frame):
    """The id is known before the write is."""
    node = harness()
    node.core.tick(0)
    node.hear(2, 1, Heartbeat(1, 0))
    message = Message(
        ClusterId(b"test"),
        NodeId(2),
        Incarnation(b""),
        NodeId(1),
        1,
        AppendEntries(1, LogId(1, 1), 0, (frame(2, 1),)),
    )
    node.core.step(message)
    out = node.take(write=False)
    ((write_id, _),) = out.messages_after
    assert node.take().write.write_id == write_id


def test_the_clock_does_not_run_backwards(harness):
    """An earlier time than before is taken for the same time."""
    node = harness()
    deadline = node.core.next_deadline
    node.core.tick(100)
    node.core.tick(50)
    node.hear(2, 1, Heartbeat(1, 0))
    assert node.core.next_deadline >= 100 + 150
    assert deadline <= 300


def test_apply_comes_range_by_range(harness):
    """The next range is handed out when the one before was applied; partial reports count."""
    node = harness(1)
    node.take()
    node.flush()
    assert node.flush().apply == (1, 2)
    node.core.propose([b"a"], wall_ms=0, token=1)
    node.take()
    assert node.flush().apply is None
    node.core.on_applied(1)
    assert node.take().apply is None
    node.core.on_applied(2)
    node.core.on_applied(1)
    assert node.take().apply == (3, 3)
    with pytest.raises(InvariantViolation, match="entry 4 was applied"):
        node.core.on_applied(4)


def test_soft_state_is_told_when_it_changes(harness):
    """Once, and with the whole level."""
    node = harness()
    out = node.hear(2, 3, Heartbeat(1, 0))
    assert out.soft == (RaftRole.FOLLOWER, 2, 3)
    assert node.hear(2, 3, Heartbeat(1, 0)).soft is None


class TestFailedDisk:
    """A write that failed ends the node's part for good."""

    def test_tokens_end_and_nothing_leaves(self, harness):
        """Nobody may count on what this node says from now on."""
        node = harness()
        node.lead()
        node.flush()
        node.core.propose([b"a"], wall_ms=0, token=5)
        write = node.take().write
        node.core.on_write_failed(write.write_id)
        out = node.take()
        assert [(t, type(o)) for t, o in out.finished] == [(5, Unknown)]
        assert out.soft.role is RaftRole.FOLLOWER
        assert (out.messages, out.messages_after, out.write) == ([], [], None)
        assert node.core.failed
        assert node.core.next_deadline is None
        refused = node.core.propose([b"b"], wall_ms=0, token=6)
        assert refused.reason is RefusedReason.FAILED

    def test_it_stays_failed(self, harness):
        """A later success proves nothing; messages are not heard."""
        node = harness()
        node.expire()
        node.core.on_write_failed(1)
        node.core.on_written(1)
        node.hear(2, 9, Heartbeat(1, 0))
        assert node.core.term == 2
        assert node.tick(10_000).messages == []


class TestSnapshots:
    """Snapshots of the node's own state, and the log behind them."""

    @pytest.fixture
    def busy(self, harness):
        def build(**options):
            node = harness(1, **options)
            node.take()
            node.flush()
            node.core.on_applied(node.flush().apply[1])
            for token in range(10):
                node.core.propose([b"x" * 50], wall_ms=100 + token, token=token)
            node.take()
            node.core.on_applied(node.flush().apply[1])
            return node

        return build

    def test_due_by_entries_or_by_bytes(self, busy):
        """Whichever comes first; counted behind the last snapshot, in applied entries."""
        assert not busy().core.snapshot_due
        for options in ({"snapshot_interval_entries": 12}, {"snapshot_interval_bytes": 800}):
            node = busy(**options)
            assert node.core.snapshot_due
            node.core.on_snapshot_created(node.core.describe_snapshot(12))
            assert not node.core.snapshot_due

    def test_described_with_what_a_restart_needs(self, busy):
        """Term, timestamp and configuration at that index."""
        node = busy()
        meta = node.core.describe_snapshot(7)
        assert (meta.index, meta.term, meta.timestamp_ms) == (7, 2, 104)
        assert meta.membership == node.core.membership
        with pytest.raises(ValueError, match="no snapshot at index 13"):
            node.core.describe_snapshot(13)

    def test_a_trail_of_entries_stays(self, busy):
        """For followers that are a little late; bounded in bytes as well."""
        node = busy(snapshot_trailing_entries=4)
        node.core.on_snapshot_created(node.core.describe_snapshot(12))
        assert (node.take().compact_through, node.core.first_index) == (8, 9)
        assert node.core.describe_snapshot(12) == node.core.snapshot
        node = busy(snapshot_trailing_entries=4, snapshot_trailing_bytes=100)
        node.core.on_snapshot_created(node.core.describe_snapshot(12))
        assert node.take().compact_through == 12
        node = busy(snapshot_trailing_entries=50)
        node.core.on_snapshot_created(node.core.describe_snapshot(12))
        assert node.take().compact_through is None

    def test_an_older_one_is_ignored_a_foreign_one_is_refused(self, busy):
        """Only the newest counts, and only of this node's own, applied log."""
        node = busy()
        older, newer = node.core.describe_snapshot(5), node.core.describe_snapshot(9)
        node.core.on_snapshot_created(newer)
        node.core.on_snapshot_created(older)
        assert node.core.snapshot == newer
        with pytest.raises(InvariantViolation, match="not of this node's state"):
            node.core.on_snapshot_created(dataclasses.replace(newer, index=11, term=9))

    def test_a_restart_goes_on_from_it(self, busy, harness):
        """Applied up to the snapshot, timestamps not before it, configuration from it."""
        node = busy(snapshot_trailing_entries=0)
        meta = node.core.describe_snapshot(12)
        loaded = LoadedState((2, 1), meta, ())
        again = harness(loaded=loaded)
        assert (again.core.applied_index, again.core.commit_index) == (12, 12)
        assert again.core.membership == meta.membership
        again.take()
        again.flush()
        assert again.core.frames(13, 13)[0].timestamp_ms == 109
        assert again.flush().apply == (13, 13)


def test_a_leader_overtaken_by_a_snapshot_loses_only_results(harness, membership, frame):
    """Its committed proposals are in the snapshot; what they returned is not known here."""
    node = harness()
    node.lead()
    node.flush()
    node.hear(2, 2, AppendAck(1, 2))
    node.core.propose([b"a"], wall_ms=0, token=1)
    node.take()
    node.flush()
    node.hear(2, 2, AppendAck(1, 3))
    meta = SnapshotMeta(9, 3, 0, membership(3))
    node.hear(3, 3, InstallSnapshot(1, meta))
    node.flush()
    node.core.on_snapshot_installed(meta)
    ((token, outcome),) = node.take().finished
    assert (token, type(outcome)) == (1, Unknown)
    assert node.core.applied_index == 9


def test_statistics_name_what_is_bounded(harness):
    """Sizes of the log and of the open proposals stand beside the counters."""
    node = harness(1)
    node.take()
    node.flush()
    node.core.propose([b"a"], wall_ms=0, token=1)
    statistics = node.core.statistics()
    assert (statistics["log_entries"], statistics["open_proposals"]) == (3, 1)
    assert statistics["elections_won"] == 1
    node.take()
    node.core.on_applied(node.flush().apply[1])
    out = node.take()
    assert out.apply is None
    assert out.finished == [(1, Applied(3, 3))]
