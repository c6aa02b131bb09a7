"""Handing the office over: who is asked, when, what is refused meanwhile, and how it ends."""

import pytest

from conveyor_raft.core.messages import (
    AppendAck,
    AppendEntries,
    Heartbeat,
    HeartbeatReply,
    RequestVote,
    TermNotice,
    TimeoutNow,
)
from conveyor_raft.core.types import (
    LogId,
    NotTransferred,
    RaftRole,
    Refused,
    RefusedReason,
    Transferred,
)


@pytest.fixture
def leader(harness):
    """Leads term 2 of three; follower 2 has everything, follower 3 nothing yet."""
    node = harness(check_quorum=True)
    node.lead()
    node.flush()
    node.hear(2, 2, AppendAck(1, 2))
    node.core.on_applied(1)
    node.take()
    node.core.on_applied(2)
    node.bodies()
    return node


def asked(node):
    return [m.to for m in node.sent if isinstance(m.body, TimeoutNow)]


def test_an_up_to_date_target_is_asked_at_once(leader):
    """And is the one that is chosen when none is named."""
    assert leader.core.transfer(token=7) == 2
    leader.take()
    assert asked(leader) == [2]
    assert leader.core.transfer_target == 2


def test_a_lagging_target_is_brought_up_first(leader):
    """It is asked when it has stored everything, and only then."""
    assert leader.core.transfer(3, token=7) == 3
    leader.take()
    leader.hear(3, 2, AppendAck(2, 1))
    assert asked(leader) == []
    leader.hear(3, 2, AppendAck(2, 2))
    assert asked(leader) == [3]


def test_proposals_and_reads_are_refused_with_the_target_as_hint(leader):
    """From the beginning; nothing is appended that the target could lack."""
    leader.core.transfer(3, token=7)
    last = leader.core.last_id
    for refused in (
        leader.core.propose([b"a"], wall_ms=0, token=1),
        leader.core.read(token=2),
        leader.core.read(token=3, lease=True),
        leader.core.transfer(2, token=4),
    ):
        assert refused == Refused(RefusedReason.TRANSFERRING, 3, 2)
    assert leader.core.last_id == last


def test_it_is_done_when_the_target_leads(leader):
    """The caller hears of it when this node does."""
    leader.core.transfer(token=7)
    leader.take()
    leader.hear(2, 3, RequestVote(LogId(2, 2), forced=True))
    assert leader.core.role is RaftRole.FOLLOWER
    out = leader.hear(2, 3, Heartbeat(1, 2))
    assert out.transfers == [(7, Transferred(2, 3))]
    assert leader.core.transfer_target is None


def test_another_winner_is_a_failure_that_names_it(leader):
    """The office is gone, but not to whom it should."""
    leader.core.transfer(2, token=7)
    leader.take()
    ((token, outcome),) = leader.hear(3, 3, Heartbeat(1, 0)).transfers
    assert (token, type(outcome)) == (7, NotTransferred)
    assert "node 3 was elected" in outcome.reason


def test_a_dead_target_costs_one_election_timeout(leader):
    """Then the leader takes proposals again, in the same term."""
    leader.core.transfer(3, token=7)
    outs = [leader.take()]
    for _ in range(6):
        leader.hear(2, 2, HeartbeatReply(1, 0))
        outs.append(leader.tick(50))
    ((token, outcome),) = [end for out in outs for end in out.transfers]
    assert (token, type(outcome)) == (7, NotTransferred)
    assert leader.core.role is RaftRole.LEADER
    assert not isinstance(leader.core.propose([b"a"], wall_ms=0, token=1), Refused)


def test_nobody_leading_afterwards_ends_it_too(leader):
    """The target has raised the term and was never heard of again."""
    leader.core.transfer(token=7)
    leader.take()
    leader.hear(2, 3, TermNotice())
    outs = [leader.expire() for _ in range(10)]
    assert [token for out in outs for token, _ in out.transfers] == [7]


def test_a_lost_request_is_repeated(leader):
    """With every heartbeat, until the attempt ends."""
    leader.core.transfer(token=7)
    leader.take()
    leader.tick(50)
    leader.tick(50)
    assert asked(leader) == [2, 2, 2]


def test_a_failed_disk_ends_it(leader):
    """Whoever waits is told."""
    leader.core.transfer(token=7)
    leader.core.on_write_failed(3)
    assert [token for token, _ in leader.take().transfers] == [7]


@pytest.mark.parametrize("target", [1, 9])
def test_the_target_must_be_another_voter(target, leader):
    """Neither oneself nor a stranger."""
    refused = leader.core.transfer(target, token=7)
    assert refused.reason is RefusedReason.NO_TARGET


def test_only_a_leader_hands_over(harness):
    """With the leader as hint, if there is one."""
    node = harness()
    node.hear(2, 1, Heartbeat(1, 0))
    assert node.core.transfer(token=7) == Refused(RefusedReason.NOT_LEADER, 2, 1)
    alone = harness(1)
    alone.take()
    alone.flush()
    assert alone.core.transfer(token=7).reason is RefusedReason.NO_TARGET
    alone.core.on_write_failed(2)
    assert alone.core.transfer(token=7).reason is RefusedReason.FAILED


class TestTarget:
    """What the target makes of the request."""

    def test_it_campaigns_at_once_without_asking(self, harness):
        """No pre-vote; and the others are told that the leader wishes it."""
        node = harness(pre_vote=True, check_quorum=True)
        node.hear(2, 1, Heartbeat(1, 0))
        node.hear(2, 1, TimeoutNow())
        assert (node.core.role, node.core.term) == (RaftRole.CANDIDATE, 2)
        node.bodies()
        node.flush()
        assert node.bodies() == [RequestVote(LogId(1, 1), forced=True)] * 2

    def test_the_exception_holds_for_one_term(self, harness):
        """If it does not win, it asks like everybody else."""
        node = harness(pre_vote=True, check_quorum=True)
        node.hear(2, 1, TimeoutNow())
        node.flush()
        node.bodies()
        while node.core.role is RaftRole.CANDIDATE:
            node.expire()
        assert (node.core.role, node.core.term) == (RaftRole.PRE_CANDIDATE, 2)

    def test_a_stale_request_is_nothing(self, harness):
        """The term of the leader that sent it is over."""
        node = harness(term=5)
        node.hear(2, 4, TimeoutNow())
        assert (node.core.role, node.core.term) == (RaftRole.FOLLOWER, 5)

    def test_nobody_else_may_ask(self, harness):
        """Only the leader that this node follows."""
        node = harness()
        node.hear(2, 1, Heartbeat(1, 0))
        node.hear(3, 1, TimeoutNow())
        assert node.core.role is RaftRole.FOLLOWER

    def test_not_before_its_log_is_durable(self, harness, frame):
        """The leader asks again."""
        node = harness()
        node.hear(2, 1, AppendEntries(1, LogId(1, 1), 0, (frame(2, 1),)))
        node.hear(2, 1, TimeoutNow())
        assert node.core.role is RaftRole.FOLLOWER
        node.flush()
        node.hear(2, 1, TimeoutNow())
        assert node.core.role is RaftRole.CANDIDATE
