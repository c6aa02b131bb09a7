"""The sending end of an edge: records that wait for a lane, and the lanes.

Records wait per edge and not per lane, so that whichever instance has credit gets the next ones; on
a keyed edge they wait per consuming instance, because the key decides. What waits is merged into
frames up to the limits of a frame; a frame that is not full leaves at once on an idle lane and
lingers on a busy one.

When a consumer is gone (the table moved it, its process lost its memory, its link cannot be
resumed while another instance can take over), what its lane kept returns to the head of the
queue, with the same lineage. On a keyed edge only the table moves keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from conveyor_sdk.carrier.lineage import Origin
from conveyor_sidecar.core.context import Context, Part
from conveyor_sidecar.core.delivery import Piece, merge_pieces
from conveyor_sidecar.core.lane import LaneName, LaneProducer
from conveyor_sidecar.core.messages import Done, StableMark
from conveyor_sidecar.core.routes import Edge, Instance, InstanceKey
from conveyor_sidecar.core.timers import Timer
from conveyor_sidecar.core.waiting import WaitingLine

KEY_GROUPS = 256
"""Into how many groups keys fall; a group goes to one instance."""

_ANYONE = -1


class LaneCarrier(Protocol):
    """What an outbox needs of the links (`links.Links`)."""

    def attach(self, lane: LaneProducer, outbox: Outbox) -> None:
        """Open the lane as soon as its link stands."""
        ...

    def detach(self, lane: LaneProducer, reason: str) -> None:
        """Give the lane up."""
        ...

    def link_of(self, lane: LaneProducer) -> str:
        """The link that an accepted lane is on."""
        ...


class Outbox:
    """One edge's sending end at one producing instance.

    Args:
        context: The engine's.
        carrier: The links.
        owner: Settled when something changes here.
        edge: The arrow.
        version: The pipeline's.
        producer: The instance that sends.
        term: Its assignment term.
    """

    def __init__(
        self,
        context: Context,
        carrier: LaneCarrier,
        owner: Part,
        edge: Edge,
        *,
        version: int,
        producer: InstanceKey,
        term: int,
    ) -> None:
        self.edge = edge
        self.lanes: dict[int, LaneProducer] = {}
        self._context = context
        self._carrier = carrier
        self._owner = owner
        self._version = version
        self._producer = producer
        self._term = term
        self._queues: defaultdict[int, WaitingLine] = defaultdict(WaitingLine)
        self._stable: dict[tuple[str, str, int], tuple[Origin, int]] = {}
        self._linger: Timer | None = None
        self._counters = context.counters(producer)
        self._starved_since_ms: int | None = None

    @property
    def empty(self) -> bool:
        """Nothing waits and nothing is kept."""
        return not any(queue.pieces for queue in self._queues.values()) and not any(
            lane.retained for lane in self.lanes.values()
        )

    @property
    def blocked(self) -> bool:
        """So much waits that the stage should make no more of it."""
        options = self._context.options
        return (
            sum([queue.records for queue in self._queues.values()]) >= options.stage_records_max
            or sum([queue.bytes for queue in self._queues.values()])
            >= options.lane_window_bytes_max
        )

    def update(self, consumers: Sequence[Instance]) -> None:
        """Have one lane to each of `consumers`; what was kept for others is sent to these."""
        wanted = {instance.index: instance for instance in consumers}
        moved = self.edge.keyed and wanted.keys() != self.lanes.keys()
        returned: list[Piece] = []
        for index, lane in list(self.lanes.items()):
            target = wanted.get(index)
            if target is not None and _same_place(lane.target, target):
                continue
            returned += self._retire(lane, "the consumer was reassigned")
        for index, target in wanted.items():
            if index not in self.lanes:
                self._open(target)
        if moved:
            for queue in self._queues.values():
                while queue.pieces:
                    returned.append(queue.pop())
        self._return(returned)
        self._context.touch(self._owner)

    def add(self, piece: Piece) -> None:
        """Send these records; they are counted as retained from now on."""
        self._context.budget.bytes += len(piece.frame.body)
        self._context.touch(self._owner)
        options = self._context.options
        for index, part in self._by_consumer(piece):
            frames = part.frame.split(options.frame_records, options.frame_bytes)
            if len(frames) == 1:
                self._queues[index].append(part, self._context.now_ms)
                continue
            for frame in frames:
                self._queues[index].append(part.fork(frame), self._context.now_ms)
            part.release()

    def raise_stable(self, origin: Origin, below: int) -> None:
        """Have the consumers know that everything of `origin` below `below` has ended."""
        place = (origin.stage, origin.partition, origin.replay_id)
        known, mark = self._stable.get(place, (origin, -1))
        if known.term > origin.term or (known == origin and mark >= below):
            return
        self._stable[place] = (origin, below)
        for lane in self.lanes.values():
            lane.stale[origin] = below

    def pump(self) -> None:
        """Send what may be sent."""
        for lane in self.lanes.values():
            if lane.expired and lane.retained:
                self._reclaim(lane)
        starved = False
        for index, queue in self._queues.items():
            while queue.pieces:
                lane_for = self._choose(index)
                starved = starved or lane_for is None
                if lane_for is None or not self._full_or_due(queue, lane_for):
                    break
                self._send(lane_for, queue)
        self.account_waiting()
        self._starved_since_ms = self._context.now_ms if starved else None

    def account_waiting(self) -> None:
        """Count the time since when nobody had credit for what waits here."""
        if self._starved_since_ms is not None:
            now_ms = self._context.now_ms
            self._counters.credit_wait_ms += now_ms - self._starved_since_ms
            self._starved_since_ms = now_ms

    def done(self, lane: LaneProducer, done: Done) -> None:
        """Frames of a lane have ended."""
        pieces = lane.take_done(done)
        if not pieces:
            return
        for piece in pieces:
            self._forget(piece)
        self._context.touch(self._owner)

    def granted(self) -> None:
        """A lane may send more."""
        self._context.touch(self._owner)

    def accepted(self, lane: LaneProducer, next_wanted: int) -> None:
        """The lane stands: send again what the consumer does not hold."""
        missing = lane.to_resend(next_wanted)
        if missing is None:
            self.replace(lane, "the consumer has forgotten frames of it")
            return
        lane.ready = True
        lane.expired = False
        link = self._carrier.link_of(lane)
        for piece in missing:
            self._context.send_frame(link, piece.frame)
        self._context.touch(self._owner)

    def replace(self, lane: LaneProducer, reason: str) -> None:
        """Begin a newer incarnation of a lane whose consumer has no memory of it."""
        target = lane.target
        returned = self._retire(lane, reason)
        self._open(target)
        self._return(returned)
        self._context.touch(self._owner)

    def expired(self, lane: LaneProducer) -> None:
        """The lane's link has been down for too long."""
        lane.expired = True
        self._context.touch(self._owner)

    def close(self, reason: str) -> None:
        """Give up all lanes and all records: the instance is gone."""
        pieces: list[Piece] = []
        for lane in list(self.lanes.values()):
            pieces += self._retire(lane, reason)
        for queue in self._queues.values():
            while queue.pieces:
                pieces.append(queue.pop())
        for piece in pieces:
            self._context.budget.bytes -= len(piece.frame.body)
        if self._linger is not None:
            self._linger.cancel()

    def _open(self, target: Instance) -> None:
        consumer = InstanceKey(self._producer.pipeline, target.stage, target.index)
        name = LaneName(
            self._producer.pipeline, self._version, self.edge.name, self._producer, consumer
        )
        local = target.sidecar_id == self._context.options.sidecar_id
        lane = LaneProducer(next(self._context.lane_numbers), name, self._term, target, local)
        lane.stale.update(self._stable.values())
        self.lanes[target.index] = lane
        self._carrier.attach(lane, self)

    def _retire(self, lane: LaneProducer, reason: str) -> list[Piece]:
        del self.lanes[lane.target.index]
        self._carrier.detach(lane, reason)
        lane.ready = False
        return lane.take_retained()

    def _reclaim(self, lane: LaneProducer) -> None:
        """Send elsewhere what an unreachable consumer has not ended, if there is an elsewhere."""
        if self.edge.keyed or not any(other.ready for other in self.lanes.values()):
            return
        self._return(lane.take_retained())

    def _return(self, pieces: Iterable[Piece]) -> None:
        """Put pieces, in their order, at the head of the queues they belong to now."""
        heads: defaultdict[int, list[Piece]] = defaultdict(list)
        for piece in pieces:
            if piece.abandoned:
                self._forget(piece)
                continue
            for index, part in self._by_consumer(piece):
                heads[index].append(part)
        for index, parts in heads.items():
            queue = self._queues[index]
            if not queue.pieces:
                queue.since_ms = self._context.now_ms
            for part in reversed(parts):
                queue.append_left(part)

    def _by_consumer(self, piece: Piece) -> list[tuple[int, Piece]]:
        """On a keyed edge cut a piece by consuming instance."""
        if not self.edge.keyed:
            return [(_ANYONE, piece)]
        indexes = sorted(self.lanes)
        hashes = piece.frame.key_hashes
        if not indexes:
            return [(_ANYONE, piece)]
        if len(indexes) == 1 or hashes is None:
            return [(indexes[0], piece)]
        places: defaultdict[int, list[int]] = defaultdict(list)
        for place, key in enumerate(hashes):
            places[indexes[key % KEY_GROUPS * len(indexes) // KEY_GROUPS]].append(place)
        if len(places) == 1:
            return [(next(iter(places)), piece)]
        parts = [(index, piece.fork(piece.frame.select(at))) for index, at in places.items()]
        piece.release()
        return parts

    def _choose(self, index: int) -> LaneProducer | None:
        """The lane that the head of a queue takes: below its credit, with the least outstanding."""
        if index != _ANYONE:
            lane = self.lanes.get(index)
            return lane if lane is not None and lane.may_send else None
        best: LaneProducer | None = None
        for lane in self.lanes.values():
            if lane.may_send and (best is None or _load(lane) < _load(best)):
                best = lane
        return best

    def _full_or_due(self, queue: WaitingLine, lane: LaneProducer) -> bool:
        options = self._context.options
        if (
            not lane.retained
            or queue.records >= options.frame_records
            or queue.bytes >= options.frame_bytes
        ):
            return True
        due = queue.since_ms + options.linger_ms
        if due <= self._context.now_ms:
            return True
        if self._linger is None:
            self._linger = self._context.timers.at(due, self._lingered)
        return False

    def _lingered(self) -> None:
        self._linger = None
        self._context.touch(self._owner)

    def _send(self, lane: LaneProducer, queue: WaitingLine) -> None:
        options = self._context.options
        pieces: list[Piece] = []
        records = size = 0
        while queue.pieces:
            frame = queue.pieces[0].frame
            full = (
                records + frame.count > options.frame_records
                or size + len(frame.body) > options.frame_bytes
            )
            if pieces and full:
                break
            piece = queue.pop()
            if piece.abandoned:
                self._forget(piece)
                continue
            pieces.append(piece)
            records += frame.count
            size += len(frame.body)
        queue.since_ms = self._context.now_ms
        if not pieces:
            return
        link = self._carrier.link_of(lane)
        if lane.stale:
            bundle = self._context.bundle(link)
            bundle.stable += [StableMark(origin, below) for origin, below in lane.stale.items()]
            lane.stale.clear()
        self._context.send_frame(link, lane.keep(merge_pieces(pieces)).frame)

    def _forget(self, piece: Piece) -> None:
        self._context.budget.bytes -= len(piece.frame.body)
        piece.release()


def _load(lane: LaneProducer) -> tuple[int, bool, int]:
    return lane.outstanding_bytes, not lane.local, lane.sent_records


def _same_place(old: Instance, new: Instance) -> bool:
    return (old.term, old.sidecar_id, old.endpoint, old.boot_id) == (
        new.term,
        new.sidecar_id,
        new.endpoint,
        new.boot_id,
    )
