"""A channel finds the leader, and repeats only what cannot harm."""

import asyncio
import socket
import time
from typing import Any

import grpc
import pytest

from conveyor_grpc import errors
from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.admin_pb2_grpc import RouterAdminStub

REQUEST = wire.GetRequest(kind="Pipeline", name="flights")


def get(channel: Any) -> Any:
    return RouterAdminStub(channel).Get


def watch(channel: Any) -> Any:
    return RouterAdminStub(channel).WatchEvents


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def answering(value: Any) -> Any:
    async def answer(context: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return answer


@pytest.mark.asyncio
async def test_a_redirection_is_followed_and_remembered(serve: Any, found: Any) -> None:
    """The second call goes to the leader at once."""
    leader, at_leader = await serve(answering(found))
    hint = errors.NotLeaderError("not me", leader_id=2, leader_address=leader.address)
    follower, at_follower = await serve(answering(hint))
    async with LeaderChannel([follower.address]) as channel:
        assert await channel.call(get, REQUEST) == found
        assert await channel.call(get, REQUEST) == found
        assert channel.leader == leader.address
    assert (at_follower.calls, at_leader.calls) == (1, 2)


@pytest.mark.asyncio
async def test_redirections_in_a_circle_end(serve: Any) -> None:
    """Two routers that name each other do not keep a caller beyond the deadline."""
    hints = [errors.NotLeaderError("not me"), errors.NotLeaderError("nor me")]
    first, at_first = await serve(answering(hints[0]))
    second, at_second = await serve(answering(hints[1]))
    hints[0].leader_address, hints[1].leader_address = second.address, first.address
    async with LeaderChannel([first.address]) as channel:
        with pytest.raises(errors.NotLeaderError):
            await channel.call(get, REQUEST, timeout_s=0.3)
    assert at_first.calls + at_second.calls < 40


@pytest.mark.asyncio
async def test_an_election_is_waited_for(serve: Any, found: Any) -> None:
    """While nobody leads, the call is repeated with pauses until somebody does."""
    answers = iter([errors.NotLeaderError("nobody leads")] * 3)

    async def answer(context: Any) -> Any:
        for error in answers:
            raise error
        return found

    server, servicer = await serve(answer)
    async with LeaderChannel([server.address]) as channel:
        assert await channel.call(get, REQUEST) == found
    assert servicer.calls == 4


@pytest.mark.asyncio
async def test_a_dead_endpoint_is_skipped(serve: Any, found: Any) -> None:
    """One living router of the list is enough."""
    server, _ = await serve(answering(found))
    async with LeaderChannel([free_address(), free_address(), server.address]) as channel:
        assert await channel.call(get, REQUEST) == found


@pytest.mark.asyncio
async def test_what_speaks_grpc_and_is_no_router_is_skipped(serve: Any, found: Any) -> None:
    """A wrong address in the list, such as a router's Raft port, does no harm and is named."""
    stranger = grpc.aio.server()
    address = f"127.0.0.1:{stranger.add_insecure_port('127.0.0.1:0')}"
    await stranger.start()
    server, _ = await serve(answering(found))
    async with LeaderChannel([address, server.address]) as channel:
        assert await channel.call(get, REQUEST) == found
    async with LeaderChannel([address]) as channel:
        with pytest.raises(errors.UnreachableError, match="is no Conveyor router"):
            await channel.call(get, REQUEST, timeout_s=0.3)
    await stranger.stop(None)


@pytest.mark.asyncio
async def test_learned_members_outlive_the_given_one(serve: Any, found: Any) -> None:
    """The only given address may go away once an answer has named the others."""
    other, _ = await serve(answering(found))
    hint = errors.NotLeaderError("not me", member_addresses=[other.address])
    given, _ = await serve(answering(hint))
    async with LeaderChannel([given.address]) as channel:
        assert await channel.call(get, REQUEST) == found
        await given.stop(0)
        assert await channel.call(get, REQUEST) == found
        assert channel.endpoints == (given.address, other.address)


@pytest.mark.asyncio
async def test_nobody_there_is_surely_not_done() -> None:
    """A refused connection names the addresses and may be repeated."""
    address = free_address()
    async with LeaderChannel([address]) as channel:
        with pytest.raises(errors.UnreachableError, match=address) as caught:
            await channel.call(get, REQUEST, timeout_s=0.3)
    assert caught.value.retry_safe


@pytest.mark.asyncio
async def test_an_unknown_outcome_is_repeated_only_if_that_is_harmless(serve: Any) -> None:
    """Whether to repeat is the call's property, not the channel's guess."""
    server, servicer = await serve(answering(errors.UnknownOutcomeError("leader changed")))
    async with LeaderChannel([server.address]) as channel:
        with pytest.raises(errors.UnknownOutcomeError):
            await channel.call(get, REQUEST)
        assert servicer.calls == 1
        with pytest.raises((errors.UnknownOutcomeError, errors.DeadlineError)):
            await channel.call(get, REQUEST, timeout_s=1.0, repeatable=True)
        assert servicer.calls > 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error",
    [errors.InvalidRequestError("bad"), errors.NotFoundError("none"), errors.ConflictError("old")],
    ids=lambda error: error.code,
)
async def test_a_refusal_is_final(serve: Any, error: errors.ControlError) -> None:
    """What would be refused again is not asked again."""
    server, servicer = await serve(answering(error))
    async with LeaderChannel([server.address]) as channel:
        with pytest.raises(type(error)):
            await channel.call(get, REQUEST, repeatable=True)
    assert servicer.calls == 1


