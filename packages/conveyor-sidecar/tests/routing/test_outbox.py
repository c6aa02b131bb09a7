"""The outbox: joins what waits, keeps apart what must be, and has a bound."""

from __future__ import annotations

import asyncio

import pytest

from conveyor_sidecar.routing.outbox import BUNDLE_BYTES_TARGET, Outbox


@pytest.mark.asyncio
async def test_what_waited_leaves_as_one_message_up_to_the_target() -> None:
    """Joined bytes are merged messages; one bundle stays near the target."""
    outbox = Outbox()
    for part in (b"a", b"b", b"c" * BUNDLE_BYTES_TARGET, b"d"):
        assert outbox.put(part)
    assert await outbox.take() == b"ab" + b"c" * BUNDLE_BYTES_TARGET
    assert await outbox.take() == b"d"
    assert outbox.bytes_waiting == 0


@pytest.mark.asyncio
async def test_a_message_that_stands_alone_is_not_joined() -> None:
    """Neither with what was before it nor with what comes after."""
    outbox = Outbox()
    outbox.put(b"a")
    outbox.put(b"hello", alone=True)
    outbox.put(b"b")
    outbox.put(b"c")
    assert [await outbox.take() for _ in range(3)] == [b"a", b"hello", b"bc"]


@pytest.mark.asyncio
async def test_the_bound_is_bytes() -> None:
    """Beyond it nothing is queued; there is room again once something has left."""
    outbox = Outbox(bytes_max=3)
    assert outbox.put(b"aa")
    assert not outbox.put(b"bb")
    assert await outbox.take() == b"aa"
    assert outbox.put(b"bb")


@pytest.mark.asyncio
async def test_closing_hands_out_the_rest_and_ends() -> None:
    """A waiting reader is woken; nothing more is taken."""
    outbox = Outbox()
    waiting = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    outbox.put(b"last")
    outbox.close()
    assert await waiting == b"last"
    assert await outbox.take() is None
    assert not outbox.put(b"late")
