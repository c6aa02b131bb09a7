"""The two halves of a lane: what its producer keeps and what its consumer knows.

A lane carries frames from one instance to one instance under gap-free sequences. Its producer
keeps every frame until DONE; its consumer accepts exactly the next sequence, ignores an earlier
one (it is either open, then its end will be told, or ended, then DONE is said again: R4), and
never sees a later one, because links deliver in order. After a broken link a HELLO names the first
sequence that the producer still keeps, and its answer the first that the consumer does not hold.

An incarnation of a lane is named by its producer's boot id and a number that the producer never
uses twice. A consumer that hears of a newer incarnation begins anew. A consumer that has lost its
memory, which its boot id or an answer that contradicts the producer's memory shows, gets a newer
incarnation: what was kept is framed again, under new sequences, with the same lineage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from conveyor_sdk.carrier.lineage import Origin
from conveyor_sidecar.core.credit import Credit
from conveyor_sidecar.core.delivery import Holding, Piece
from conveyor_sidecar.core.messages import Done, LaneCredit, LaneOpen, StageInstance
from conveyor_sidecar.core.routes import Instance, InstanceKey


@dataclass(frozen=True, slots=True)
class LaneName:
    """What a lane connects, apart from its incarnation.

    Attributes:
        pipeline: Name of the pipeline.
        version: Its version.
        edge: Name of the edge.
        producer: Producing instance.
        consumer: Consuming instance.
    """

    pipeline: str
    version: int
    edge: str
    producer: InstanceKey
    consumer: InstanceKey


class LaneProducer:
    """The sending half.

    Attributes:
        number: Of this incarnation.
        name: What it connects.
        term: Of the producing instance.
        target: The consuming instance, as the table has it.
        local: It is on this very sidecar.
        ready: The consumer has accepted the lane on the link that stands.
        expired: The link has been down for longer than a resume may take.
        retained: Frames that are not done, by sequence, ascending.
        stale: Stable marks that the consumer does not know yet.
    """

    __slots__ = (
        "bytes_limit",
        "consumer_boot",
        "expired",
        "local",
        "name",
        "next_sequence",
        "number",
        "outstanding_bytes",
        "outstanding_records",
        "ready",
        "records_limit",
        "retained",
        "sent_bytes",
        "sent_records",
        "stale",
        "target",
        "term",
    )

    def __init__(
        self, number: int, name: LaneName, term: int, target: Instance, local: bool = False
    ) -> None:
        self.number = number
        self.name = name
        self.term = term
        self.target = target
        self.local = local
        self.ready = False
        self.expired = False
        self.consumer_boot = ""
        self.next_sequence = 1
        self.retained: dict[int, Piece] = {}
        self.outstanding_records = 0
        self.outstanding_bytes = 0
        self.sent_records = 0
        self.sent_bytes = 0
        self.records_limit = 0
        self.bytes_limit = 0
        self.stale: dict[Origin, int] = {}

    @property
    def may_send(self) -> bool:
        """Accepted, and below both limits."""
        return (
            self.ready
            and self.sent_records < self.records_limit
            and self.sent_bytes < self.bytes_limit
        )

    @property
    def first_open(self) -> int:
        """The first sequence that is not done."""
        return next(iter(self.retained), self.next_sequence)

    def opening(self) -> LaneOpen:
        """What a HELLO says of this lane."""
        name = self.name
        return LaneOpen(
            self.number,
            name.pipeline,
            name.version,
            name.edge,
            StageInstance(name.producer.stage, name.producer.number, self.term),
            StageInstance(name.consumer.stage, name.consumer.number, self.target.term),
            self.first_open,
            self.next_sequence,
        )

    def keep(self, piece: Piece) -> Piece:
        """Give the piece the next sequence and keep it; return it as it goes on the lane."""
        frame = piece.frame.on_lane(self.number, self.next_sequence, self.term)
        piece.frame = frame
        self.retained[self.next_sequence] = piece
        self.next_sequence += 1
        self.sent_records += frame.count
        self.sent_bytes += len(frame.body)
        self.outstanding_records += frame.count
        self.outstanding_bytes += len(frame.body)
        return piece

    def grant(self, credit: LaneCredit) -> None:
        """Take a grant; an older one changes nothing."""
        self.records_limit = max(self.records_limit, credit.records_limit)
        self.bytes_limit = max(self.bytes_limit, credit.bytes_limit)

    def take_done(self, done: Done) -> list[Piece]:
        """Return the pieces that are done and were not before.

        Nothing can be done that was not sent: a consumer that says so is not believed at all.
        """
        retained = self.retained
        if max([done.low, *[last for _, last in done.ranges]]) >= self.next_sequence:
            return []
        sequences: list[int] = []
        for sequence in retained:
            if sequence > done.low:
                break
            sequences.append(sequence)
        for first, last in done.ranges:
            first_used = max(first, done.low + 1)
            if last - first_used >= len(retained):
                sequences += [s for s in retained if first_used <= s <= last]
            else:
                sequences += [s for s in range(first_used, last + 1) if s in retained]
        pieces = [retained.pop(sequence) for sequence in dict.fromkeys(sequences)]
        for piece in pieces:
            self.outstanding_records -= piece.frame.count
            self.outstanding_bytes -= len(piece.frame.body)
        return pieces

    def take_retained(self) -> list[Piece]:
        """Give up all that is kept, in order: it goes elsewhere."""
        pieces = list(self.retained.values())
        self.retained.clear()
        self.outstanding_records = self.outstanding_bytes = 0
        return pieces

    def to_resend(self, next_wanted: int) -> list[Piece] | None:
        """Return what the consumer does not hold; None if it wants what is no longer kept."""
        missing = [piece for sequence, piece in self.retained.items() if sequence >= next_wanted]
        if next_wanted > self.next_sequence:
            return None
        return missing if len(missing) == self.next_sequence - next_wanted else None


class LaneOwner(Protocol):
    """Who hears that a frame of a lane has ended."""

    def frame_ended(self, lane: LaneConsumer, receipt: Receipt) -> None:
        """`receipt` has ended."""
        ...


class Receipt(Holding):
    """A frame that came on a lane and is in this sidecar's custody until it has ended.

    Attributes:
        lane: Where it came from.
        sequence: Its number there.
        records: How many records it has.
        size: Bytes of its body.
        since_ms: When it came.
        waiting: It has not been handed to the service with success yet.
    """

    __slots__ = ("lane", "records", "sequence", "since_ms", "size", "waiting")

    def __init__(self, lane: LaneConsumer, sequence: int, records: int, size: int) -> None:
        super().__init__()
        self.lane = lane
        self.sequence = sequence
        self.records = records
        self.size = size
        self.since_ms = 0
        self.waiting = True

    def on_end(self) -> None:
        """Its producer may forget it."""
        self.lane.finish(self)


class LaneConsumer:
    """The receiving half of one incarnation.

    Attributes:
        boot_id: Of the producer's process.
        number: Of the incarnation.
        name: What the lane connects.
        producer_term: Of the producing instance.
        link: Where the producer is heard at present, or None.
        closed: Given up by its producer, or replaced: what still comes on it is not heard.
        newer_term: If it was replaced, the term of the present producer.
        credit: What it may send.
        open: Frames that have not ended, by sequence.
        unsaid: Frames that ended since DONE was last said.
        unsaid_since_ms: When the first of them did.
    """

    __slots__ = (
        "_ended_above",
        "_ended_low",
        "boot_id",
        "closed",
        "credit",
        "link",
        "name",
        "newer_term",
        "next_sequence",
        "number",
        "open",
        "owner",
        "producer_term",
        "repeat",
        "unsaid",
        "unsaid_since_ms",
        "waiting_bytes",
        "waiting_records",
    )

    def __init__(
        self,
        owner: LaneOwner,
        name: LaneName,
        credit: Credit,
        *,
        boot_id: str,
        number: int,
        producer_term: int,
    ) -> None:
        self.owner = owner
        self.name = name
        self.boot_id = boot_id
        self.number = number
        self.producer_term = producer_term
        self.credit = credit
        self.link: str | None = None
        self.next_sequence = 1
        self.open: dict[int, Receipt] = {}
        self._ended_low = 0
        self._ended_above: set[int] = set()
        self.waiting_records = 0
        self.waiting_bytes = 0
        self.closed = False
        self.newer_term = 0
        self.unsaid = 0
        self.unsaid_since_ms = 0
        self.repeat = False

    def resume(self, first_open: int) -> list[Receipt]:
        """Take the producer's word for what it still keeps; return what it gave up."""
        given_up = [self.open[sequence] for sequence in self.open if sequence < first_open]
        if self._ended_low < first_open - 1:
            self._ended_low = first_open - 1
            self._close_gap()
        self.next_sequence = max(self.next_sequence, first_open)
        return given_up

    def accept(self, sequence: int, records: int, size: int) -> Receipt | None:
        """Take the next frame into custody; None for a repeated one.

        The caller has made sure that `sequence` is not above `next_sequence`.
        """
        if sequence < self.next_sequence:
            self.repeat = self.repeat or sequence not in self.open
            return None
        self.next_sequence += 1
        self.credit.receive(records, size)
        receipt = self.open[sequence] = Receipt(self, sequence, records, size)
        self.waiting_records += records
        self.waiting_bytes += size
        return receipt

    def finish(self, receipt: Receipt) -> None:
        """A frame has ended."""
        del self.open[receipt.sequence]
        if receipt.sequence > self._ended_low:
            self._ended_above.add(receipt.sequence)
            self._close_gap()
        self.unsaid += 1
        self.owner.frame_ended(self, receipt)

    def done(self) -> Done:
        """What has ended, all of it: cumulative, so that repeating it is harmless."""
        ranges: list[tuple[int, int]] = []
        for sequence in sorted(self._ended_above):
            if ranges and ranges[-1][1] == sequence - 1:
                ranges[-1] = (ranges[-1][0], sequence)
            else:
                ranges.append((sequence, sequence))
        return Done(self.number, self._ended_low, ranges)

    def limits(self) -> LaneCredit:
        """What the producer may send, in totals."""
        return LaneCredit(self.number, self.credit.records_limit, self.credit.bytes_limit)

    def _close_gap(self) -> None:
        above = self._ended_above
        while self._ended_low + 1 in above:
            self._ended_low += 1
            above.discard(self._ended_low)
        if above and min(above) <= self._ended_low:
            self._ended_above = {s for s in above if s > self._ended_low}
