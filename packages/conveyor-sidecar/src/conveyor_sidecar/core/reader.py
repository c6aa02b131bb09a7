"""One source instance at work: its stream to the service, its partitions, its credit.

The sidecar drives the source: it opens partitions at a position, grants credit, and tells what has
ended. A stream that breaks, or that breaks the contract, is opened again after a back-off, and
every partition is read on from the position after the last batch that arrived; nothing that was
emitted is lost with the stream, since what did not arrive was not counted.

Named records (above the limit) are dead letters that take an ordinal like any other.
"""

from __future__ import annotations

from conveyor_sidecar.core.batches import BatchRefused, number_batch
from conveyor_sidecar.core.commits import Commits
from conveyor_sidecar.core.context import Context
from conveyor_sidecar.core.credit import Credit
from conveyor_sidecar.core.delivery import Piece
from conveyor_sidecar.core.effects import (
    CloseSource,
    EndedUpTo,
    GrantSourceCredit,
    OpenPartition,
    OpenSource,
    PartitionCompleted,
    PositionCommit,
    RevokePartition,
)
from conveyor_sidecar.core.events import (
    FailureKind,
    ServiceUp,
    SourceBatchRead,
    SourcePartitionFailed,
)
from conveyor_sidecar.core.letters import DeadLetters
from conveyor_sidecar.core.outbox import LaneCarrier
from conveyor_sidecar.core.outputs import Exits
from conveyor_sidecar.core.positions import Partition, PartitionState, Reading
from conveyor_sidecar.core.retry import backoff_ms
from conveyor_sidecar.core.routes import (
    Instance,
    InstanceKey,
    PartitionKey,
    Pipeline,
    RetryPolicy,
    Stage,
)
from conveyor_sidecar.core.statistics import OpenRecords, earliest
from conveyor_sidecar.core.timers import Timer


