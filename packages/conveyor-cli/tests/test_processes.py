"""Local processes: started, killed, paused, and never left behind."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from conveyor_cli.processes import LocalCluster, ProcessFailedError, free_ports, wait_until

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True);"
    "time.sleep(600)",
]


def test_free_ports_are_different() -> None:
    """Ports handed out together never collide with each other."""
    assert len(set(free_ports(20))) == 20


@pytest.mark.asyncio
async def test_leaving_the_cluster_stops_what_it_started(tmp_path: Path) -> None:
    """No process outlives the context, not even a paused one."""
    with LocalCluster(tmp_path) as cluster:
        first = cluster.add("first", SLEEPER)
        second = cluster.add("second", SLEEPER)
        cluster.start()
        await wait_until(lambda: "up" in first.tail() and "up" in second.tail(), "both to be up")
        second.pause()
    assert first.exit_code == -signal.SIGTERM
    assert second.exit_code == -signal.SIGTERM


@pytest.mark.asyncio
async def test_a_killed_process_starts_again_and_its_log_goes_on(tmp_path: Path) -> None:
    """A restart keeps the name, the command and the log file."""
    with LocalCluster(tmp_path) as cluster:
        process = cluster.add("worker", SLEEPER)
        process.start()
        await wait_until(lambda: "up" in process.tail(), "the first start", needs=[process])
        process.kill()
        assert process.exit_code == -signal.SIGKILL
        process.start()
        await wait_until(lambda: process.tail().count("up") == 2, "the second start")


@pytest.mark.asyncio
async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """Stopping insists after its deadline."""
    with LocalCluster(tmp_path) as cluster:
        process = cluster.add("stubborn", STUBBORN)
        process.start()
        await wait_until(lambda: "up" in process.tail(), "it to be up", needs=[process])
        assert process.stop(timeout_seconds=0.1) == -signal.SIGKILL


@pytest.mark.asyncio
async def test_waiting_names_the_process_that_ended_and_shows_its_log(tmp_path: Path) -> None:
    """An error says which process failed, how, and what it last said."""
    with LocalCluster(tmp_path) as cluster:
        process = cluster.add("broken", [sys.executable, "-c", "raise SystemExit('no such disk')"])
        process.start()
        with pytest.raises(ProcessFailedError, match=r"(?s)broken ended with code 1.*no such disk"):
            await wait_until(lambda: False, "a miracle", needs=[process])
