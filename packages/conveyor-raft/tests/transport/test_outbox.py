"""The outbox of a peer: bounded, newest first in worth, empty while the peer is away."""

from __future__ import annotations

import asyncio

import pytest

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.messages import AppendEntries, Body, Heartbeat, Message
from conveyor_raft.core.types import (
    ZERO_ID,
    ClusterId,
    EntryKind,
    Incarnation,
    LogIndex,
    NodeId,
    Term,
)
from conveyor_raft.transport.outbox import Outbox

pytestmark = pytest.mark.asyncio
HEARTBEAT = Heartbeat(1, LogIndex(0))


def message(body: Body, term: int = 1) -> Message:
    return Message(ClusterId(b"c"), NodeId(1), Incarnation(b"i"), NodeId(2), Term(term), body)


def append(size: int) -> Body:
    frame = Frame.build(LogIndex(1), Term(1), 0, EntryKind.COMMAND, [b"x" * size])
    return AppendEntries(1, ZERO_ID, LogIndex(0), (frame,))


async def test_nothing_is_kept_for_a_peer_that_is_away() -> None:
    """It would be stale when the peer comes back."""
    outbox = Outbox(1000)
    outbox.put(message(HEARTBEAT))
    assert outbox.dropped == 1
    outbox.connected = True
    outbox.put(message(HEARTBEAT))
    assert len(await outbox.take(1000)) == 1


async def test_a_full_outbox_drops_heartbeats_first_and_then_the_oldest() -> None:
    """What stays is the newest, in order, within the bound."""
    outbox = Outbox(1000)
    outbox.connected = True
    for term, body in enumerate([append(300), HEARTBEAT, append(300), append(300)], 1):
        outbox.put(message(body, term))
    taken = [item.term for item, _ in await outbox.take(10_000)]
    assert taken == [3, 4]
    assert outbox.dropped == 2


async def test_one_message_above_every_bound_still_travels() -> None:
    """A single large entry must not be stuck for ever."""
    outbox = Outbox(1000)
    outbox.connected = True
    outbox.put(message(append(5000)))
    assert len(await outbox.take(100)) == 1


async def test_the_reader_waits_and_takes_pieces() -> None:
    """`take` returns as soon as there is something, and no more than was asked for."""
    outbox = Outbox(10_000)
    outbox.connected = True
    reader = asyncio.create_task(outbox.take(500))
    await asyncio.sleep(0)
    for term in (1, 2, 3):
        outbox.put(message(append(200), term))
    assert [item.term for item, _ in await reader] == [1]
    assert [item.term for item, _ in await outbox.take(700)] == [2, 3]
