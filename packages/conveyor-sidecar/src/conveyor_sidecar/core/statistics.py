"""What the engine counts: every way in and every way out of a stage has its own number (R10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class StageCounters:
    """Totals of one stage of one pipeline in this process, in records unless said otherwise.

    Attributes:
        read: From the source.
        received: On lanes, repeated frames not counted.
        called: Handed to the service, retries included.
        emitted: Given to out-edges; a record for two edges counts twice.
        written: Accepted by the sink.
        filtered: Inputs of a transform that ended without an output.
        dead: Stored as dead letters.
        unrouted: Outputs that no out-edge took.
        retried: Deliveries that were put off: retries and refusals.
        duplicates: Recognised at the sink as already written or under way.
        superseded: Of an older owner of their partition; the newer one reads them again.
        calls_failed: Calls without a usable answer.
        credit_wait_ms: Time for which records were ready and no consumer had credit for them.
    """

    read: int = 0
    received: int = 0
    called: int = 0
    emitted: int = 0
    written: int = 0
    filtered: int = 0
    dead: int = 0
    unrouted: int = 0
    retried: int = 0
    duplicates: int = 0
    superseded: int = 0
    calls_failed: int = 0
    credit_wait_ms: int = 0


@dataclass(slots=True)
class OpenRecords:
    """What a stage, or one instance of it, has in its custody at this moment.

    Attributes:
        records: Read or received, and not done.
        bytes: Of their bodies.
        since_ms: Since when the first of them; None if there is none.
    """

    records: int = 0
    bytes: int = 0
    since_ms: int | None = None

    def add(self, other: OpenRecords) -> None:
        """Count another instance's in."""
        self.records += other.records
        self.bytes += other.bytes
        self.since_ms = earliest([self.since_ms, other.since_ms])


def earliest(moments: Iterable[int | None]) -> int | None:
    """The first of the moments that are any."""
    return min([moment for moment in moments if moment is not None], default=None)


@dataclass(slots=True)
class LaneStatistics:
    """The present of one outgoing lane."""

    pipeline: str
    edge: str
    producer: int
    consumer: int
    peer: str
    ready: bool
    starved: bool
    retained_frames: int
    retained_bytes: int


@dataclass(slots=True)
class EngineStatistics:
    """A moment of one engine.

    Attributes:
        table_revision: Of the table it runs on.
        now_ms: The moment, on the engine's clock.
        records: Un-ended records, those ended above a low mark included.
        bytes: Retained bytes.
        promised_records: Records that others may still send.
        promised_bytes: The same in bytes.
        calls: Calls in flight.
        waiting_records: Received records that wait for a service.
        uncommitted: Ended records whose position is not committed.
        dead_letters_pending: Dead letters on their way to the disk.
        lanes: The outgoing lanes.
        stages: Counters by (pipeline, stage).
        open: What is in custody, by (pipeline, stage).
    """

    table_revision: int = 0
    now_ms: int = 0
    records: int = 0
    bytes: int = 0
    promised_records: int = 0
    promised_bytes: int = 0
    calls: int = 0
    waiting_records: int = 0
    uncommitted: int = 0
    dead_letters_pending: int = 0
    lanes: list[LaneStatistics] = field(default_factory=list)
    stages: dict[tuple[str, str], StageCounters] = field(default_factory=dict)
    open: dict[tuple[str, str], OpenRecords] = field(default_factory=dict)
