"""kill -9 of each sidecar and each service of a running pipeline, one after the other."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.deployment import Deployment, deployed

from conveyor_cli.processes import wait_until

pytestmark = pytest.mark.asyncio

APPS = Path(__file__).parent / "apps"
SERVICES = {
    "numbers": "numbers_source.py",
    "label": "label_transform.py",
    "append": "append_sink.py",
}
COUNT = 12_000
PER_SECOND = 3_000
PIPELINE = """
apiVersion: conveyor/v1
kind: Pipeline
metadata: {name: numbers}
spec: {source: numbers, steps: [label], sink: append}
"""
ROUTERS = {
    "CONVEYOR_BUFFER__MAX_TOTAL_RECORDS": "4000",
    "CONVEYOR_BUFFER__MAX_PER_STAGE": "2000",
}
Key = tuple[str, int]


@dataclass(frozen=True)
class Killed:
    """One kill: how many lines the sink had, and which positions were committed by then."""

    name: str
    lines: int
    committed: dict[str, int]


def delivered(output: Path) -> list[Key]:
    """Return the deliveries in order; a line cut by a kill is none."""
    if not output.exists():
        return []
    lines = output.read_text().rpartition("\n")[0].splitlines()
    found = []
    for line in lines:
        partition, _, offset = line.partition(" ")
        found.append((partition, int(offset)))
    return found


async def committed(deployment: Deployment) -> dict[str, int]:
    """Return the committed ordinals of the source's partitions."""
    positions = await deployment.checkpoints.get_positions("default/numbers")
    return {each.partition: each.ordinal for each in positions}


async def test_killing_each_sidecar_and_service_loses_nothing(tmp_path: Path) -> None:
    """Every record arrives; a record arrives twice only if it was not yet done at a kill."""
    output = tmp_path / "delivered.txt"
    environment = {
        "NUMBERS_COUNT": str(COUNT),
        "NUMBERS_PER_SECOND": str(PER_SECOND),
        "APPEND_OUTPUT": str(output),
        "HEARTBEAT_INTERVAL_SECS": "1",
    }
    async with deployed(tmp_path, environment=environment, router_environment=ROUTERS) as running:
        cluster = running.cluster
        for name, script in SERVICES.items():
            cluster.add_service(name, [sys.executable, str(APPS / script)])
        cluster.start()
        await running.wait_for_services(3)
        await running.apply(PIPELINE)
        victims = [name for name in cluster.processes if not name.startswith("router-")]
        kills: list[Killed] = []
        total = 2 * COUNT * 9 // 10
        for number, name in enumerate(victims, start=1):
            target = total * number // (len(victims) + 2)
            await wait_until(
                lambda target=target: len(delivered(output)) >= target,
                f"{target} deliveries before {name} is killed",
                timeout_seconds=60,
                needs=list(cluster.processes.values()),
            )
            positions = await committed(running)
            kills.append(Killed(name, len(delivered(output)), positions))
            cluster.processes[name].kill()
            cluster.processes[name].start()
        await running.wait_for_phase("numbers", "Completed", timeout_seconds=90)
        deliveries = delivered(output)
    wanted = {(p, offset) for p in ("a", "b") for offset in range(COUNT) if offset % 10 != 9}
    assert set(deliveries) == wanted
    check_duplicates(deliveries, kills)


def check_duplicates(deliveries: list[Key], kills: list[Killed]) -> None:
    """Check that whatever came twice was not committed when the process was killed before it."""
    seen: set[Key] = set()
    for line, (partition, offset) in enumerate(deliveries):
        if (partition, offset) in seen:
            before = [kill for kill in kills if kill.lines <= line]
            assert before, f"line {line}: {partition} {offset} came twice and nothing was killed"
            low = before[-1].committed.get(partition, 0)
            assert offset >= low, (
                f"line {line}: {partition} {offset} came twice, though {low} was committed "
                f"before {before[-1].name} was killed"
            )
        seen.add((partition, offset))


async def test_the_data_plane_goes_on_without_any_router(tmp_path: Path) -> None:
    """With all routers dead records keep flowing; positions are committed when one is back."""
    output = tmp_path / "delivered.txt"
    environment = {
        "NUMBERS_COUNT": str(6_000),
        "NUMBERS_PER_SECOND": str(3_000),
        "APPEND_OUTPUT": str(output),
        "HEARTBEAT_INTERVAL_SECS": "1",
    }
    async with deployed(tmp_path, environment=environment) as running:
        cluster = running.cluster
        for name, script in SERVICES.items():
            cluster.add_service(name, [sys.executable, str(APPS / script)])
        cluster.start()
        await running.wait_for_services(3)
        await running.apply(PIPELINE)
        await wait_until(lambda: len(delivered(output)) > 500, "the flow", timeout_seconds=60)
        for router in running.routers:
            router.kill()
        total = 2 * 6_000 * 9 // 10
        await wait_until(
            lambda: len(delivered(output)) >= total,
            "all records, without a router",
            timeout_seconds=60,
            needs=[each for each in cluster.processes.values() if each.running],
        )
        with contextlib.suppress(ProcessLookupError):
            cluster.start()
        await running.wait_for_phase("numbers", "Completed", timeout_seconds=60)
        deliveries = delivered(output)
        assert len(deliveries) == len(set(deliveries)) == total
