"""The clients of a world: they propose, mostly to whom they take for the leader.

Every payload is unique, so that what comes back can be told apart; the wall clock that is handed
over with a proposal may jump by an hour either way, because nothing may depend on it.
"""

from __future__ import annotations

import struct

from conveyor_raft.core.types import Proposed, RaftRole
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.world import World

_WALL_START_MS = 1_700_000_000_000
_WALL_JUMP_MS = 3_600_000


class Clients:
    """They go on until the world's knobs say that nobody proposes any more."""

    def __init__(self, world: World) -> None:
        """Begin at once."""
        self._world = world
        self._token = 0
        self._propose()

    def _propose(self) -> None:
        world, rng = self._world, self._world.rng
        knobs = world.knobs
        if not knobs.client_every_ms:
            return
        world.at(world.soon(knobs.client_every_ms), self._propose)
        target = self._likely_leader()
        if target.down or target.node_id in world.paused:
            return
        filler = bytes(knobs.payload_bytes - 8)
        payloads = []
        for _ in range(1 if rng.random() < 0.7 else rng.randint(2, 8)):
            self._token += 1
            payloads.append(struct.pack("<Q", self._token) + filler)
        wall_ms = _WALL_START_MS + world.now
        if knobs.wall_jumps:
            wall_ms += rng.randint(-_WALL_JUMP_MS, _WALL_JUMP_MS)
        target.core.tick(world.local(target))
        result = target.core.propose(payloads, wall_ms=wall_ms, token=self._token)
        if isinstance(result, Proposed):
            world.counts["proposed"] += 1
            world.invariants.on_proposed(target, self._token, result, payloads)
        else:
            world.counts["refused"] += 1
            world.invariants.on_refused(payloads)
        world.events += 1
        world.after_input(target)
        world.invariants.after_event(target)

    def _likely_leader(self) -> SimulatedNode:
        nodes = self._world.nodes.values()
        chosen = self._world.nodes[self._world.rng.choice(self._world.ids)]
        if self._world.rng.random() < 0.1:
            return chosen
        leaders = [node for node in nodes if node.core.role is RaftRole.LEADER and not node.down]
        return max(leaders, key=_term_of) if leaders else chosen


def _term_of(node: SimulatedNode) -> int:
    return node.core.term