@pytest.mark.asyncio
async def test_a_hung_router_costs_half_of_the_time(serve: Any, found: Any) -> None:
    """A repeatable call leaves a router that does not answer for another one."""
    forever = asyncio.Event()

    async def hang(context: Any) -> Any:
        await forever.wait()

    hung, _ = await serve(hang)
    well, _ = await serve(answering(found))
    async with LeaderChannel([hung.address, well.address]) as channel:
        assert await channel.call(get, REQUEST, timeout_s=1.0, repeatable=True) == found


@pytest.mark.asyncio
async def test_each_call_has_a_deadline(serve: Any) -> None:
    """A router that never answers does not keep its caller."""
    forever = asyncio.Event()

    async def hang(context: Any) -> Any:
        await forever.wait()

    server, _ = await serve(hang)
    began = time.monotonic()
    async with LeaderChannel([server.address]) as channel:
        with pytest.raises(errors.DeadlineError) as caught:
            await channel.call(get, REQUEST, timeout_s=0.3)
    assert time.monotonic() - began < 1.5
    assert not caught.value.retry_safe


@pytest.mark.asyncio
async def test_a_busy_router_is_given_the_pause_it_asks_for(serve: Any, found: Any) -> None:
    """The pause comes from the answer."""
    times: list[float] = []

    async def answer(context: Any) -> Any:
        times.append(time.monotonic())
        if len(times) == 1:
            raise errors.BusyError("full", retry_after_s=0.3)
        return found

    server, _ = await serve(answer)
    async with LeaderChannel([server.address]) as channel:
        assert await channel.call(get, REQUEST) == found
    assert times[1] - times[0] >= 0.3


@pytest.mark.asyncio
async def test_any_router_answers_for_itself(serve: Any, found: Any) -> None:
    """`call_any` asks one router and follows nobody."""
    first, at_first = await serve(answering(found))
    second, at_second = await serve(answering(found))
    async with LeaderChannel([free_address(), first.address, second.address]) as channel:
        assert await channel.call_any(get, REQUEST) == found
        assert await channel.call_any(get, REQUEST, endpoint=second.address) == found
    assert (at_first.calls, at_second.calls) == (1, 1)


@pytest.mark.asyncio
async def test_a_silent_stream_is_dead(serve: Any) -> None:
    """A stream that says nothing for its time raises instead of waiting for ever."""
    forever = asyncio.Event()

    async def quiet(context: Any) -> Any:
        yield wire.Event(revision=1)
        await forever.wait()

    server, _ = await serve(quiet)
    seen = []
    async with LeaderChannel([server.address]) as channel:
        with pytest.raises(errors.DeadlineError, match="silent"):
            async for event in channel.stream_any(watch, wire.WatchEventsRequest(), silence_s=0.2):
                seen.append(event.revision)
    assert seen == [1]


@pytest.mark.asyncio
async def test_a_stream_ends_with_the_error_of_the_table(serve: Any) -> None:
    """Streams carry the same details as unary calls."""

    async def breaking(context: Any) -> Any:
        yield wire.Event(revision=1)
        raise errors.FellBehindError("too slow")

    server, _ = await serve(breaking)
    async with LeaderChannel([server.address]) as channel:
        with pytest.raises(errors.FellBehindError, match="too slow"):
            async for _ in channel.stream_any(watch, wire.WatchEventsRequest(), silence_s=2):
                pass


def test_no_endpoint_is_refused() -> None:
    """A channel to nowhere is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one"):
        LeaderChannel([])
