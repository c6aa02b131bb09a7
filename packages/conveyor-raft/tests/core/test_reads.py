"""Reads: one shared round, an entry of the own term first, nothing used twice; and leases."""

import pytest

from conveyor_raft.core.messages import (
    AppendAck,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    ReadReply,
    ReadRequest,
    RequestVote,
    TermNotice,
    VoteReply,
)
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.types import LogId, RaftRole, ReadFailed, ReadReady, RefusedReason

LEASE = {"pre_vote": True, "check_quorum": True, "lease_reads": True}


@pytest.fixture
def young(harness):
    """Leads term 2 of three; nothing of its term is committed."""
    node = harness()
    node.lead()
    node.flush()
    node.bodies()
    return node


@pytest.fixture
def leader(young):
    """Its first entry is committed and applied."""
    young.hear(2, 2, AppendAck(1, 2))
    young.core.on_applied(1)
    young.take()
    young.core.on_applied(2)
    young.take()
    young.bodies()
    return young


@pytest.fixture
def follower(harness):
    """Node 1 follows node 2 in term 1."""
    node = harness()
    node.hear(2, 1, Heartbeat(1, 0))
    node.bodies()
    return node


class TestRounds:
    """The leader proves that it leads."""

    def test_a_round_of_heartbeats_confirms(self, leader):
        """One answer of three, with the leader's own, is a majority."""
        assert leader.core.read(token=5) is None
        assert leader.take().reads == []
        assert leader.bodies() == [Heartbeat(1, 2, 1), Heartbeat(2, 0, 1)]
        assert leader.hear(2, 2, HeartbeatReply(1, 1)).reads == [(5, ReadReady(2))]

    def test_an_older_answer_confirms_nothing(self, leader):
        """It was given before the read was asked."""
        leader.expire()
        leader.core.read(token=5)
        leader.take()
        assert leader.hear(2, 2, HeartbeatReply(1, 1)).reads == []
        assert leader.hear(2, 2, HeartbeatReply(9, 2)).reads == []
        assert leader.hear(2, 2, HeartbeatReply(1, 7)).reads == []
        assert leader.hear(2, 2, HeartbeatReply(1, 2)).reads == [(5, ReadReady(2))]

    def test_a_later_round_confirms_as_well(self, leader):
        """The first one was lost; the next heartbeat does."""
        leader.core.read(token=5)
        leader.take()
        leader.expire()
        assert leader.hear(3, 2, HeartbeatReply(2, 2)).reads == [(5, ReadReady(2))]

    def test_reads_that_come_meanwhile_share_the_next(self, leader):
        """Two rounds for a hundred reads."""
        leader.core.read(token=0)
        leader.take()
        for token in range(1, 100):
            leader.core.read(token=token)
            leader.take()
        assert len(leader.bodies(2)) == 1
        out = leader.hear(2, 2, HeartbeatReply(1, 1))
        assert [token for token, _ in out.reads] == [0]
        out = leader.hear(2, 2, HeartbeatReply(1, 2))
        assert [token for token, _ in out.reads] == list(range(1, 100))

    def test_not_before_an_entry_of_the_own_term(self, young):
        """Until then a new leader may not know what is committed."""
        young.core.read(token=5)
        young.take()
        assert young.bodies() == []
        young.hear(2, 2, AppendAck(1, 2))
        young.core.on_applied(1)
        assert young.hear(2, 2, HeartbeatReply(1, 1)).reads == []
        young.core.on_applied(2)
        assert young.take().reads == [(5, ReadReady(2))]

    def test_it_waits_for_the_state_machine(self, leader):
        """Committed is not applied."""
        leader.core.propose([b"a"], wall_ms=0, token=1)
        leader.take()
        leader.flush()
        leader.hear(2, 2, AppendAck(1, 3))
        leader.core.read(token=5)
        leader.take()
        assert leader.hear(2, 2, HeartbeatReply(1, 1)).reads == []
        leader.core.on_applied(3)
        assert leader.take().reads == [(5, ReadReady(3))]

    def test_the_loss_of_office_fails_what_is_not_confirmed(self, leader):
        """Waiting for a round, or in one; what is confirmed needs no leader any more."""
        leader.core.propose([b"a"], wall_ms=0, token=1)
        leader.take()
        leader.flush()
        leader.hear(2, 2, AppendAck(1, 3))
        leader.core.read(token=4)
        leader.take()
        leader.hear(2, 2, HeartbeatReply(1, 1))
        leader.core.read(token=5)
        leader.take()
        leader.core.read(token=6)
        out = leader.hear(3, 9, TermNotice())
        assert [(token, type(end)) for token, end in out.reads] == [
            (5, ReadFailed),
            (6, ReadFailed),
        ]
        leader.core.on_applied(3)
        assert leader.take().reads == [(4, ReadReady(3))]

    def test_a_sole_voter_needs_nobody(self, harness):
        """It is its own majority."""
        node = harness(1)
        node.take()
        node.flush()
        node.core.on_applied(node.flush().apply[1])
        node.core.read(token=5)
        assert node.take().reads == [(5, ReadReady(2))]

    def test_a_failed_disk_ends_all(self, leader):
        """Nobody is left to wait."""
        leader.core.read(token=5)
        leader.take()
        leader.core.on_write_failed(3)
        assert [token for token, _ in leader.take().reads] == [5]
        assert leader.core.read(token=6).reason is RefusedReason.FAILED

    def test_how_many_may_wait(self, harness):
        """`max_pending_reads`."""
        node = harness(max_pending_reads=2)
        node.hear(2, 1, Heartbeat(1, 0))
        assert [node.core.read(token=token) for token in (1, 2)] == [None, None]
        assert node.core.read(token=3).reason is RefusedReason.BUSY
        assert node.core.statistics()["open_reads"] == 2


