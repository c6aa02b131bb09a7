"""A source partition: what was read of it, what has ended, and what is committed (R2).

Batches are in custody in the order in which they were read. The low mark is the end of the last
batch before which nothing is open; it is the only thing that is ever committed, under the
partition's term, and a refusal means that the partition has another owner. Everything below the
low mark is stable: sinks may forget it.

Ordinals number the records of a partition in the order in which they were read, by this sidecar
and its predecessors; with stable offsets the source's own offsets take their place. Either only
ever grows, so that the routers can tell an older commit from a newer one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from conveyor_sdk.carrier.lineage import Origin
from conveyor_sidecar.core.delivery import Holding
from conveyor_sidecar.core.effects import PositionCommit
from conveyor_sidecar.core.routes import PartitionKey, SourcePartition


class PartitionState(Enum):
    """Where a partition stands with its source."""

    CLOSED = "closed"  # not asked for on the present stream
    READING = "reading"  # asked for
    REVOKING = "revoking"  # told to stop, and the answer is awaited
    FINISHED = "finished"  # bounded, and read to its end
    FAILED = "failed"  # the source will never read it


class Reading(Holding):
    """A batch read from a source, until everything in it has ended.

    Attributes:
        partition: Where it was read.
        records: How many records, named ones included.
        size: Bytes of their bodies.
        end_ordinal: First ordinal after the batch.
        end_position: Where reading resumes after the batch.
        since_ms: When it was read.
    """

    __slots__ = ("end_ordinal", "end_position", "partition", "records", "since_ms", "size")

    def __init__(
        self, partition: Partition, records: int, size: int, end_ordinal: int, end_position: bytes
    ) -> None:
        super().__init__()
        self.partition = partition
        self.records = records
        self.size = size
        self.end_ordinal = end_ordinal
        self.end_position = end_position
        self.since_ms = 0

    def on_end(self) -> None:
        """The partition's low mark may move."""
        self.partition.on_end(self)


@dataclass(frozen=True, slots=True)
class LeftOff:
    """Where this process left off a partition that it may read again under the same term.

    Another reading under the same term begins at the low mark, and it may meet other records than
    the first did; so ordinals, and with them identities, are never given twice. Stable offsets are
    the source's own and name the same records again.
    """

    term: int
    next_ordinal: int
    low_ordinal: int
    low_position: bytes

    def resume(self, assigned: SourcePartition, stable_offsets: bool) -> SourcePartition:
        """Return the assignment, going on from here if it is the same one."""
        if assigned.term != self.term:
            return assigned
        return replace(
            assigned,
            resume=self.low_position,
            from_start=not self.low_position,
            next_ordinal=self.low_ordinal if stable_offsets else self.next_ordinal,
        )


class Partition:
    """One source partition that this sidecar owns.

    Args:
        key: Its name.
        assigned: What the table says: term, where to begin.
        stable_offsets: Identity leaves out the term.
        on_ended: Called when a batch has ended, with the records that the low mark passed.

    Attributes:
        position: Where reading resumes after what was read.
        next_ordinal: First ordinal after what was read.
        low_ordinal: First ordinal that may not have ended.
        low_position: Where reading would resume there.
        read_out: The source has said that nothing follows.
        held: Records that have not passed the low mark.
        dropped: Another owner has it: nothing here matters any more.
    """

    def __init__(
        self,
        key: PartitionKey,
        assigned: SourcePartition,
        stable_offsets: bool,
        on_ended: Callable[[Partition, Reading, int], None],
    ) -> None:
        self.key = key
        self.term = assigned.term
        self.replay_id = assigned.replay_id
        self.draining = assigned.draining
        self.stable_offsets = stable_offsets
        self.origin = Origin(
            key.pipeline,
            key.stage,
            key.partition,
            assigned.replay_id,
            0 if stable_offsets else assigned.term,
        )
        self.state = PartitionState.CLOSED
        self.from_start = assigned.from_start
        self.position = self.low_position = assigned.resume
        self.next_ordinal = self.low_ordinal = assigned.next_ordinal
        self.read_out = False
        self.held = 0
        self.held_bytes = 0
        self.dropped = False
        self.failures = 0
        self.committed_ordinal = assigned.next_ordinal
        self.committed_end = False
        self._on_ended = on_ended
        self._readings: deque[Reading] = deque()

    @property
    def empty(self) -> bool:
        """Everything read has ended."""
        return not self._readings

    @property
    def uncommitted(self) -> int:
        """Ordinals that have ended and are not committed."""
        return self.low_ordinal - self.committed_ordinal

    @property
    def due(self) -> bool:
        """Something is to be committed."""
        return not self.dropped and (
            self.low_ordinal > self.committed_ordinal
            or (self.read_out and self.empty and not self.committed_end)
        )

    def read(self, records: int, size: int, end_ordinal: int, position: bytes) -> Reading:
        """Take a batch into custody."""
        reading = Reading(self, records, size, end_ordinal, position)
        self._readings.append(reading)
        self.held += records
        self.held_bytes += size
        self.next_ordinal = end_ordinal
        self.position = position
        self.from_start = False
        self.failures = 0
        return reading

    def on_end(self, reading: Reading) -> None:
        """A batch has ended: move the low mark over all that have ended in a row."""
        readings = self._readings
        held = self.held
        while readings and readings[0].ended:
            passed = readings.popleft()
            self.low_ordinal = passed.end_ordinal
            self.low_position = passed.end_position
            self.held -= passed.records
            self.held_bytes -= passed.size
        self._on_ended(self, reading, held - self.held)

    @property
    def held_since_ms(self) -> int | None:
        """When the first batch that is still held was read."""
        return self._readings[0].since_ms if self._readings else None

    def commit(self) -> PositionCommit:
        """What may be committed now."""
        finished = self.read_out and self.empty
        return PositionCommit(
            self.key, self.replay_id, self.term, self.low_ordinal, self.low_position, finished
        )

    def committed(self, commit: PositionCommit) -> None:
        """A commit of this owner was taken."""
        self.committed_ordinal = max(self.committed_ordinal, commit.ordinal)
        self.committed_end = self.committed_end or commit.finished

    def left_off(self) -> LeftOff:
        """Where another reading under the same term goes on."""
        return LeftOff(self.term, self.next_ordinal, self.low_ordinal, self.low_position)

    def drop(self) -> int:
        """Another owner has it, or will: forget it; return the records that were held."""
        self.dropped = True
        for reading in self._readings:
            reading.abandoned = True
        held, self.held = self.held, 0
        return held
