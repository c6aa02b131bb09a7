"""The receiving end of an instance: its lanes, their credit, and what is said back on them.

Frames come in on lanes and become receipts. When a receipt has ended its lane owes its producer a
DONE; when credit is used up the lane owes a grant. Both are gathered: an idle lane answers at
once, a busy one when enough has come together or `_SAY_MS` have passed, since a message costs the
same whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass

from conveyor_sdk.carrier.frame import Frame
from conveyor_sidecar.core.context import LOCAL, Context, Part
from conveyor_sidecar.core.credit import Credit
from conveyor_sidecar.core.lane import LaneConsumer, LaneName, Receipt
from conveyor_sidecar.core.messages import LaneAccept, LaneOpen, LaneStatus
from conveyor_sidecar.core.routes import Pipeline
from conveyor_sidecar.core.statistics import OpenRecords, earliest
from conveyor_sidecar.core.timers import Timer

_SAY_MS = 5
_SAY_FRAMES = 64


@dataclass(frozen=True, slots=True)
class _Place:
    """A lane apart from its incarnation and its terms."""

    edge: str
    producer: int


class Intake:
    """All incoming lanes of one instance.

    Args:
        context: The engine's.
        owner: The instance; settled when something comes in or has ended.
    """

    def __init__(self, context: Context, owner: Part) -> None:
        self._context = context
        self._owner = owner
        self._lanes: dict[_Place, LaneConsumer] = {}
        self._say: Timer | None = None
        self.records = 0

    @property
    def open_records(self) -> OpenRecords:
        """What came and has not ended."""
        lanes = self._lanes.values()
        return OpenRecords(
            self.records,
            sum([receipt.size for lane in lanes for receipt in lane.open.values()]),
            earliest([next(iter(lane.open.values())).since_ms for lane in lanes if lane.open]),
        )

    @property
    def lanes(self) -> list[LaneConsumer]:
        """The present lanes."""
        return list(self._lanes.values())

    def open(
        self, opening: LaneOpen, name: LaneName, boot_id: str, link: str
    ) -> tuple[LaneConsumer | None, LaneAccept]:
        """Open or resume a lane that belongs here; return it with the answer for its producer."""
        place = _Place(name.edge, name.producer.number)
        lane = self._lanes.get(place)
        if lane is not None and opening.producer.term < lane.producer_term:
            answer = LaneAccept(opening.lane, LaneStatus.FENCED, newer_term=lane.producer_term)
            return None, answer
        if lane is not None and (lane.boot_id, lane.number) != (boot_id, opening.lane):
            if lane.boot_id == boot_id and opening.lane < lane.number:
                return None, LaneAccept(opening.lane, LaneStatus.NOT_MINE)
            self._give_up(place, opening.producer.term)
            lane = None
        if lane is None:
            context = self._context
            credit = Credit(context.options, context.budget, context.now_ms)
            lane = LaneConsumer(
                self,
                name,
                credit,
                boot_id=boot_id,
                number=opening.lane,
                producer_term=opening.producer.term,
            )
            self._lanes[place] = lane
        lane.link = link
        for receipt in lane.resume(opening.first_open_sequence):
            receipt.abandoned = True
        self._renew(lane, self._room())
        lane.unsaid = 0
        lane.repeat = False
        answer = LaneAccept(
            opening.lane,
            LaneStatus.OPEN,
            next_sequence=lane.next_sequence,
            done=lane.done(),
            credit=lane.limits(),
        )
        return lane, answer

    def update(self, pipeline: Pipeline) -> None:
        """Give up the lanes of producers that the table has replaced.

        One that it does not know may be newer than the table; its lane goes if it is silent.
        """
        terms = {(i.stage, i.index): i.term for i in pipeline.instances}
        for place, lane in list(self._lanes.items()):
            producer = lane.name.producer
            term = terms.get((producer.stage, producer.number))
            if term is None and lane.link is None:
                self._give_up(place)
            elif term is not None and term > lane.producer_term:
                self._give_up(place, term)

    def accept(self, lane: LaneConsumer, frame: Frame) -> Receipt | None:
        """Take a frame into custody; None for a repeated one."""
        receipt = lane.accept(frame.sequence, frame.count, len(frame.body))
        self._context.touch(self._owner)
        if receipt is not None:
            receipt.since_ms = self._context.now_ms
            self.records += frame.count
            self._context.budget.records += frame.count
        return receipt

    def worked_off(self, receipt: Receipt) -> None:
        """A frame of a lane no longer waits for the service: its window moves."""
        lane = receipt.lane
        if receipt.waiting:
            receipt.waiting = False
            lane.waiting_records -= receipt.records
            lane.waiting_bytes -= receipt.size
            lane.credit.drain.add(receipt.records, receipt.size, self._context.now_ms)

    def frame_ended(self, lane: LaneConsumer, receipt: Receipt) -> None:
        """See `lane.LaneOwner`."""
        self.worked_off(receipt)
        self.records -= receipt.records
        self._context.budget.records -= receipt.records
        if lane.unsaid == 1:
            lane.unsaid_since_ms = self._context.now_ms
        self._context.touch(self._owner)

    def end(self, lane: LaneConsumer) -> None:
        """The producer gave the lane up."""
        for place, present in self._lanes.items():
            if present is lane:
                self._give_up(place)
                return

    def settle(self) -> None:
        """Renew credit and say what is owed, or see to it that it is said in time."""
        room = self._room()
        for lane in self._lanes.values():
            if lane.link is None:
                continue
            promised = lane.credit.promised_records
            renewed = self._renew(lane, room)
            room -= lane.credit.promised_records - promised
            if not (renewed or lane.unsaid or lane.repeat):
                continue
            if renewed or self._now(lane):
                self._answer(lane, renewed)
            elif self._say is None:
                due = lane.unsaid_since_ms + _SAY_MS
                self._say = self._context.timers.at(due, self._due)

    def close(self) -> None:
        """The instance is gone: forget all lanes; nothing more is said on them."""
        for place in list(self._lanes):
            self._give_up(place)
        if self._say is not None:
            self._say.cancel()

    def _room(self) -> int:
        """Records that may still be promised to all lanes together."""
        promised = sum([lane.credit.promised_records for lane in self._lanes.values()])
        return self._context.options.stage_records_max - self.records - promised

    def _renew(self, lane: LaneConsumer, room: int) -> bool:
        context = self._context
        if context.draining:
            return False
        waiting = lane.waiting_records, lane.waiting_bytes
        renewed = lane.credit.renew(*waiting, room, idle=not lane.open)
        if not (lane.credit.promised_records and lane.credit.promised_bytes):
            context.starved[self._owner] = None
        return renewed

    def _now(self, lane: LaneConsumer) -> bool:
        return (
            not lane.open
            or lane.repeat
            or lane.unsaid >= _SAY_FRAMES
            or lane.link == LOCAL
            or self._context.has_bundle(lane.link or "")
            or lane.unsaid_since_ms + _SAY_MS <= self._context.now_ms
        )

    def _answer(self, lane: LaneConsumer, renewed: bool) -> None:
        assert lane.link is not None
        bundle = self._context.bundle(lane.link)
        if renewed:
            bundle.credits.append(lane.limits())
        if lane.unsaid or lane.repeat:
            bundle.done.append(lane.done())
            lane.unsaid = 0
            lane.repeat = False

    def _due(self) -> None:
        self._say = None
        self._context.touch(self._owner)

    def _give_up(self, place: _Place, newer_term: int = 0) -> None:
        lane = self._lanes.pop(place)
        lane.link = None
        lane.newer_term = newer_term
        lane.closed = True
        lane.credit.close()
        for receipt in lane.open.values():
            receipt.abandoned = True
