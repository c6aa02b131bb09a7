"""A network that loses, delays, duplicates and reorders, and falls apart along several shapes.

Who can hear whom is a set of cut (sender, receiver) pairs, so a link may be dead in one direction
only. Partitions cut a message when it is sent and again when it arrives; what was delayed before
the cut and arrives after the healing is a ghost that the core must survive.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from conveyor_raft.testing.swarm import Knobs

Pair = tuple[int, int]


def halves(nodes: Sequence[int], rng: random.Random) -> set[Pair]:
    """Two groups that cannot hear each other."""
    shuffled = rng.sample(nodes, len(nodes))
    cut = rng.randint(1, max(1, len(nodes) - 1))
    left, right = shuffled[:cut], shuffled[cut:]
    return {pair for a in left for b in right for pair in ((a, b), (b, a))}


def isolated(nodes: Sequence[int], rng: random.Random) -> set[Pair]:
    """One node alone."""
    one = rng.choice(nodes)
    return {pair for other in nodes if other != one for pair in ((one, other), (other, one))}


def one_way(nodes: Sequence[int], rng: random.Random) -> set[Pair]:
    """One node that is heard but hears nobody, or the reverse."""
    one = rng.choice(nodes)
    deaf = rng.random() < 0.5
    return {(other, one) if deaf else (one, other) for other in nodes if other != one}


def ring(nodes: Sequence[int], rng: random.Random) -> set[Pair]:
    """Every node hears its two neighbours only, so every node sees a different majority."""
    order = rng.sample(nodes, len(nodes))
    near = set()
    for position, node in enumerate(order):
        after = order[(position + 1) % len(order)]
        near |= {(node, after), (after, node)}
    return {(a, b) for a in nodes for b in nodes if a != b and (a, b) not in near}


def bridge(nodes: Sequence[int], rng: random.Random) -> set[Pair]:
    """Two groups, and one node that hears both."""
    middle = rng.choice(nodes)
    return {pair for pair in halves(nodes, rng) if middle not in pair}


SHAPES: tuple[Callable[[Sequence[int], random.Random], set[Pair]], ...] = (
    halves,
    isolated,
    one_way,
    ring,
    bridge,
)


class SimulatedNetwork:
    """Decides, for each message, when copies of it arrive; `counts` says what it did."""

    def __init__(self, nodes: Sequence[int], knobs: Knobs, rng: random.Random) -> None:
        """Begin whole."""
        self._nodes = nodes
        self._rng = rng
        self._cut: set[Pair] = set()
        self._last_arrival: dict[Pair, int] = {}
        self.counts = {"dropped": 0, "duplicated": 0, "ghosts": 0, "cut": 0, "partitions": 0}
        self.set_faults(knobs)

    def set_faults(self, knobs: Knobs) -> None:
        """Behave according to other knobs from now on."""
        self._knobs = knobs
        self._drop = knobs.drop
        self._duplicate = knobs.drop + knobs.duplicate
        self._ghost = self._duplicate + knobs.ghost

    def partition(self) -> None:
        """Fall apart, in a shape by chance."""
        self._cut = self._rng.choice(SHAPES)(self._nodes, self._rng)
        self.counts["partitions"] += 1

    def heal(self) -> None:
        """Become whole."""
        self._cut = set()

    def is_cut(self, sender: int, receiver: int) -> bool:
        """Whether nothing gets through at the moment; counted."""
        if self._cut and (sender, receiver) in self._cut:
            self.counts["cut"] += 1
            return True
        return False

    def arrivals(self, sender: int, receiver: int, now: int) -> tuple[int, ...]:
        """Return when the copies of a message arrive that leaves now; perhaps none."""
        if self.is_cut(sender, receiver):
            return ()
        draw = self._rng.random
        luck = draw()
        arrival = now + 1 + int(draw() * self._knobs.delay_ms)
        if luck >= self._ghost:
            if not self._knobs.reorder:
                arrival = max(arrival, self._last_arrival.get((sender, receiver), 0))
                self._last_arrival[sender, receiver] = arrival
            return (arrival,)
        if luck < self._drop:
            self.counts["dropped"] += 1
            return ()
        if luck < self._duplicate:
            self.counts["duplicated"] += 1
            return arrival, arrival + int(draw() * 3 * self._knobs.delay_ms)
        self.counts["ghosts"] += 1
        return (arrival + 300 + int(draw() * 700),)