class TestFollowers:
    """A follower has its leader confirm, and waits by itself."""

    def test_one_batch_at_a_time(self, follower):
        """What comes meanwhile is the next batch."""
        for token in (1, 2):
            follower.core.read(token=token)
        follower.take()
        follower.core.read(token=3)
        follower.take()
        (request,) = follower.bodies()
        out = follower.hear(2, 1, ReadReply(request.batch, 0))
        assert out.reads == [(1, ReadReady(0)), (2, ReadReady(0))]
        (second,) = follower.bodies()
        assert second.batch != request.batch
        assert follower.hear(2, 1, ReadReply(request.batch, 0)).reads == []
        assert follower.hear(2, 1, ReadReply(second.batch, 0)).reads == [(3, ReadReady(0))]

    def test_the_leader_answers_when_it_is_confirmed(self, leader):
        """Its own reads and the batches of others share the round; the newest of a peer counts."""
        leader.hear(3, 2, ReadRequest(40))
        leader.hear(3, 2, ReadRequest(41))
        leader.bodies()
        leader.hear(2, 2, HeartbeatReply(1, 1))
        assert ReadReply(40, 2) in leader.bodies(3)
        leader.hear(2, 2, HeartbeatReply(1, 2))
        assert ReadReply(41, 2) in leader.bodies(3)
        leader.hear(9, 2, ReadRequest(1))
        assert leader.core.statistics()["stale"] >= 1

    def test_a_lost_question_is_repeated(self, follower):
        """At the leader's heartbeats, with the same number."""
        follower.core.read(token=1)
        follower.take()
        follower.bodies()
        follower.tick(50)
        follower.hear(2, 1, Heartbeat(1, 0))
        assert ReadRequest in [type(body) for body in follower.bodies()]
        follower.tick(20)
        follower.hear(2, 1, Heartbeat(1, 0))
        assert ReadRequest not in [type(body) for body in follower.bodies()]

    def test_another_leader_is_asked_anew(self, follower):
        """With a new number: the answer of the old one counts no more."""
        follower.core.read(token=1)
        follower.take()
        (first,) = follower.bodies()
        follower.hear(3, 2, Heartbeat(1, 0))
        follower.flush()
        (second,) = [body for body in follower.bodies(3) if isinstance(body, ReadRequest)]
        assert second.batch != first.batch
        assert follower.hear(3, 2, ReadReply(first.batch, 0)).reads == []
        assert follower.hear(3, 2, ReadReply(second.batch, 0)).reads == [(1, ReadReady(0))]

    def test_another_life_is_not_answered(self, harness):
        """Batches begin at random, so a late answer to the life before is none to this one."""
        numbers = set()
        for seed in range(2):
            node = harness(seed=seed)
            node.hear(2, 1, Heartbeat(1, 0))
            node.core.read(token=1)
            node.take()
            numbers |= {body.batch for body in node.bodies() if isinstance(body, ReadRequest)}
        assert len(numbers) == 2

    def test_silence_of_the_leader_fails_them(self, follower):
        """As soon as this node loses patience."""
        follower.core.read(token=1)
        follower.take()
        out = follower.expire()
        assert [(token, type(end)) for token, end in out.reads] == [(1, ReadFailed)]

    def test_without_a_leader_they_are_refused(self, harness):
        """There is nobody to ask."""
        assert harness().core.read(token=1).reason is RefusedReason.NOT_LEADER


