"""Turns silence into decisions: unhealthy after one lease, removed after two more.

The leader's memory of heartbeats (`Liveness`) decides; what it decides is proposed, so that every
router records the same expiry for the same reason. A proposal that went through proves that this
leader still leads a quorum, which the guard against mass expiry waits for.
"""

from __future__ import annotations

import asyncio
import logging

from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import RouterCommand

_log = logging.getLogger(__name__)


async def reap(plane: ControlPlane, interval_s: float) -> None:
    """Look at all leases each `interval_s`, for as long as this node leads."""
    while True:
        await asyncio.sleep(interval_s)
        await reap_once(plane)


async def reap_once(plane: ControlPlane) -> None:
    """Look at all leases now and propose what follows."""
    state = await plane.node.state()
    plane.counters.keep_only(state.sidecars, state.pipelines)
    held_before = bool(plane.liveness.held)
    commands = plane.liveness.decide(state, plane.now_ms(), plane.wall_ms())
    if plane.liveness.held:
        if not held_before:
            _log.warning("expiries are held back: %s", plane.liveness.held[0].reason)
        commands = [*commands, RouterCommand.Noop()]
    for command in commands:
        try:
            await plane.propose(command)
        except CommandRejected as refusal:
            # The log overtook the decision (the sidecar came back, say); the next look decides
            # anew.
            _log.info("a decision about leases was overtaken: %s", refusal)
        else:
            plane.liveness.confirm_quorum()
