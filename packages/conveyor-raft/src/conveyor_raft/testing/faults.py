"""What is done to a world: crashes, pauses, partitions, failing disks, false hints, changes of
the membership and lost disks (`operators`).

Each fault comes again after a time drawn around the mean that the seed has given it; a seed without
a fault never draws it. `heal` ends them all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from conveyor_raft.core.types import NodeId, RaftRole, Refused
from conveyor_raft.testing.operators import Operators
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.world import World

_HINT_EVERY_MS = 200


class Faults:
    """The faults of one world, from the start until `heal`."""

    def __init__(self, world: World) -> None:
        """Schedule the first of each."""
        self._world = world
        self._active = True
        self.operators = Operators(world)
        self._rng = world.rng
        self._tokens = 0
        knobs = world.knobs
        for fault, every in (
            (self._crash, knobs.crash_every_ms),
            (self._pause, knobs.pause_every_ms),
            (self._partition, knobs.partition_every_ms),
            (self._disk_error, knobs.disk_error_every_ms),
            (self.operators.change, knobs.change_every_ms),
            (self.operators.wipe, knobs.wipe_every_ms),
            (self.operators.lose_tail, knobs.lose_tail_every_ms),
            (self._transfer, knobs.transfer_every_ms),
            (self._hint, _HINT_EVERY_MS if knobs.peer_hints else 0),
        ):
            if every:
                self._repeat(fault, every)

    def heal(self) -> None:
        """End all faults: links whole, clocks running, every process up."""
        world = self._world
        self._active = False
        world.knobs = world.knobs.calm()
        world.network.set_faults(world.knobs)
        world.network.heal()
        for node in world.nodes.values():
            world.revive(node)
            world.resume(node)

    def _repeat(self, fault: Callable[[], None], every: int) -> None:
        world, name = self._world, fault.__name__.strip("_").replace("_", " ")
        pauses = world.chance(name)  # The others come when they come, whether this one does or not.

        def strike(number: int) -> None:
            if self._active:
                if world.begins(name, number):
                    self._rng = self.operators.rng = world.chance(f"{name} {number}")
                    fault()
                again(number + 1)

        def again(number: int) -> None:
            world.at(1 + int(pauses.random() * 2 * every), partial(strike, number))

        again(1)

    def _victim(self) -> SimulatedNode | None:
        """Draw a node; None if it is not running at the moment."""
        world = self._world
        node = world.nodes[self._rng.choice(world.ids)]
        return None if node.down or node.node_id in world.paused else node

    def _crash(self) -> None:
        world = self._world
        node = world.nodes[self._rng.choice(world.ids)]
        if not node.down:
            world.counts["crashes"] += 1
            if node.disk.pending:
                world.counts["lost_writes"] += 1
            self._kill(node)

    def _kill(self, node: SimulatedNode) -> None:
        self._world.kill(node)
        self._world.revive_later(node)

    def _disk_error(self) -> None:
        world, node = self._world, self._victim()
        if node is None or not node.disk.pending:
            return
        world.counts["disk_errors"] += 1
        node.fail_write()
        world.after_input(node)
        world.invariants.after_event(node)
        self._kill(node)

    def _pause(self) -> None:
        world, node = self._world, self._victim()
        if node is None:
            return
        world.counts["pauses"] += 1
        world.paused[node.node_id] = []
        life = node.life

        def resume() -> None:
            if node.life == life:
                world.resume(node)

        world.at(world.soon(world.knobs.pause_ms), resume)

    def _partition(self) -> None:
        world = self._world
        world.network.partition()
        world.at(world.soon(world.knobs.partition_ms), world.network.heal)

    def _transfer(self) -> None:
        """Have leadership handed over, mostly by who has it, mostly to whom it thinks best."""
        world, node = self._world, self._victim()
        leaders = [node for node in world.nodes.values() if node.core.role is RaftRole.LEADER]
        if leaders and self._rng.random() < 0.9:
            node = self._rng.choice(leaders)
        if node is None or node.down or node.node_id in world.paused:
            return
        to = NodeId(self._rng.choice(world.ids)) if self._rng.random() < 0.4 else None
        self._tokens += 1
        node.core.tick(world.local(node))
        if not isinstance(node.core.transfer(to, token=-self._tokens), Refused):
            world.counts["transfers"] += 1
            world.promises.on_asked(node, -self._tokens)
        world.after_input(node)
        world.invariants.after_event(node)

    def _hint(self) -> None:
        world, node = self._world, self._victim()
        if node is None:
            return
        node.core.tick(world.local(node))
        node.core.on_peer(NodeId(self._rng.choice(world.ids)), up=self._rng.random() < 0.5)
        world.after_input(node)
        world.invariants.after_event(node)
