"""Position commits of many sidecars become few log entries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conveyor_grpc.errors import BusyError, NotLeaderError, NotReadyError
from conveyor_raft.errors import UnknownOutcome
from conveyor_raft.machines.router import Outcome, PositionCommit, Refusal, RefusalCode
from conveyor_router.duties import checkpointer as module
from conveyor_router.duties.checkpointer import Checkpointer


class Log:
    """Stands for the plane: notes the commands, answers as told."""

    def __init__(self) -> None:
        self.commands: list[Any] = []
        self.answer: Any = None

    async def propose(self, command: Any) -> Outcome:
        self.commands.append(command)
        if self.answer is not None:
            return await self.answer(command)
        return Outcome(changed=True, revision=len(self.commands))

    def not_leader(self) -> NotLeaderError:
        return NotLeaderError("not me")


def commit(number: int, position: bytes = b"x") -> PositionCommit:
    return PositionCommit(
        pipeline_id="default/p",
        stage="in",
        partition=str(number),
        term=1,
        ordinal=1,
        position=position,
    )


@pytest.mark.asyncio
async def test_commits_of_one_pause_share_an_entry() -> None:
    """Each caller gets the answers to its own items."""
    log, checkpointer = Log(), Checkpointer()

    async def refuse_third(command: Any) -> Outcome:
        refusal = Refusal(2, "in", RefusalCode.FENCED, "newer", current_term=9)
        return Outcome(revision=5, refused=(refusal,))

    log.answer = refuse_third
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        duty = group.create_task(checkpointer.run(log))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        answers = await asyncio.gather(
            checkpointer.commit([commit(1), commit(2)]), checkpointer.commit([commit(3), commit(4)])
        )
        duty.cancel()
    assert len(log.commands) == 1
    assert [one.partition for one in log.commands[0].commits] == ["1", "2", "3", "4"]
    assert answers[0] == (5, [None, None])
    assert answers[1][1][0].current_term == 9
    assert answers[1][1][1] is None


@pytest.mark.asyncio
async def test_entries_are_bounded_in_items_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit goes into the next entry; a request is never split."""
    monkeypatch.setattr(module, "PAUSE_S", 0)
    monkeypatch.setattr(module, "BATCH_ITEMS_MAX", 3)
    monkeypatch.setattr(module, "BATCH_BYTES_MAX", 2_000)
    log, checkpointer = Log(), Checkpointer()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        duty = group.create_task(checkpointer.run(log))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.gather(
            checkpointer.commit([commit(1), commit(2)]),
            checkpointer.commit([commit(3), commit(4)]),
            checkpointer.commit([commit(5, b"y" * 1_000)]),
            checkpointer.commit([commit(6, b"y" * 1_000)]),
        )
        duty.cancel()
    assert [len(command.commits) for command in log.commands] == [2, 3, 1]


@pytest.mark.asyncio
async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than that is told to come back."""
    monkeypatch.setattr(module, "WAITING_ITEMS_MAX", 1)
    checkpointer = Checkpointer()
    async with asyncio.TaskGroup() as group:
        duty = group.create_task(checkpointer.run(Log()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await checkpointer.commit([commit(1), commit(2)])
        duty.cancel()


@pytest.mark.asyncio
async def test_a_failed_entry_fails_its_callers_and_nobody_else() -> None:
    """The duty goes on."""
    log, checkpointer = Log(), Checkpointer()

    async def fail(command: Any) -> Outcome:
        log.answer = None
        raise UnknownOutcome("no quorum")

    log.answer = fail
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        duty = group.create_task(checkpointer.run(log))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        with pytest.raises(UnknownOutcome):
            await checkpointer.commit([commit(1)])
        assert (await checkpointer.commit([commit(1)]))[1] == [None]
        duty.cancel()


@pytest.mark.asyncio
async def test_the_end_of_leading_is_told_to_who_waits() -> None:
    """Nobody waits for a duty that is over."""
    checkpointer = Checkpointer()
    duty = asyncio.ensure_future(checkpointer.run(Log()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(checkpointer.commit([commit(1)]))
    await asyncio.sleep(0)
    duty.cancel()
    with pytest.raises(NotLeaderError):
        await waiting
    with pytest.raises(NotReadyError):
        await checkpointer.commit([commit(1)])