class Reader:
    """A source instance that this sidecar runs.

    Args:
        context: The engine's.
        carrier: The links.
        letters: Dead letters on their way to the disk.
        commits: Where positions go.
        pipeline: Name and version of the pipeline, and its stages.
        instance: The assignment.
    """

    def __init__(
        self,
        context: Context,
        carrier: LaneCarrier,
        letters: DeadLetters,
        commits: Commits,
        *,
        pipeline: Pipeline,
        instance: Instance,
    ) -> None:
        self.key = InstanceKey(pipeline.name, instance.stage, instance.index)
        self.term = instance.term
        self.service_id = instance.service_id
        self.stage: Stage = pipeline.stages[instance.stage]
        self.service: ServiceUp | None = None
        self.partitions: dict[str, Partition] = {}
        self._context = context
        self._letters = letters
        self._commits = commits
        self._counters = context.counters(self.key)
        self.exits = Exits(context, carrier, letters, self)
        self._stream: int | None = None
        self._credit: Credit | None = None
        self._revoking: set[str] = set()
        self._fenced: dict[str, int] = {}
        self._failures = 0
        self._reopen: Timer | None = None
        self._policy = RetryPolicy(
            backoff_ms=context.options.reconnect_min_ms,
            backoff_max_ms=context.options.reconnect_max_ms,
        )

    @property
    def empty(self) -> bool:
        """Everything read has ended, and the source reads no more."""
        return all(
            partition.empty and partition.state is not PartitionState.READING
            for partition in self.partitions.values()
        )

    @property
    def open(self) -> OpenRecords:
        """What was read and has not ended."""
        partitions = self.partitions.values()
        return OpenRecords(
            sum([partition.held for partition in partitions]),
            sum([partition.held_bytes for partition in partitions]),
            earliest([partition.held_since_ms for partition in partitions]),
        )

    def update(self, pipeline: Pipeline, instance: Instance) -> None:
        """Take over what a newer table says about the same assignment."""
        self.stage = pipeline.stages[instance.stage]
        self.service_id = instance.service_id
        self.exits.update(pipeline)
        mine = {
            assigned.partition: assigned
            for assigned in pipeline.partitions
            if (assigned.stage, assigned.index) == (self.key.stage, self.key.number)
        }
        for name, partition in list(self.partitions.items()):
            assigned = mine.get(name)
            if assigned is None or assigned.term > partition.term:
                self.drop(partition)
        for name, assigned in mine.items():
            known = self.partitions.get(name)
            if known is not None:
                known.draining = assigned.draining
            elif not assigned.finished and assigned.term > self._fenced.get(name, -1):
                key = PartitionKey(self.key.pipeline, self.key.stage, name)
                stable = self.stage.stable_offsets
                left = self._context.left_off.get(key)
                if left is not None:
                    assigned = left.resume(assigned, stable)  # noqa: PLW2901
                self.partitions[name] = Partition(key, assigned, stable, self._reading_ended)
        self._context.touch(self)

    def drop(self, partition: Partition) -> None:
        """Another owner has the partition: stop reading it and forget what is under way."""
        if self.partitions.get(partition.key.partition) is not partition:
            return
        del self.partitions[partition.key.partition]
        self._revoke(partition)
        self._context.left_off[partition.key] = partition.left_off()
        self._context.budget.records -= partition.drop()
        self._context.touch(self)

    def fence(self, partition: Partition) -> None:
        """A commit was refused: the partition has a newer owner; only a newer term revives it."""
        self._fenced[partition.key.partition] = partition.term
        self.drop(partition)

    def close(self, reason: str) -> None:
        """The assignment is over."""
        for partition in list(self.partitions.values()):
            self.drop(partition)
        self._close_stream()
        if self._reopen is not None:
            self._reopen.cancel()
        self.exits.close(reason)
        self._letters.forget(self.key)

    def service_down(self) -> None:
        """The service is gone; its stream is opened again when it comes back."""
        self.service = None
        self._close_stream()

    def opened(self, stream: int) -> None:
        """The stream stands."""
        if stream == self._stream:
            self._context.touch(self)

    def batch(self, event: SourceBatchRead) -> None:
        """Take records into custody, if they are of a partition that is being read."""
        if event.stream != self._stream or self._credit is None:
            return
        count = len(event.lengths) // 4
        self._credit.receive(count + len(event.oversize), len(event.body))
        self._context.touch(self)
        partition = self.partitions.get(event.partition)
        if partition is None or event.partition in self._revoking:
            return
        if partition.state is not PartitionState.READING:
            self.failed(
                event.stream, f"it sent records of partition {event.partition!r} unasked", 0
            )
            return
        problem = self._take(partition, event, count)
        if problem:
            self.failed(event.stream, f"partition {event.partition!r}: {problem}", 0)

    def finished(self, stream: int, name: str) -> None:
        """A bounded partition has no more records."""
        partition = self._current(stream, name)
        if partition is not None:
            partition.state = PartitionState.FINISHED
            partition.read_out = True
            self._commits.add(partition)
            self._context.touch(self)

    def revoked(self, stream: int, name: str) -> None:
        """The source has stopped reading a partition."""
        if stream != self._stream:
            return
        self._revoking.discard(name)
        partition = self.partitions.get(name)
        if partition is not None and partition.state is PartitionState.REVOKING:
            partition.state = PartitionState.CLOSED
        self._context.touch(self)

    def partition_failed(self, event: SourcePartitionFailed) -> None:
        """The source cannot read a partition now, or ever."""
        partition = self._current(event.stream, event.partition)
        if partition is None:
            return
        self._context.note(
            "a source cannot read a partition",
            pipeline=self.key.pipeline,
            stage=self.key.stage,
            partition=event.partition,
            kind=event.kind.value,
            reason=event.reason,
        )
        partition.state = PartitionState.FAILED
        if event.kind is FailureKind.REJECT:
            return
        partition.failures += 1
        wait = backoff_ms(
            self._policy, partition.failures, event.retry_after_ms, self._context.chance
        )
        self._context.timers.at(self._context.now_ms + wait, lambda: self._again(partition))

    def failed(self, stream: int, reason: str, retry_after_ms: int) -> None:
        """The stream is of no more use: open another one later."""
        if stream != self._stream:
            return
        self._context.note(
            "the stream to a source failed and is opened again",
            pipeline=self.key.pipeline,
            stage=self.key.stage,
            service=self.service_id,
            reason=reason,
        )
        self._close_stream()
        self._failures += 1
        wait = backoff_ms(self._policy, self._failures, retry_after_ms, self._context.chance)
        self._reopen = self._context.timers.at(self._context.now_ms + wait, self._reopen_now)

    def settle(self) -> None:
        """Send, open, revoke and grant what can be."""
        self.exits.pump()
        wanted = [p for p in self.partitions.values() if self._wants(p)]
        for partition in self.partitions.values():
            if partition.state is PartitionState.READING and not self._wants(partition):
                self._revoke(partition)
        if self._stream is None and wanted and self.service is not None and self._reopen is None:
            self._open_stream()
        if self._stream is None:
            return
        for partition in wanted:
            name = partition.key.partition
            if partition.state is PartitionState.CLOSED and name not in self._revoking:
                self._open_partition(self._stream, partition)
        self._grant(self._stream)

    def committed(self, partition: Partition, commit: PositionCommit) -> None:
        """A position is recorded: the source may forget what is before it."""
        if self._stream is not None and commit.position:
            self._context.emit(
                EndedUpTo(self.key, self._stream, partition.key.partition, commit.position)
            )
        if commit.finished:
            self._context.emit(PartitionCompleted(partition.key))

    def _take(self, partition: Partition, event: SourceBatchRead, count: int) -> str:
        """Take a batch into custody; say what is wrong with it, if anything."""
        try:
            batch = number_batch(
                event, partition.origin, partition.next_ordinal, partition.stable_offsets
            )
        except BatchRefused as refused:
            return str(refused)
        self._failures = 0
        total = count + len(event.oversize)
        reading = partition.read(total, len(event.body), batch.end, event.position)
        reading.since_ms = self._context.now_ms
        self._context.budget.records += total
        self._counters.read += total
        piece = Piece(batch.frame, (reading,))
        for named, failure in batch.named:
            nothing = piece.fork(batch.frame.select([]))
            self._letters.bury(self, nothing, (failure,), named)
        if count:
            self.exits.spread(piece, batch.frame, [])
        piece.release()
        return ""

    def _reading_ended(self, partition: Partition, reading: Reading, passed: int) -> None:
        if partition.dropped:
            return
        self._context.budget.records -= passed
        if self._credit is not None:
            self._credit.drain.add(reading.records, reading.size, self._context.now_ms)
        if partition.due:
            self.exits.raise_stable(partition.origin, partition.low_ordinal)
            self._commits.add(partition)
        self._context.touch(self)

    def _current(self, stream: int, name: str) -> Partition | None:
        """The partition that a source speaks of, if it is being read."""
        partition = self.partitions.get(name)
        if stream != self._stream or name in self._revoking or partition is None:
            return None
        return partition if partition.state is PartitionState.READING else None

    def _wants(self, partition: Partition) -> bool:
        return not (
            self._context.draining
            or partition.draining
            or partition.state in (PartitionState.FINISHED, PartitionState.FAILED)
        )

    def _open_stream(self) -> None:
        self._stream = next(self._context.numbers)
        self._credit = Credit(self._context.options, self._context.budget, self._context.now_ms)
        self._context.emit(
            OpenSource(self.key, self._stream, self.term, self.service_id, self.stage.config)
        )

    def _close_stream(self) -> None:
        if self._stream is None:
            return
        self._context.emit(CloseSource(self.key, self._stream))
        self._stream = None
        self._revoking.clear()
        if self._credit is not None:
            self._credit.close()
            self._credit = None
        for partition in self.partitions.values():
            if partition.state in (PartitionState.READING, PartitionState.REVOKING):
                partition.state = PartitionState.CLOSED

    def _open_partition(self, stream: int, partition: Partition) -> None:
        partition.state = PartitionState.READING
        self._context.emit(
            OpenPartition(
                self.key,
                stream,
                partition.key.partition,
                partition.term,
                partition.position,
                partition.from_start,
            )
        )

    def _revoke(self, partition: Partition) -> None:
        if self._stream is None or partition.state is not PartitionState.READING:
            return
        name = partition.key.partition
        partition.state = PartitionState.REVOKING
        self._revoking.add(name)
        self._context.emit(RevokePartition(self.key, self._stream, name))

    def _grant(self, stream: int) -> None:
        credit = self._credit
        assert credit is not None
        if self._context.draining:
            return
        held = sum([partition.held for partition in self.partitions.values()])
        room = self._context.options.stage_records_max - held - credit.promised_records
        blocked = self.exits.blocked
        if blocked:
            room = 0
        idle = not held and not blocked
        if credit.renew(0, 0, room, idle=idle):
            self._context.emit(
                GrantSourceCredit(self.key, stream, credit.records_limit, credit.bytes_limit)
            )
        if not (credit.promised_records and credit.promised_bytes):
            self._context.starved[self] = None

    def _again(self, partition: Partition) -> None:
        if partition.state is PartitionState.FAILED:
            partition.state = PartitionState.CLOSED
            self._context.touch(self)

    def _reopen_now(self) -> None:
        self._reopen = None
        self._context.touch(self)
