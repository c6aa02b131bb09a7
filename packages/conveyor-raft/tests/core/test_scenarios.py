"""Scenarios that are better told by a program than by a transcript: many cases, or brute force."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor_raft.core.change import MembershipChange
from conveyor_raft.core.frames import Frame
from conveyor_raft.core.loading import first_state
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import (
    AppendAck,
    AppendConflict,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    SnapshotMeta,
    VoteReply,
)
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.progress import Probe, Progress, Replicate, Snapshot
from conveyor_raft.core.types import (
    ClusterId,
    EntryKind,
    Identity,
    Incarnation,
    LogId,
    LogIndex,
    Member,
    NodeId,
    Proposed,
    RaftRole,
    ReadReady,
    Term,
)
from conveyor_raft.errors import InvariantViolation
from conveyor_raft.testing.simulated_node import SimulatedNode

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ack"), st.integers(0, 25)),
        st.tuples(st.just("conflict"), st.integers(0, 25), st.integers(0, 3), st.integers(0, 25)),
        st.tuples(st.just("send"), st.integers(1, 5)),
        st.tuples(st.just("search"), st.integers(0, 25)),
        st.tuples(st.just("snapshot"), st.integers(0, 20)),
    ),
    max_size=40,
)


@given(STEPS)
def test_what_was_proved_only_grows_and_stays_below_what_comes_next(steps):
    """B39. Against a list of proofs, whatever answers come and in whatever order."""
    last, proofs = 20, [0]
    progress = Progress(1, last + 1)
    for kind, *numbers in steps:
        if kind == "ack" and numbers[0] <= last:
            assert progress.acknowledge(numbers[0]) == (numbers[0] > max(proofs))
            proofs.append(numbers[0])
        elif kind == "conflict":
            before = progress.next
            moved = progress.backtrack(AppendConflict(1, *numbers), None)
            assert not moved or isinstance(progress.state, Probe)
            assert moved or progress.next == before
        elif kind == "send" and isinstance(progress.state, Replicate):
            end = min(last, progress.next + numbers[0] - 1)
            if end >= progress.next:
                progress.next = end + 1
                progress.state.add(end, 10)
        elif kind == "search":
            progress.search(min(numbers[0], last + 1), waiting=False)
        elif kind == "snapshot":
            progress.state = Snapshot(max(numbers[0], progress.match))
        assert progress.match == max(proofs)
        progress.check(last)
        if isinstance(progress.state, Replicate):
            assert all(end > progress.match for end, _ in progress.state.window)


def test_what_is_sent_is_consecutive_across_a_loss_of_office(harness, frame):
    """B48. Entries that were about to leave when the office was lost are looked up again."""
    node = harness(max_inflight_messages=1)
    node.lead()
    node.flush()
    node.hear(2, 2, AppendAck(1, 2))
    for token in range(3):
        node.core.propose([b"%d" % token], wall_ms=0, token=token)
        node.take()
    node.hear(3, 3, AppendEntries(1, LogId(2, 2), 2, (frame(3, 3, "new"),)))
    node.flush()
    node.bodies()
    node.lead()
    node.flush()
    node.hear(2, node.core.term, AppendConflict(1, 3, 0, 3))
    for _ in range(5):
        node.hear(2, node.core.term, HeartbeatReply(1))
    sent = [body for body in node.bodies(2) if isinstance(body, AppendEntries)]
    assert sent
    for body in sent:
        index, term = body.prev
        assert node.core.term_at(index) == term
        for piece in body.frames:
            assert (piece.first_index, piece.term) == (index + 1, node.core.term_at(index + 1))
            index = piece.last_index


def test_entries_that_are_gone_are_an_error_and_not_nothing(harness, membership):
    """B49. A range that cannot be read stops the sender; silence would look like completeness."""
    meta = SnapshotMeta(9, 3, 0, membership(3))
    node = harness()
    node.hear(2, 3, InstallSnapshot(1, meta))
    node.flush()
    with pytest.raises(InvariantViolation, match=r"no entries 5\.\.9"):
        node.core.frames(5, 9)


def test_another_term_at_a_committed_index_stops_the_node(harness, frame, membership):
    """B34, G93. Two committed entries at one index: nothing this node says could be right."""
    node = harness(frames=(frame(2, 1, "a", "b"),))
    node.hear(2, 2, AppendEntries(1, LogId(3, 1), 3, ()))
    assert node.core.commit_index == 3
    with pytest.raises(InvariantViolation, match="where term 1 is committed"):
        node.hear(2, 2, AppendEntries(1, LogId(3, 2), 3, ()))
    with pytest.raises(InvariantViolation, match="replaces entry 3"):
        node.core._replica.truncate_from(3)


def test_a_stale_snapshot_is_acknowledged_with_the_commit_index(harness, frame, membership):
    """G93. It changes nothing, and the leader learns how far this node is."""
    node = harness(frames=(frame(2, 1, "a", "b"),))
    node.hear(2, 2, AppendEntries(1, LogId(3, 1), 3, ()))
    node.flush()
    node.bodies()
    node.hear(2, 2, InstallSnapshot(1, SnapshotMeta(2, 1, 0, membership(3))))
    assert node.bodies(2) == [AppendAck(1, 3)]
    assert (node.core.snapshot, node.core.last_id.index) == (None, 3)


def test_the_state_waits_for_the_snapshot_to_be_durable(harness, membership):
    """G90. Restored earlier, a crash would leave an older disk below a state that was shown."""
    node = harness()
    meta = SnapshotMeta(9, 3, 0, membership(3))
    assert node.hear(2, 3, InstallSnapshot(1, meta)).install is None
    assert node.tick(10).install is None
    assert node.flush().install == meta


def test_a_snapshot_brings_its_configuration(harness, membership):
    """G101, E73. Of the log that it replaces, no configuration is left, not even a newer one."""
    node = harness(5)
    assert len(node.core.membership.voters) == 5
    meta = SnapshotMeta(9, 3, 777, membership(3))
    node.hear(2, 3, InstallSnapshot(1, meta))
    assert node.core.membership == meta.membership
    node.flush()
    node.core.on_snapshot_installed(meta)
    assert node.core.describe_snapshot(9) == meta
    assert node.core.membership == meta.membership


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(2, 5))
def test_nodes_that_start_together_elect_within_bounded_time(seed, nodes):
    """A25. Equal clocks, no faults: patience is drawn anew, so ties end."""
    world = _Cluster(nodes, seed)
    for now in range(0, 30 * 300, 5):
        world.tick(now)
        if any(node.core.role is RaftRole.LEADER for node in world.nodes.values()):
            return
    raise AssertionError("nobody was elected in 30 election timeouts")


class _Cluster:
    """Cores in lockstep: every message arrives at the next tick, every write is done at once."""

    def __init__(self, nodes, seed):
        ids = [NodeId(node) for node in range(1, nodes + 1)]
        members = Membership(tuple(Member(node, f"node-{node}:1") for node in ids))
        chance = random.Random(seed)
        self.nodes = {
            node: SimulatedNode(
                Identity(ClusterId(b"test"), node, Incarnation(b"")),
                CoreOptions(),
                chance,
                first_state(members),
            )
            for node in ids
        }
        self.wire = []

    def tick(self, now):
        arriving, self.wire = self.wire, []
        for message in arriving:
            self.nodes[message.to].core.step(message)
        for node in self.nodes.values():
            node.core.tick(now)
            self.wire += node.take().messages
            while node.disk.pending:
                self.wire += node.complete_write()
                self.wire += node.take().messages


@pytest.mark.parametrize("commit", [0, 3, 8])
def test_the_commit_index_does_not_go_back(harness, frame, commit):
    """C56. A leader that knows less, or an old heartbeat, takes nothing back."""
    node = harness(frames=(frame(2, 1, *"abcdefg"),))
    node.hear(2, 2, AppendEntries(1, LogId(8, 1), 5, ()))
    node.hear(2, 2, Heartbeat(1, min(commit, 5)))
    node.hear(3, 3, AppendEntries(1, LogId(8, 1), commit, ()))
    assert node.core.commit_index == max(5, commit)


def test_a_candidate_counts_the_voters_of_its_newest_configuration(harness, membership):
    """A27. It stands in the log and is not known to be committed; it counts all the same."""
    newer = Frame.build(LogIndex(2), Term(1), 0, EntryKind.CONFIG, [membership(5).encode()])
    node = harness(3, frames=(newer,))
    node.expire()
    node.flush()
    assert {message.to for message in node.sent} == {2, 3, 4, 5}
    node.hear(2, 2, VoteReply(granted=True))
    assert node.core.role is RaftRole.CANDIDATE
    node.hear(5, 2, VoteReply(granted=True))
    assert node.core.role is RaftRole.LEADER


def test_addresses_change_without_anybody_leaving(harness):
    """E80. Of one node, then of all at once; no joint configuration, the same voters."""
    node = harness(3)
    node.lead()
    node.flush()
    node.hear(2, 2, AppendAck(1, 2))
    moved = [Member(NodeId(own), f"elsewhere-{own}:1") for own in (1, 2, 3)]
    for last, update in ((3, moved[1:2]), (4, moved)):
        change = MembershipChange(update=tuple(update))
        assert isinstance(node.core.change_membership(change, token=last), Proposed)
        node.take()
        node.flush()
        node.hear(2, 2, AppendAck(1, last))
        members = node.core.membership
        assert members.voters == (1, 2, 3)
        assert not members.joint
        for member in update:
            assert members.get(member.node_id).raft_address == member.raft_address
    assert {message.to for message in node.sent} == {2, 3}


def test_reads_pass_when_the_quorum_shrinks(harness):
    """D64. Two of four have confirmed the round; of the three that are left, they are enough."""
    node = harness(4)
    node.lead()
    node.flush()
    for peer in (2, 3):
        node.hear(peer, 2, AppendAck(peer - 1, 2))
    node.flush()
    node.sent.clear()
    assert node.core.read(token=7) is None
    node.take()
    beat = max(body.beat for body in node.bodies(2) if isinstance(body, Heartbeat))
    assert node.hear(2, 2, HeartbeatReply(1, beat)).reads == []
    node.core.change_membership(MembershipChange(remove=(NodeId(4),)), token=8)
    node.take()
    node.core.on_applied(max(out.apply[1] for out in node.outputs if out.apply is not None))
    node.take()
    ((token, ready),) = [read for out in node.outputs for read in out.reads]
    assert (token, type(ready)) == (7, ReadReady)
