"""Lane streams between two ends in this process, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from conveyor_sidecar.core import messages as core
from conveyor_sidecar.core.effects import OpenLink
from conveyor_sidecar.core.events import Event, LaneMessageReceived, LinkDown, LinkUp
from conveyor_sidecar.data_plane import DataPlane
from conveyor_sidecar.routing import ClientPool, RemoteRouter
from conveyor_sidecar.routing.lane_stream import LANES_METHOD

HELLO = core.LaneMessage(hello=core.Hello("a", "boot", []))


@dataclass
class Inbox:
    """Events as they come, with a way to wait for one."""

    events: list[Event] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def post(self, event: Event) -> None:
        self.events.append(event)
        self.news.set()

    async def until(self, kind: type[Event]) -> Event:
        async with asyncio.timeout(10):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        self.events.remove(event)
                        return event
                self.news.clear()
                await self.news.wait()


@dataclass
class Ends:
    """A data plane, and a remote router that reaches it."""

    here: Inbox
    there: Inbox
    router: RemoteRouter
    plane: DataPlane
    port: int

    def open(self, link: str = "one") -> None:
        self.router.open(OpenLink(link, "peer", f"127.0.0.1:{self.port}"))


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Callable[..., Ends]]:
    """``await ends(streams_max=...)`` starts both ends."""
    made: list[tuple[RemoteRouter, ClientPool, DataPlane]] = []

    async def start(accepting: bool = True, streams_max: int = 8) -> Ends:
        here, there = Inbox(), Inbox()
        plane = DataPlane(there.post, "127.0.0.1:0", streams_max=streams_max)
        port = await plane.start()
        if accepting:
            plane.open()
        pool = ClientPool()
        router = RemoteRouter(pool, here.post)
        made.append((router, pool, plane))
        return Ends(here, there, router, plane, port)

    yield start
    for router, pool, plane in made:
        await router.close()
        await pool.close()
        await plane.stop(0)


@pytest.mark.asyncio
async def test_bundles_go_both_ways_on_one_stream(ends) -> None:
    """The side that opens is told when it is up; the other learns of the link by its hello."""
    pair = await ends()
    pair.open()
    await pair.here.until(LinkUp)
    assert pair.router.send("one", HELLO)
    arrived = await pair.there.until(LaneMessageReceived)
    assert arrived.message == HELLO
    answer = core.LaneMessage(credits=[core.LaneCredit(1, 2, 3)], done=[core.Done(1, 4)])
    assert pair.plane.send(arrived.link, answer)
    assert (await pair.here.until(LaneMessageReceived)).message == answer
    assert not pair.router.send("two", HELLO)
    assert not pair.plane.send("two", HELLO)


@pytest.mark.asyncio
async def test_a_link_that_is_let_go_says_what_is_queued_and_then_nothing(ends) -> None:
    """The last words leave; the other side hears that the link is down, this side nothing."""
    pair = await ends()
    pair.open()
    await pair.here.until(LinkUp)
    pair.router.send("one", HELLO)
    pair.router.send("one", core.LaneMessage(ends=[core.End(1, 2, "over")]))
    assert pair.router.close_link("one")
    assert not pair.router.close_link("one")
    await pair.there.until(LaneMessageReceived)
    assert (await pair.there.until(LaneMessageReceived)).message.ends
    await pair.there.until(LinkDown)
    assert not pair.here.events


@pytest.mark.asyncio
async def test_a_peer_that_ends_is_down_and_one_that_is_not_there_is_gone(ends) -> None:
    """Only a refused connection proves that the process has ended."""
    pair = await ends()
    pair.open()
    await pair.here.until(LinkUp)
    pair.router.send("one", HELLO)
    link = (await pair.there.until(LaneMessageReceived)).link
    pair.plane.close_link(link)
    down = await pair.here.until(LinkDown)
    assert (down.link, down.gone) == ("one", False)
    await pair.plane.stop(0)
    pair.open("two")
    down = await pair.here.until(LinkDown)
    assert (down.link, down.gone) == ("two", True)


@pytest.mark.asyncio
async def test_a_sidecar_without_an_engine_accepts_no_lanes_yet(ends) -> None:
    """Before the first registration a peer is told to come again."""
    pair = await ends(accepting=False)
    pair.open()
    down = await pair.here.until(LinkDown)
    assert "not registered yet" in down.reason
    assert not down.gone


@pytest.mark.asyncio
async def test_streams_beyond_the_bound_are_refused(ends) -> None:
    """One stream too many costs itself."""
    pair = await ends(streams_max=1)
    pair.open("one")
    await pair.here.until(LinkUp)
    pair.router.send("one", HELLO)
    await pair.there.until(LaneMessageReceived)
    pair.open("two")
    down = await pair.here.until(LinkDown)
    assert (down.link, "its limit" in down.reason) == ("two", True)
    assert pair.plane.links == 1


@pytest.mark.asyncio
async def test_what_is_no_bundle_ends_the_stream(ends) -> None:
    """A foreign or broken peer is refused with a sentence, and the engine hears of a lost link."""
    pair = await ends()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{pair.port}") as channel:
        call = channel.stream_stream(LANES_METHOD)()
        await call.write(b"\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError, match="LaneMessage") as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "LaneMessage" in (await pair.there.until(LinkDown)).reason
