"""A future gets the result of its very entry, or an error; none is left behind."""

from __future__ import annotations

import asyncio

import pytest

from conveyor_raft import UnknownOutcome
from conveyor_raft.core.frames import Frame
from conveyor_raft.core.types import Applied, EntryKind, LogIndex, Proposed, Term, Unknown
from conveyor_raft.waiters import Deadlines, ResultFuture, Waiters

pytestmark = pytest.mark.asyncio


def frame(first: int, count: int, term: int) -> Frame:
    payloads = [b"x"] * count
    return Frame.build(LogIndex(first), Term(term), 0, EntryKind.COMMAND, payloads)


def futures(count: int) -> list[ResultFuture]:
    loop = asyncio.get_running_loop()
    return [loop.create_future() for _ in range(count)]


def proposed(first: int, last: int, term: int) -> Proposed:
    return Proposed(LogIndex(first), LogIndex(last), Term(term))


async def test_frames_find_the_futures_of_their_entries() -> None:
    """Also when a batch was cut into several frames, and when another's frames lie between."""
    waiters = Waiters()
    one, two = futures(4), futures(2)
    waiters.add(1, proposed(5, 8, 3), one)
    waiters.add(2, proposed(10, 11, 3), two)
    assert waiters.futures_for(frame(1, 4, 2)) is None
    assert waiters.futures_for(frame(5, 3, 3)) == one[:3]
    assert waiters.futures_for(frame(8, 1, 3)) == one[3:]
    assert waiters.futures_for(frame(9, 1, 3)) is None
    assert waiters.futures_for(frame(10, 2, 3)) == two


async def test_another_terms_entry_at_the_index_is_nobodys() -> None:
    """9/2 was replaced by 9/3: its proposer must not get the other command's result."""
    waiters = Waiters()
    mine = futures(1)
    waiters.add(1, proposed(9, 9, 2), mine)
    assert waiters.futures_for(frame(9, 1, 3)) is None
    waiters.finish(1, Unknown(LogIndex(9), LogIndex(9), Term(2), "another leads"))
    with pytest.raises(UnknownOutcome, match=r"index 9, term 2.*another leads"):
        await mine[0]


async def test_a_finished_batch_keeps_its_results() -> None:
    """`Applied` ends the batch; cancelled futures and given results stay as they are."""
    waiters = Waiters()
    mine = futures(2)
    waiters.add(1, proposed(1, 2, 1), mine)
    mine[0].cancel()
    mine[1].set_result("done")
    waiters.finish(1, Applied(LogIndex(1), LogIndex(2)))
    assert len(waiters) == 0
    assert await mine[1] == "done"


async def test_at_the_end_everybody_is_told() -> None:
    """No waiter is left behind when the node stops."""
    waiters = Waiters()
    mine = futures(3)
    waiters.add(1, proposed(1, 2, 1), mine[:2])
    waiters.add(2, proposed(3, 3, 1), mine[2:])
    waiters.fail_all("the node was shut down")
    for future in mine:
        with pytest.raises(UnknownOutcome, match="shut down"):
            await future


async def test_deadlines_end_what_was_not_answered_and_nothing_else() -> None:
    """One timer for all: answered futures keep their results, the others learn that time is up."""
    deadlines = Deadlines(0.02)
    mine = futures(5)
    for future in mine[:4]:
        deadlines.watch(future)
    mine[0].set_result("early")
    deadlines.watch(mine[4])
    mine[2].set_result("early")
    for late in (mine[1], mine[3], mine[4]):
        with pytest.raises(UnknownOutcome, match=r"within 0\.02 s"):
            await late
    assert (await mine[0], await mine[2]) == ("early", "early")
    again = futures(1)[0]
    deadlines.watch(again)
    with pytest.raises(UnknownOutcome):
        await again
    deadlines.cancel()
