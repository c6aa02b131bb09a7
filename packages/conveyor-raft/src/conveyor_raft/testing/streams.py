"""A snapshot on its way from one simulated node to another, chunk by chunk.

The stream breaks when a chunk is lost, a link is cut, or either end dies; the next one for the same
snapshot goes on where it broke. A chunk may arrive damaged. A late chunk of a broken stream may
still arrive, between those of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from conveyor_raft.core.incoming import name_of
from conveyor_raft.core.output import SnapshotSend
from conveyor_raft.errors import Corrupt
from conveyor_raft.testing.disk import StoredSnapshot
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.violated import Violated

if TYPE_CHECKING:
    from conveyor_raft.testing.world import World

_COPIES = 24
_CHUNK_BYTES = 16


class SnapshotStream:
    """One attempt. The bytes stand for the state, which is handed over if they arrive whole."""

    def __init__(
        self, world: World, node: SimulatedNode, send: SnapshotSend, stored: StoredSnapshot
    ) -> None:
        """Prepare the attempt."""
        self._world = world
        self._node = node
        self._life = node.life
        self._send = send
        self._state = stored.state
        last_id = stored.meta.last_id
        self._data = b"%d/%d " % last_id * _COPIES
        self._name = name_of(last_id, self._data)
        self._offset = 0

    def begin(self) -> None:
        """Ask the peer how much of it is there, and send the rest."""
        peer = self._peer
        if peer.down or peer.node_id in self._world.paused:
            self._end(delivered=False)
            return
        self._offset = peer.incoming.offset(self._name)
        self._world.counts["streams_resumed"] += self._offset > 0
        if self._offset < len(self._data):
            self._go_on()
        else:
            self._arrive()

    def _go_on(self) -> None:
        world, node, peer = self._world, self._node, self._peer
        if node.life != self._life or node.down:
            return
        if peer.node_id in world.paused:
            world.at(10, self._go_on)
            return
        knobs, draw = world.knobs, world.rng.random
        cut = world.network.is_cut(node.node_id, peer.node_id)
        if cut or peer.down or draw() < max(knobs.drop, knobs.stream_break):
            world.counts["streams_broken"] += 1
            if draw() < 0.5:
                world.at(world.soon(50), self._late_chunk(peer.life))
            self._end(delivered=False)
            return
        chunk = self._data[self._offset : self._offset + _CHUNK_BYTES]
        if draw() < knobs.chunk_damage:
            chunk = bytes([chunk[0] ^ 1]) + chunk[1:]
        peer.incoming.add(self._name, self._offset, chunk)
        self._offset += len(chunk)
        if self._offset < len(self._data):
            world.at(1 + int(draw() * 4), self._go_on)
        else:
            self._arrive()

    def _arrive(self) -> None:
        try:
            data = self._peer.incoming.take(self._name)
        except Corrupt:
            self._world.counts["snapshots_damaged"] += 1
            self._end(delivered=False)
            return
        if data != self._data:
            raise Violated("snapshots arrive whole", f"{data!r} instead of {self._data!r}")
        self._world.receive_snapshot(self._peer, self._send, self._state)
        self._end(delivered=True)

    def _late_chunk(self, life: int) -> Callable[[], None]:
        def arrive() -> None:
            peer = self._peer
            if peer.life == life and not peer.down:
                chunk = self._data[self._offset : self._offset + _CHUNK_BYTES]
                peer.incoming.add(self._name, self._offset, chunk)

        return arrive

    def _end(self, *, delivered: bool) -> None:
        world, node = self._world, self._node
        if node.life == self._life and not node.down:
            world.at_node(1, world.snapshot_sent, node, (self._send, delivered))

    @property
    def _peer(self) -> SimulatedNode:
        return self._world.nodes[self._send.peer]