class TestLease:
    """Reads without messages, as long as nobody else can have been elected."""

    @pytest.fixture
    def holder(self, harness):
        """Leads term 2 of three with lease reads; its first entry is applied."""
        node = harness(**LEASE)
        node.expire()
        asked = node.bodies()[0]
        node.hear(2, 1, PreVoteReply(True, 2, asked.round))
        node.flush()
        node.hear(2, 2, VoteReply(True))
        node.flush()
        node.hear(2, 2, AppendAck(1, 2))
        for index in (1, 2):
            node.core.on_applied(index)
            node.take()
        return node

    def beat(self, node):
        """Send a heartbeat; return its number."""
        node.bodies()
        node.expire()
        return next(body.beat for body in node.bodies() if isinstance(body, Heartbeat))

    def test_it_runs_from_when_the_heartbeat_left(self, holder):
        """Not from when the answer came, and shorter than the loyalty by the drift."""
        beat = self.beat(holder)
        left_ms = holder.now_ms
        assert holder.core.read(token=1, lease=True).reason is RefusedReason.NO_LEASE
        holder.tick(40)
        holder.hear(2, 2, HeartbeatReply(1, beat))
        assert holder.core.read(token=2, lease=True) is None
        assert holder.take().reads == [(2, ReadReady(2))]
        assert holder.core.has_lease(left_ms + 147)
        assert not holder.core.has_lease(left_ms + 148)

    def test_after_a_pause_there_is_none(self, holder):
        """The first thing that a process does after it stood still is to look at the clock."""
        holder.hear(2, 2, HeartbeatReply(1, self.beat(holder)))
        holder.core.tick(holder.now_ms + 10_000)
        assert holder.core.read(token=1, lease=True).reason is RefusedReason.NO_LEASE

    def test_a_transfer_drops_it_first(self, holder):
        """And for the rest of the term once the target was asked: the request may come late."""
        holder.hear(2, 2, HeartbeatReply(1, self.beat(holder)))
        assert holder.core.has_lease(holder.now_ms)
        holder.core.transfer(2, token=7)
        assert not holder.core.has_lease(holder.now_ms)
        holder.take()
        for _ in range(8):
            holder.hear(2, 2, HeartbeatReply(1, self.beat(holder)))
        assert holder.core.transfer_target is None
        assert holder.core.role is RaftRole.LEADER
        assert not holder.core.has_lease(holder.now_ms)

    def test_an_attempt_that_asked_nobody_leaves_the_next_lease(self, holder):
        """Target 3 never had the log; the lease comes back with a later heartbeat."""
        beat = self.beat(holder)
        holder.core.transfer(3, token=7)
        holder.hear(2, 2, HeartbeatReply(1, beat))
        for _ in range(8):
            holder.hear(2, 2, HeartbeatReply(1, self.beat(holder)))
        assert holder.core.has_lease(holder.now_ms)

    def test_a_new_leader_has_none_before_its_own_entry(self, harness):
        """It may not know what is committed."""
        node = harness(1, **LEASE)
        node.take()
        node.flush()
        assert node.core.role is RaftRole.LEADER
        assert not node.core.has_lease(node.now_ms)
        node.core.on_applied(node.flush().apply[1])
        node.expire()
        assert node.core.has_lease(node.now_ms)

    def test_a_restarted_node_is_loyal_to_whom_it_does_not_remember(self, harness):
        """It may have answered a heartbeat just before."""
        node = harness(**LEASE)
        node.tick(149)
        node.hear(2, 1, PreVote(LogId(1, 1), 2, 1))
        node.hear(2, 2, RequestVote(LogId(1, 1)))
        assert node.bodies() == [PreVoteReply(False, 2, 1)]
        assert node.core.term == 1

    def test_only_a_leader_has_one(self, harness):
        """Others are told who leads."""
        node = harness(**LEASE)
        node.hear(2, 1, Heartbeat(1, 0))
        refused = node.core.read(token=1, lease=True)
        assert (refused.reason, refused.leader_id) == (RefusedReason.NOT_LEADER, 2)

    @pytest.mark.parametrize("missing", ["pre_vote", "check_quorum"])
    def test_it_needs_what_makes_it_safe(self, missing):
        """Otherwise the lease is a guess."""
        with pytest.raises(ValueError, match="lease_reads needs"):
            CoreOptions(lease_reads=True, **{missing: False})
        with pytest.raises(ValueError, match="lease_drift_ppm"):
            CoreOptions(lease_drift_ppm=1_000_000)
