"""Three processes, and what kill -9 takes from them: nothing that was acknowledged."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]
SERVE = Path(__file__).with_name("serve.py")


class Process:
    """A node in a process of its own."""

    def __init__(self, node_id: int, folder: Path, addresses: str) -> None:
        self.node_id = node_id
        self._arguments = [str(SERVE), str(node_id), str(folder), addresses]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert await self.answer() == {"ready": self.node_id}

    def tell(self, **command: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def answer(self) -> dict[str, Any] | None:
        """Return the next answer, or None if the process is dead."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        return json.loads(line) if line else None

    async def ask(self, **command: Any) -> dict[str, Any]:
        self.tell(**command)
        answer = await self.answer()
        assert answer is not None
        return answer

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[Process]]:
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = ",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
    for one in sockets:
        one.close()
    processes = [Process(node_id, tmp_path, addresses) for node_id in (1, 2, 3)]
    await asyncio.gather(*(process.start() for process in processes))
    yield processes
    for process in processes:
        await process.kill()


async def leader_of(processes: list[Process]) -> Process:
    """Return the leader of the newest term; real processes, so this polls with a deadline."""
    async with asyncio.timeout(60):
        while True:
            answers = [(await process.ask(status=1), process) for process in processes]
            newest = max(answer["term"] for answer, _ in answers)
            for answer, process in answers:
                if answer["leader"] and answer["term"] == newest:
                    return process
            await asyncio.sleep(0.05)


async def put_until_killed(leader: Process, prefix: str, kill_after: int, *doomed: Process) -> set:
    """Propose a stream of commands, kill on the way; return the keys that were acknowledged."""
    acknowledged: set[str] = set()
    for number in range(kill_after * 3):
        leader.tell(put=f"{prefix}{number}")
    while (answer := await leader.answer()) is not None:
        if answer["ok"]:
            acknowledged.add(answer["put"])
        if len(acknowledged) == kill_after:
            await asyncio.gather(*(process.kill() for process in doomed))
    return acknowledged


async def keys_at(process: Process, commit: int) -> set[str]:
    async with asyncio.timeout(60):
        while True:
            answer = await process.ask(keys=1)
            if answer["applied"] >= commit:
                return set(answer["keys"])
            await asyncio.sleep(0.05)


async def test_all_three_killed_at_once_lose_nothing_acknowledged(cluster: list[Process]) -> None:
    """Twice, in the middle of a stream of proposals; snapshots are taken on the way."""
    acknowledged: set[str] = set()
    for round_number in range(2):
        leader = await leader_of(cluster)
        acknowledged |= await put_until_killed(leader, f"{round_number}/", 300, *cluster)
        await asyncio.gather(*(process.start() for process in cluster))
    leader = await leader_of(cluster)
    assert (await leader.ask(put="last"))["ok"]
    answer = await leader.ask(keys=1)
    assert acknowledged <= set(answer["keys"])
    for process in cluster:
        assert acknowledged <= await keys_at(process, answer["commit"])


async def test_a_killed_leader_is_replaced_and_returns(cluster: list[Process]) -> None:
    """The others elect, write on, and the killed one catches up from its disk."""
    leader = await leader_of(cluster)
    acknowledged = await put_until_killed(leader, "a", 100, leader)
    rest = [process for process in cluster if process is not leader]
    since = time.monotonic()
    new = await leader_of(rest)
    assert (await new.ask(put="after"))["ok"]
    assert time.monotonic() - since < 20
    await leader.start()
    answer = await new.ask(keys=1)
    assert acknowledged | {"after"} <= set(answer["keys"])
    assert acknowledged | {"after"} <= await keys_at(leader, answer["commit"])


async def test_a_killed_follower_delays_nobody(cluster: list[Process]) -> None:
    """The quorum goes on, the follower returns and catches up, by snapshot if it must."""
    leader = await leader_of(cluster)
    follower = next(process for process in cluster if process is not leader)
    await follower.kill()
    for number in range(600):
        leader.tell(put=f"b{number}")
    for _ in range(600):
        answer = await leader.answer()
        assert answer is not None
        assert answer["ok"]
    await follower.start()
    answer = await leader.ask(keys=1)
    assert len(await keys_at(follower, answer["commit"])) == 600
