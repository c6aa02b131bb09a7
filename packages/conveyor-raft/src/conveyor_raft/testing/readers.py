"""Those who read in a world: on any node, and by lease, sometimes, where there are leases."""

from __future__ import annotations

from conveyor_raft.core.types import RaftRole
from conveyor_raft.testing.clients import Clients
from conveyor_raft.testing.world import World


class Readers:
    """They go on until the world's knobs say that nobody reads any more."""

    def __init__(self, world: World, clients: Clients) -> None:
        """Begin at once; the clients write down what they are told."""
        self._world = world
        self._clients = clients
        self._token = 0
        self._pauses = world.chance("read")
        self._read()

    def _read(self) -> None:
        world = self._world
        every_ms = world.knobs.read_every_ms
        if not every_ms:
            return
        world.at(1 + int(self._pauses.random() * 2 * every_ms), self._read)
        self._token += 1
        if not world.begins("read", self._token):
            return
        rng = world.chance(f"read {self._token}")
        node = world.nodes[rng.choice(world.ids)]
        lease = node.options.lease_reads and rng.random() < 0.7
        leaders = [node for node in world.nodes.values() if node.core.role is RaftRole.LEADER]
        if lease and leaders:
            node = rng.choice(leaders)
        if node.down or node.node_id in world.paused:
            return
        node.core.tick(world.local(node))
        if node.core.read(token=self._token, lease=lease) is None:
            world.counts["lease_reads" if lease else "reads"] += 1
            world.promises.on_asked(node, self._token)
            self._clients.on_asked(self._token, rng)
        world.events += 1
        world.after_input(node)
        world.invariants.after_event(node)
