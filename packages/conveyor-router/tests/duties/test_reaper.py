"""Silence becomes recorded decisions."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from conveyor_grpc.services import ControlPlane
from conveyor_grpc.testing import InProcessRouter, router_cluster
from conveyor_raft.machines.router import RouterCommand, ServiceHealth
from conveyor_router.duties.reaper import reap_once

LEASE_MS = 1_000


@pytest_asyncio.fixture
async def router() -> AsyncIterator[InProcessRouter]:
    async with router_cluster() as (router,):
        yield router


class Time:
    """The monotonic time of a plane, in the test's hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = ControlPlane.now_ms()
        monkeypatch.setattr(ControlPlane, "now_ms", lambda plane: self.now)


async def register(router: InProcessRouter, count: int) -> None:
    for number in range(count):
        await router.plane.propose(
            RouterCommand.RegisterSidecar(
                sidecar_id=f"s{number}", endpoint=f"s{number}:1", boot_id="1", lease_ms=LEASE_MS
            )
        )
    await reap_once(router.plane)


@pytest.mark.asyncio
async def test_a_silent_sidecar_is_unhealthy_then_gone(
    router: InProcessRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one lease, after two more; whoever speaks stays."""
    time = Time(monkeypatch)
    await register(router, 2)
    plane = router.plane
    time.now += LEASE_MS
    plane.liveness.beat_sidecar("s1", time.now)
    await reap_once(plane)
    record = (await router.state()).sidecars["s0"]
    assert record.health is ServiceHealth.UNHEALTHY
    assert "not heard of" in record.health_reason
    time.now += 2 * LEASE_MS
    plane.liveness.beat_sidecar("s1", time.now)
    await reap_once(plane)
    assert set((await router.state()).sidecars) == {"s1"}


@pytest.mark.asyncio
async def test_a_mass_expiry_is_held_back_until_a_quorum_confirms(
    router: InProcessRouter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reported hold first, decisions one lease later."""
    time = Time(monkeypatch)
    await register(router, 6)
    time.now += LEASE_MS
    with caplog.at_level(logging.WARNING):
        await reap_once(router.plane)
    assert "held back" in caplog.text
    assert len(router.plane.liveness.held) == 6
    records = (await router.state()).sidecars.values()
    assert {record.health for record in records} == {ServiceHealth.HEALTHY}
    time.now += LEASE_MS
    await reap_once(router.plane)
    records = (await router.state()).sidecars.values()
    assert {record.health for record in records} == {ServiceHealth.UNHEALTHY}


@pytest.mark.asyncio
async def test_a_quiet_look_writes_nothing(router: InProcessRouter) -> None:
    """Looking costs no log entry."""
    await register(router, 2)
    before = router.node.status().last_index
    await reap_once(router.plane)
    assert router.node.status().last_index == before
