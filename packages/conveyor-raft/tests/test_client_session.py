"""Sessions from the client's side: against a fake node that fails on purpose, and real clusters."""

from __future__ import annotations

import asyncio

import pytest

from conveyor_raft import (
    Busy,
    ClientSession,
    CommandRejected,
    Entry,
    KeyValueCommand,
    KeyValueResult,
    KeyValueStateMachine,
    NotLeader,
    PayloadTooLarge,
    RaftConfig,
    RaftNode,
    SessionExpired,
    SessionToken,
    UnknownInSession,
    UnknownOutcome,
)
from conveyor_raft.machines.sessions import UNANSWERED_MAX, InSession, SessionLayer
from conveyor_raft.testing import memory_cluster, wait_for_leader
from conveyor_raft.transport.memory import MemoryNetwork

PUT = KeyValueCommand.put("a", b"1")
CAS = KeyValueCommand.compare_and_set("a", None, b"1")


class Answers:
    """A node that answers what it is told; the requests that it got are in `requests`."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests: list[InSession] = []

    async def propose(self, request, timeout):
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def session(self, timeout=5.0):
        return ClientSession(self.propose, SessionToken(7, 1, 0), timeout)


@pytest.mark.asyncio
async def test_an_unknown_outcome_is_tried_again_under_the_same_number():
    """And so is what was refused by a node that may accept it soon."""
    node = Answers(UnknownOutcome("lost"), NotLeader(), Busy("later"), "done")
    assert await node.session().propose("x") == "done"
    assert node.requests == [InSession(7, 1, 0, "x")] * 4


@pytest.mark.asyncio
async def test_what_was_answered_is_acknowledged_with_the_next_command():
    """In whatever order the answers come; a refusal is an answer."""
    node = Answers("first", CommandRejected("no", "no"), "third")
    session = node.session()
    await session.propose("x")
    with pytest.raises(CommandRejected):
        await session.propose("y")
    await session.propose("z")
    assert [one.answered_through for one in node.requests] == [0, 1, 2]
    assert session.detach() == SessionToken(7, 4, 3)
    assert session.detached


@pytest.mark.asyncio
async def test_without_an_answer_in_time_the_number_is_told():
    """It may be proposed again under that number, which is not acknowledged meanwhile."""
    node = Answers(UnknownOutcome("lost"))
    session = node.session(timeout=0.01)
    with pytest.raises(UnknownInSession, match=r"lost.*number 1") as unknown:
        await session.propose("x")
    assert unknown.value.retry_safe
    node.answers = ["done"]
    await session.propose("y")
    assert await session.propose("x", number=unknown.value.number) == "done"
    assert [(one.number, one.answered_through) for one in node.requests[-2:]] == [(2, 0), (1, 0)]
    assert session.detach() == SessionToken(7, 3, 2)


@pytest.mark.asyncio
async def test_a_later_refusal_does_not_hide_an_unknown_outcome():
    """The first attempt may have taken effect, whatever the second one was told."""
    node = Answers(UnknownOutcome("lost"), NotLeader(2, "b:1", "b:2", 5))
    with pytest.raises(UnknownInSession, match=r"lost.*node 2 at b:2"):
        await node.session().propose("x")


@pytest.mark.asyncio
@pytest.mark.parametrize("refusal", [NotLeader(2, "b:1", "b:2", 5), PayloadTooLarge(9, 8)])
async def test_a_sure_refusal_is_raised_at_once_and_leaves_no_gap(refusal):
    """Its number will not be used again, so it does not hold back the acknowledgements."""
    node = Answers(refusal, "done")
    session = node.session()
    with pytest.raises(type(refusal)):
        await session.propose("x")
    await session.propose("y")
    assert node.requests[-1].answered_through == 1


@pytest.mark.asyncio
async def test_a_refusal_that_stays_is_raised_in_the_end():
    """A node without a leader for longer than the time-out; nothing was unknown."""
    node = Answers(NotLeader())
    with pytest.raises(NotLeader):
        await node.session(timeout=0.05).propose("x")


@pytest.mark.asyncio
async def test_an_expired_session_is_said_and_not_tried_again():
    """One request, one error."""
    node = Answers(UnknownOutcome("lost"), SessionExpired(7))
    with pytest.raises(SessionExpired):
        await node.session().propose("x")
    assert len(node.requests) == 2


@pytest.mark.asyncio
async def test_a_full_session_acknowledges_nothing():
    """The command was not applied; its number stays open."""
    node = Answers(CommandRejected("session_full", "full"))
    session = node.session()
    with pytest.raises(CommandRejected, match="full"):
        await session.propose("x")
    assert session.detach() == SessionToken(7, 2, 0)


@pytest.mark.asyncio
async def test_the_number_of_unanswered_commands_is_bounded():
    """Giving one up makes room."""
    session = Answers("done").session()
    for _ in range(UNANSWERED_MAX):
        session.number()
    with pytest.raises(Busy, match="have no answer"):
        session.number()
    session.give_up(1)
    assert session.number() == UNANSWERED_MAX + 1


@pytest.mark.asyncio
async def test_a_session_on_a_node_opens_applies_once_and_closes():
    """The whole way, with a cluster of one."""
    async with RaftNode(RaftConfig(node_id=1), KeyValueStateMachine()) as node:
        async with node.session(ttl=5) as session:
            assert session.session_id == 3  # the index of its entry
            number = session.number()
            first = await session.propose(CAS, number=number)
            assert first == KeyValueResult(True, None)
            await session.keep_alive()
        with pytest.raises(SessionExpired, match="session 3"):
            await session.propose(CAS)


@pytest.mark.asyncio
async def test_a_command_is_asked_for_again_on_the_next_leader():
    """The first leader is cut off after the command was replicated; the second one has its result.

    Proposed again under its number, the compare-and-set still says that it changed the key.
    """
    network = MemoryNetwork()
    async with memory_cluster(3, KeyValueStateMachine, network=network) as nodes:
        first = await wait_for_leader(nodes)
        async with first.session() as session:
            number = session.number()
            assert (await session.propose(CAS, number=number)).changed
            # As if the answer had been lost: the number is asked for again, elsewhere.
            token = SessionToken(session.session_id, number + 1, 0)
            session.detach()
        network.cut_off(f"memory:{first.node_id}")
        others = [node for node in nodes if node is not first]
        second = await wait_for_leader(others)
        async with second.session(resume=token) as resumed:
            assert await resumed.propose(CAS, number=number) == KeyValueResult(True, None)
            assert not (await resumed.propose(CAS)).changed
        with pytest.raises(SessionExpired):
            await resumed.propose(CAS, number=number)


@pytest.mark.asyncio
async def test_sessions_survive_a_restart_from_a_snapshot(tmp_path):
    """The table of sessions is in it."""
    config = RaftConfig(
        node_id=1, data_dir=tmp_path, snapshot_interval_entries=5, snapshot_trailing_entries=0
    )
    async with RaftNode(config, KeyValueStateMachine()) as node:
        async with node.session() as session:
            number = session.number()
            await session.propose(CAS, number=number)
            token = session.detach()._replace(answered_through=0)
        for value in range(20):
            await node.propose(KeyValueCommand.put("b", bytes([value])))
        async with asyncio.timeout(10):
            while node.status().snapshot_index < 10:
                await asyncio.sleep(0.01)
    async with RaftNode(config, KeyValueStateMachine()) as node:
        async with node.session(resume=token) as session:
            assert (await session.propose(CAS, number=number)).changed
        assert (await node.state())["a"] == b"1"


def test_a_layer_shows_the_state_of_the_machine():
    """Whoever reads sees what the user's machine holds."""
    layer = SessionLayer(KeyValueStateMachine())
    layer.apply(Entry(1, 1, 1, PUT))
    assert layer.state == {"a": b"1"}
