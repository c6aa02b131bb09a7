"""How streams learn that something is new."""

import asyncio

import pytest

from conveyor_grpc.services.feed import Level


@pytest.mark.asyncio
async def test_a_rise_wakes_all_who_wait_below_it() -> None:
    """Nobody misses a rise, whether it comes before or after the wait begins."""
    level = Level()
    waits = [asyncio.ensure_future(level.wait_above(0, 5)) for _ in range(3)]
    await asyncio.sleep(0)
    level.raise_to(7)
    assert await asyncio.gather(*waits) == [True] * 3
    assert await level.wait_above(6, 5)
    assert not await level.wait_above(7, 0.01)


@pytest.mark.asyncio
async def test_it_never_falls() -> None:
    """An older value changes nothing and wakes nobody."""
    level = Level()
    level.raise_to(7)
    level.raise_to(3)
    assert level.value == 7
    assert not await level.wait_above(7, 0.01)


@pytest.mark.asyncio
async def test_the_end_wakes_everybody() -> None:
    """Streams end with the node instead of waiting out their time."""
    level = Level()
    wait = asyncio.ensure_future(level.wait_above(0, 60))
    await asyncio.sleep(0)
    level.close()
    assert await wait
    assert level.closed
