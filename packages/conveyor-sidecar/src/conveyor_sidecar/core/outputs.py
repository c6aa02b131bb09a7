"""The sending end of an instance: its out-edges together.

A frame of new records goes to every edge that takes it: DONE for what it came from waits for all
of them (fan-out). Records above the limit never travel; they become dead letters of the stage that
made them. Records that no edge takes have ended, and are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from conveyor_sdk.carrier.frame import Frame
from conveyor_sdk.carrier.lineage import Origin
from conveyor_sidecar.core.context import Context
from conveyor_sidecar.core.delivery import Piece
from conveyor_sidecar.core.events import Failure, FailureKind, Outputs
from conveyor_sidecar.core.letters import DeadLetters
from conveyor_sidecar.core.outbox import LaneCarrier, Outbox
from conveyor_sidecar.core.routes import Edge, InstanceKey, Pipeline


class ExitOwner(Protocol):
    """Whose out-edges these are."""

    key: InstanceKey
    term: int
    service_id: str

    def settle(self) -> None:
        """See `context.Part`."""
        ...


class Exits:
    """The out-edges of one instance.

    Args:
        context: The engine's.
        carrier: The links.
        letters: Dead letters on their way to the disk.
        owner: The instance.
    """

    def __init__(
        self, context: Context, carrier: LaneCarrier, letters: DeadLetters, owner: ExitOwner
    ) -> None:
        self._context = context
        self._carrier = carrier
        self._letters = letters
        self._owner = owner
        self._counters = context.counters(owner.key)
        self._boxes: list[Outbox] = []
        self.consumers: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        """Nothing waits and nothing is kept."""
        return all(box.empty for box in self._boxes)

    @property
    def blocked(self) -> bool:
        """So much waits that the stage should make no more of it."""
        return any(box.blocked for box in self._boxes)

    def update(self, pipeline: Pipeline) -> None:
        """Have the edges and the consuming instances of this version's table."""
        edges = pipeline.edges_from(self._owner.key.stage)
        known = {box.edge.name: box for box in self._boxes}
        self._boxes = []
        for edge in edges:
            box = known.pop(edge.name, None)
            if box is None:
                box = Outbox(
                    self._context,
                    self._carrier,
                    self._owner,
                    edge,
                    version=pipeline.version,
                    producer=self._owner.key,
                    term=self._owner.term,
                )
            box.edge = edge
            box.update(pipeline.instances_of(edge.consumer))
            self._boxes.append(box)
        self.consumers = frozenset(edge.consumer for edge in edges)

    def close(self, reason: str) -> None:
        """Give up all that is kept and all lanes."""
        for box in self._boxes:
            box.close(reason)

    def pump(self) -> None:
        """Send what may be sent."""
        for box in self._boxes:
            box.pump()

    def account_waiting(self) -> None:
        """Count the time for which records have waited for credit until now."""
        for box in self._boxes:
            box.account_waiting()

    def raise_stable(self, origin: Origin, below: int) -> None:
        """Everything of `origin` below `below` has ended: pass it on."""
        for box in self._boxes:
            box.raise_stable(origin, below)

    def send(self, piece: Piece, frame: Frame, outputs: Outputs) -> None:
        """Send what a call made of `piece`."""
        if outputs.traceparent:
            frame = replace(frame, traceparent=outputs.traceparent)
        self.spread(piece, with_key_hashes(frame, outputs.key_hashes), list(outputs.routes))

    def spread(self, piece: Piece, frame: Frame, routes: list[str]) -> None:
        """Send new records, held by what `piece` holds, to every edge that takes them."""
        limit = self._context.options.record_bytes_max
        if max(frame.lengths) > limit:
            lengths = frame.lengths
            large = [place for place, length in enumerate(lengths) if length > limit]
            self._bury_large(piece, frame.select(large), limit)
            fitting = [place for place, length in enumerate(lengths) if length <= limit]
            if not fitting:
                return
            frame = frame.select(fitting)
            routes = [routes[place] for place in fitting] if routes else routes
        taken = select_for_edges(frame, routes, [box.edge for box in self._boxes])
        reached: set[int] | None = set()
        for number, places in taken:
            part = frame if places is None else frame.select(places)
            self._counters.emitted += part.count
            self._boxes[number].add(piece.fork(part))
            if reached is not None:
                reached = None if places is None else reached.union(places)
        if reached is not None:
            self._counters.unrouted += frame.count - len(reached)

    def _bury_large(self, piece: Piece, frame: Frame, limit: int) -> None:
        failures = tuple(
            [
                Failure(place, FailureKind.REJECT, f"record of {size} bytes; the limit is {limit}")
                for place, size in enumerate(frame.lengths)
            ]
        )
        self._letters.bury(self._owner, piece.fork(frame, piece.attempt), failures)


def select_for_edges(
    frame: Frame, routes: Sequence[str], edges: Sequence[Edge]
) -> list[tuple[int, Sequence[int] | None]]:
    """Say which records of a frame each edge takes.

    Args:
        frame: The records.
        routes: Empty, or for each record the stage it is meant for ("" for every edge that takes
            it).
        edges: The out-edges.

    Returns:
        For each edge that takes any its place in `edges` and the records' places, None for all.
    """
    taken: list[tuple[int, Sequence[int] | None]] = []
    for number, edge in enumerate(edges):
        condition = edge.condition
        if condition is None and not routes:
            taken.append((number, None))
            continue
        places: Sequence[int] = range(frame.count) if condition is None else condition(frame)
        if routes:
            places = [place for place in places if routes[place] in ("", edge.consumer)]
        if len(places) == frame.count:
            taken.append((number, None))
        elif places:
            taken.append((number, places))
    return taken


def with_key_hashes(frame: Frame, column: bytes) -> Frame:
    """Return the frame with a ready column of key hashes, if there is one."""
    return replace(frame, key_hashes_column=column) if column else frame
