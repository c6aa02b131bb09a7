"""One seed: a cluster of real cores under one clock and one source of chance.

Everything happens in one priority queue; the cores are given the time and the chance, so a seed is
a run, bit for bit, on any machine and under any PYTHONHASHSEED. Each event is one input to one
core, followed (unless the seed says that inputs are batched) by one `take`; the invariants are
checked after each.

A run has two phases. Under faults, anything may be lost but no rule may break. Then everything
heals, and the cluster must come to rest (`settling`).
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.messages import Message
from conveyor_raft.core.output import Output, SnapshotSend
from conveyor_raft.core.types import (
    Applied,
    Outcome,
    RaftRole,
    ReadOutcome,
)
from conveyor_raft.testing.disk import SimulatedDisk, StoredSnapshot
from conveyor_raft.testing.founding import found_node, incarnation_of
from conveyor_raft.testing.hosted import Account
from conveyor_raft.testing.invariants import Invariants
from conveyor_raft.testing.network import SimulatedNetwork
from conveyor_raft.testing.promises import Promises
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.streams import SnapshotStream
from conveyor_raft.testing.swarm import draw_knobs
from conveyor_raft.testing.trace import Trace
from conveyor_raft.testing.without import Without
from conveyor_raft.testing.workload import KeyValueWorkload, Workload

_ANY_LIFE = 0  # a message may arrive after its receiver was restarted

NodeHandler = Callable[[SimulatedNode, Any], bool]
"""Performs an event; tells whether the core was given an input."""
WorldHandler = Callable[[], None]
Event = tuple[int, int, NodeHandler, SimulatedNode, int, Any]
"""Time, sequence number, what, where, in which life of the node, with what."""


class Proposers(Protocol):
    """Who proposes and reads, and wants to hear what came of it."""

    def on_finished(self, token: int, outcome: Outcome) -> None:
        """A proposal has ended."""

    def on_read(self, node: SimulatedNode, token: int, outcome: ReadOutcome) -> None:
        """A read may run on the node now, or never."""

    def on_crash(self, node: SimulatedNode) -> None:
        """The proposals of a node ended with it."""

    def at_the_end(self) -> None:
        """The run is over."""


class World:
    """A seed being run. `events` counts inputs to cores; `digest` is a hash of what happened."""

    def __init__(
        self, seed: int, workload: Workload | None = None, without: Without | None = None
    ) -> None:
        """Draw the cluster and its faults, without some of them."""
        self.seed = seed
        self.rng = random.Random(seed)
        self.without = without or Without()
        self.knobs = self.without.calmed(draw_knobs(self.rng))
        self.account = Account(workload or KeyValueWorkload())
        self.clients: Proposers | None = None
        self.happened: list[tuple[str, int]] = []
        self.heard: Counter[tuple[str, type]] = Counter()
        self.now = 0
        self.events = 0
        self.digest = seed
        self.counts: Counter[str] = Counter()
        self.ids = range(1, self.knobs.nodes + self.knobs.spares + 1)
        self.network = SimulatedNetwork(self.ids, self.knobs, self.rng)
        self.nodes = {
            node_id: found_node(node_id, self.knobs, self.rng, self.account) for node_id in self.ids
        }
        self.invariants = Invariants(self.nodes, self.knobs.options.max_inflight_messages)
        self.paused: dict[int, list[Event]] = {}
        self._queue: list[tuple[int, int, Event | WorldHandler]] = []
        self._sequence = 0
        self.trace = Trace()
        self.promises = Promises(self.nodes, self.local)
        self._timer_at: dict[int, int] = {}
        self._take_due: set[int] = set()
        self._rate = dict(zip(self.ids, self.knobs.clock_permille, strict=True))
        for node in self.nodes.values():
            self._schedule_timer(node)

    # ------------------------------------------------------------------ chance and script

    def chance(self, name: str) -> random.Random:
        """Return a source of chance that nothing else disturbs."""
        return random.Random(f"{self.seed} {name}")

    def begins(self, name: str, number: int) -> bool:
        """Whether the n-th of these events is part of the run; it is written down if so."""
        if (name, number) in self.without.events:
            return False
        self.happened.append((name, number))
        self.trace.note(self.now, f"{name} {number}")
        return True

    # ------------------------------------------------------------------ the queue

    def at(self, delay: int, handler: WorldHandler) -> None:
        """Have something happen to the world."""
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + delay, self._sequence, handler))

    def at_node(self, delay: int, handler: NodeHandler, node: SimulatedNode, data: Any) -> None:
        """Have something happen to a node, unless it dies first."""
        self._sequence += 1
        time = self.now + delay
        event = (time, self._sequence, handler, node, node.life, data)
        heapq.heappush(self._queue, (time, self._sequence, event))

    def soon(self, mean: int) -> int:
        """Draw a time."""
        return 1 + int(self.rng.random() * 2 * mean)

    def step(self) -> None:
        """Let the next event happen, and check the node that it happened to."""
        self.now, sequence, event = heapq.heappop(self._queue)
        if not isinstance(event, tuple):
            event()
            return
        _, _, handler, node, life, data = event
        if node.down or life not in {node.life, _ANY_LIFE}:
            return
        if self.trace.kept is not None:
            self.trace.kept.append(event)
        if node.node_id in self.paused:
            self.paused[node.node_id].append(event)
        elif handler(node, data):
            self.events += 1
            core = node.core
            self.digest = hash(
                (self.digest, self.now, sequence, node.node_id, core.term, core.commit_index)
            )
            self.invariants.after_event(node)
            if node.options.lease_reads:
                self.promises.check_leases()

    def resume(self, node: SimulatedNode) -> None:
        """Let a paused node go on with what has piled up."""
        for event in self.paused.pop(node.node_id, ()):
            _, _, handler, _, _, data = event
            self.at_node(0, handler, node, data)

    def revive(self, node: SimulatedNode) -> None:
        """Restart a node from its disk."""
        if node.down:
            node.start(self.local(node))
            self._perform(node)
            self.invariants.after_event(node)

    def revive_later(self, node: SimulatedNode) -> None:
        """Restart a node after a time, unless somebody else does it before."""
        life = node.life

        def restart() -> None:
            if node.life == life:
                self.revive(node)

        self.at(self.soon(self.knobs.down_ms), restart)

    def wipe(self, node: SimulatedNode) -> None:
        """Give a dead node an empty disk, and so another incarnation."""
        incarnation = incarnation_of(node.node_id, node.life)
        node.identity = node.identity._replace(incarnation=incarnation)
        node.disk = SimulatedDisk(LoadedState())
        self.invariants.on_wipe(node)

    def kill(self, node: SimulatedNode) -> None:
        """End a node's process; what was on its way to the disk is lost, or a part of it."""
        self.count_core(node)
        node.crash(self.rng.randint(0, len(node.disk.pending)))
        self.invariants.on_crash(node)
        if self.clients is not None:
            self.clients.on_crash(node)
        self.promises.on_crash(node)
        self.paused.pop(node.node_id, None)
        self._take_due.discard(node.node_id)
        self._timer_at.pop(node.node_id, None)

    def count_core(self, node: SimulatedNode) -> None:
        """Add a core's own counters to the account of the run."""
        for key, value in node.core.statistics().items():
            self.counts[f"core_{key}"] += value

    # ------------------------------------------------------------------ the driver

    def local(self, node: SimulatedNode) -> int:
        """Return a node's own time."""
        return self.now * self._rate[node.node_id] // 1000

    def after_input(self, node: SimulatedNode) -> bool:
        """Take what the core wants done, now or together with what comes next."""
        if not self.knobs.batching or self.rng.random() < 0.5:
            self._perform(node)
        elif node.node_id not in self._take_due:
            self._take_due.add(node.node_id)
            self.at_node(1 + int(self.rng.random() * 3), self._take, node, None)
        return True

    def _perform(self, node: SimulatedNode) -> None:
        was_idle = not node.disk.pending
        out = node.take()
        if out.soft is not None and out.soft.role is RaftRole.LEADER:
            self.invariants.on_leader(node)
        if out.write is not None:
            self.invariants.on_write(node, out.write)
            if was_idle:
                self.at_node(self._disk_ms(node), self._write_is_durable, node, None)
        if out.messages:
            self._send(node, out.messages)
        if out.apply is not None or out.install is not None:
            self.at_node(int(self.rng.random() * self.knobs.apply_ms), self._apply, node, None)
        if out.finished or out.send_snapshot or out.reads or out.transfers:
            self._report(node, out)
        self._schedule_timer(node)

    def _report(self, node: SimulatedNode, out: Output) -> None:
        promises = self.promises
        for token, outcome in out.finished:
            self.counts[type(outcome).__name__.lower()] += 1
            self.invariants.on_finished(node, token, outcome)
            if self.clients is not None:
                self.clients.on_finished(token, outcome)
            if isinstance(outcome, Applied):
                promises.acknowledged = max(promises.acknowledged, outcome.last_index)
        for token, read in out.reads:
            self.counts[type(read).__name__.lower()] += 1
            promises.on_read(node, token, read)
            if self.clients is not None:
                self.clients.on_read(node, token, read)
        for token, transfer in out.transfers:
            self.counts[type(transfer).__name__.lower()] += 1
            promises.on_transfer(token)
        for send in out.send_snapshot:
            self._send_snapshot(node, send)

    def _send(self, node: SimulatedNode, messages: list[Message]) -> None:
        invariants, arrivals, now = self.invariants, self.network.arrivals, self.now
        deliver, queue = self._deliver, self._queue
        for message in messages:
            invariants.on_release(node, message)
            to = self.nodes[message.to]
            for arrival in arrivals(node.node_id, to.node_id, now):
                self._sequence += 1
                event = (arrival, self._sequence, deliver, to, _ANY_LIFE, message)
                heapq.heappush(queue, (arrival, self._sequence, event))

    def _schedule_timer(self, node: SimulatedNode) -> None:
        """Have the node wake at its deadline; a timer that turns out early is set again then."""
        deadline = node.core.next_deadline
        if deadline is None:
            return
        at = max(self.now, -(-deadline * 1000 // self._rate[node.node_id]))
        if at < self._timer_at.get(node.node_id, at + 1):
            self._timer_at[node.node_id] = at
            self.at_node(at - self.now, self._timer, node, at)

    def _disk_ms(self, node: SimulatedNode) -> int:
        knobs = self.knobs
        longest = knobs.disk_ms + (knobs.slow_disk_ms if node.node_id == knobs.slow_node else 0)
        return 1 + int(self.rng.random() * longest)

    def _send_snapshot(self, node: SimulatedNode, send: SnapshotSend) -> None:
        stored = node.disk.snapshot
        if stored is None or stored.meta != send.meta:
            self.at_node(1, self.snapshot_sent, node, (send, False))
        else:
            stream = SnapshotStream(self, node, send, stored)
            self.at(5 + int(self.rng.random() * 3 * self.knobs.delay_ms), stream.begin)

    # ------------------------------------------------------------------ inputs

    def _deliver(self, node: SimulatedNode, message: Message) -> bool:
        if self.network.is_cut(message.sender, node.node_id):
            return False
        local = self.local(node)
        elections = self.invariants.elections
        node.core.tick(local)
        before = elections.before_step(node, message, local)
        self.heard[node.core.role._value_, type(message.body)] += 1
        node.core.step(message)
        elections.after_step(node, message, local, before)
        return self.after_input(node)

    def _timer(self, node: SimulatedNode, at: int) -> bool:
        if at != self._timer_at.get(node.node_id):
            return False
        del self._timer_at[node.node_id]
        now = self.local(node)
        node.core.tick(now)
        deadline = node.core.next_deadline
        if deadline is not None and deadline > now:
            self._schedule_timer(node)
            return False
        self._perform(node)
        return True

    def _write_is_durable(self, node: SimulatedNode, _: None) -> bool:
        node.core.tick(self.local(node))
        self._send(node, node.complete_write())
        if node.disk.pending:
            self.at_node(self._disk_ms(node), self._write_is_durable, node, None)
        return self.after_input(node)

    def _apply(self, node: SimulatedNode, _: None) -> bool:
        node.core.tick(self.local(node))
        frames = node.apply_next()
        if frames:
            self.invariants.on_applied(node, frames)
        if node.core.snapshot_due:
            self.counts["snapshots_built"] += 1
            self.at_node(self._disk_ms(node), self._snapshot_stored, node, node.capture_snapshot())
        return self.after_input(node)

    def _take(self, node: SimulatedNode, _: None) -> bool:
        self._take_due.discard(node.node_id)
        self._perform(node)
        self.invariants.after_event(node)
        return False

    def _snapshot_stored(self, node: SimulatedNode, captured: StoredSnapshot) -> bool:
        node.core.tick(self.local(node))
        node.store_snapshot(captured)
        return self.after_input(node)

    def snapshot_sent(self, node: SimulatedNode, data: tuple[SnapshotSend, bool]) -> bool:
        """Tell the sender how a stream has ended."""
        send, delivered = data
        node.core.tick(self.local(node))
        node.core.on_snapshot_sent(send.peer, send.session, delivered=delivered)
        return self.after_input(node)

    def receive_snapshot(self, peer: SimulatedNode, send: SnapshotSend, state: Any) -> None:
        """Hand over a snapshot that arrived whole."""
        peer.core.tick(self.local(peer))
        self.heard[peer.core.role._value_, type(send.message.body)] += 1
        if peer.receive_snapshot(send.message, state):
            self.counts["snapshots_accepted"] += 1
        self.events += 1
        self.after_input(peer)
        self.invariants.after_event(peer)

    def __str__(self) -> str:
        return "; ".join(
            f"node {node.node_id} {'down' if node.down else node.core.role.value} term"
            f" {node.core.term} commit {node.core.commit_index} applied {node.core.applied_index}"
            f" last {node.core.last_id.index}"
            for node in self.nodes.values()
        )
