"""The pump: one event at a time, effects in their order, one timer, and a fatal end."""

from __future__ import annotations

import asyncio
import typing
from unittest.mock import MagicMock

import pytest

from conveyor_sidecar.core import effects, events
from conveyor_sidecar.core.messages import LaneMessage
from conveyor_sidecar.performers import performers
from conveyor_sidecar.pump import Pump


class Engine:
    """Answers each event with what it was told to answer."""

    def __init__(self) -> None:
        self.next_deadline: int | None = None
        self.handled: list[events.Event] = []
        self.answers: list[list[effects.Effect]] = []
        self.ticked = asyncio.Event()

    def handle(self, event: events.Event, now_ms: int) -> list[effects.Effect]:
        self.handled.append(event)
        if isinstance(event, events.Tick):
            assert self.next_deadline is not None
            assert now_ms >= self.next_deadline
            self.next_deadline = None
            self.ticked.set()
        return self.answers.pop(0) if self.answers else []


class Links:
    def __init__(self, *names: str) -> None:
        self.names = names
        self.log: list[str] = []

    def send(self, link: str, message: LaneMessage) -> bool:
        self.log.append(f"send {link}")
        return link in self.names

    def close_link(self, link: str) -> bool:
        self.log.append(f"close {link}")
        return link in self.names


def test_every_effect_has_somebody_who_performs_it() -> None:
    """The two tables together are the union of effects, and share nothing."""
    parts = [MagicMock() for _ in range(4)]
    shell = performers(*parts, completed=print, drained=print)
    own = {effects.SendLaneMessage, effects.CloseLink, effects.Note}
    assert set(shell) | own == set(typing.get_args(effects.Effect))
    assert not set(shell) & own


@pytest.mark.asyncio
async def test_an_event_posted_by_an_effect_waits_for_its_turn() -> None:
    """The engine is never entered twice, and effects of one turn are not interleaved."""
    engine = Engine()
    order: list[str] = []

    def first(effect: effects.CancelCall) -> None:
        order.append(f"cancel {effect.call_id}")
        if effect.call_id == 1:
            pump.post(events.LinkUp("later"))
            assert len(engine.handled) == 1

    pump = Pump(engine, links=(), perform={effects.CancelCall: first}, on_fatal=order.append)
    engine.answers = [[effects.CancelCall(1), effects.CancelCall(2)], [effects.CancelCall(3)]]
    pump.post(events.LinkUp("now"))
    assert order == ["cancel 1", "cancel 2", "cancel 3"]
    assert engine.handled == [events.LinkUp("now"), events.LinkUp("later")]


@pytest.mark.asyncio
async def test_sends_and_closes_go_to_the_owner_of_the_link() -> None:
    """A link belongs to one side; on one that has gone, nothing happens."""
    engine = Engine()
    ours, theirs = Links("a"), Links("b")
    pump = Pump(engine, links=(ours, theirs), perform={}, on_fatal=print)
    message = LaneMessage()
    engine.answers = [
        [
            effects.SendLaneMessage("a", message),
            effects.SendLaneMessage("b", message),
            effects.CloseLink("gone", "over"),
            effects.Note(True, "said", {"k": 1}),
        ]
    ]
    pump.post(events.LinkUp("a"))
    assert ours.log == ["send a", "send b", "close gone"]
    assert theirs.log == ["send b", "close gone"]


@pytest.mark.asyncio
async def test_the_deadline_brings_a_tick() -> None:
    """Time passes for the engine exactly when it asked for it, and not before."""
    engine = Engine()
    pump = Pump(engine, links=(), perform={}, on_fatal=print)
    engine.next_deadline = int(asyncio.get_running_loop().time() * 1000) + 20
    pump.post(events.LinkUp("a"))
    async with asyncio.timeout(2):
        await engine.ticked.wait()
    assert [type(event) for event in engine.handled] == [events.LinkUp, events.Tick]


@pytest.mark.asyncio
async def test_a_failing_engine_stops_the_sidecar() -> None:
    """A state that nobody understands is not gone on with."""
    engine = Engine()
    fatal: list[BaseException] = []

    def fail(effect: effects.CancelCall) -> None:
        raise ZeroDivisionError

    pump = Pump(engine, links=(), perform={effects.CancelCall: fail}, on_fatal=fatal.append)
    engine.answers = [[effects.CancelCall(1)]]
    pump.post(events.LinkUp("a"))
    assert isinstance(fatal[0], ZeroDivisionError)
    pump.post(events.LinkUp("b"))
    assert len(engine.handled) == 1
