"""The engine of one sidecar: `handle` takes what happened and answers what to do.

The engine moves record frames from local sources and incoming lanes to local services and on to
outgoing lanes, and keeps the rules of the data plane:

* R1 custody: what was sent is kept until it is done (`delivery`, `lane`);
* R2 the root is the source: positions move over gap-free runs of ended records (`positions`);
* R3 two acks: credit and done never mean each other (`credit`, `intake`);
* R4, R5 repeated frames and records are recognised exactly (`lane`, `dedup`);
* R6 every identity has a term; an older one is fenced at every durable point;
* R8 nothing waits for the routers but commits and changes of owners;
* R10 every way out of a stage is counted (`statistics`).

It is pure: events and the time come in, effects go out, nothing else. Two engines that are given
the same events at the same times with the same chance do the same.

How a turn goes. Timers that are due run first, then the event changes the state of the parts that
it concerns; every part that was touched settles; words for the sidecar's own lanes are handled at
once; when nothing is left, the effects are returned. A table is compared with the one in force and
changes the runtime in one step: an assignment with another term, and everything of a pipeline with
another version, is dropped and begun anew, which custody makes safe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conveyor_sidecar.core import events
from conveyor_sidecar.core.commits import Commits
from conveyor_sidecar.core.context import LOCAL, Context
from conveyor_sidecar.core.effects import Drained, Effect, PositionCommit
from conveyor_sidecar.core.events import Event, ServiceUp
from conveyor_sidecar.core.letters import DeadLetters
from conveyor_sidecar.core.links import Links
from conveyor_sidecar.core.messages import LaneMessage
from conveyor_sidecar.core.options import Chance, EngineOptions
from conveyor_sidecar.core.positions import Partition
from conveyor_sidecar.core.reader import Reader
from conveyor_sidecar.core.reception import Reception
from conveyor_sidecar.core.routes import Instance, InstanceKey, Pipeline, StageKind, Table
from conveyor_sidecar.core.runner import Runner
from conveyor_sidecar.core.statistics import EngineStatistics, OpenRecords

_Handler = Callable[["Engine", Any], None]


class Engine:
    """Delivers records from local sources and incoming lanes to services and outgoing lanes.

    Args:
        options: Bounds and identity.
        chance: Jitter comes from it.
    """

    def __init__(self, options: EngineOptions, chance: Chance) -> None:
        self.options = options
        self.table = Table(revision=-1)
        self._context = Context(options, chance)
        self._services: dict[str, ServiceUp] = {}
        self._runners: dict[InstanceKey, Runner] = {}
        self._readers: dict[InstanceKey, Reader] = {}
        self._superseded: dict[InstanceKey, int] = {}
        self._drained = False
        self._letters = DeadLetters(self._context)
        self._links = Links(self._context)
        self._reception = Reception(self._context, self._runners)
        self._commits = Commits(self._context, self._position_committed, self._position_refused)

    @property
    def next_deadline(self) -> int | None:
        """When a `Tick` is due, in the milliseconds of `now_ms`; None: only on an event."""
        return self._context.timers.next_due_ms

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event and return the effects of it, to be performed in their order.

        Args:
            event: What happened.
            now_ms: A clock that never goes back, in milliseconds; its zero means nothing.
        """
        context = self._context
        context.now_ms = max(context.now_ms, now_ms)
        context.timers.run(context.now_ms)
        _HANDLERS[type(event)](self, event)
        self._settle()
        return context.take_effects()

    def statistics(self, now_ms: int = 0) -> EngineStatistics:
        """Return the counters and the present of everything, at `now_ms` if time has passed."""
        self._context.now_ms = max(self._context.now_ms, now_ms)
        budget = self._context.budget
        return EngineStatistics(
            table_revision=self.table.revision,
            now_ms=self._context.now_ms,
            records=budget.records,
            bytes=budget.bytes,
            promised_records=budget.promised_records,
            promised_bytes=budget.promised_bytes,
            calls=sum([runner.calls.open for runner in self._runners.values()]),
            waiting_records=sum([runner.calls.records for runner in self._runners.values()]),
            uncommitted=self._commits.uncommitted,
            dead_letters_pending=len(self._letters),
            lanes=self._links.statistics(),
            stages=dict(self._context.stages),
            open=self._open_records(),
        )

    def _open_records(self) -> dict[tuple[str, str], OpenRecords]:
        found: dict[tuple[str, str], OpenRecords] = {}
        for part in self._parts():
            part.exits.account_waiting()
            found.setdefault((part.key.pipeline, part.key.stage), OpenRecords()).add(part.open)
        return found

    def _settle(self) -> None:
        """Let every touched part settle, and the sidecar's own lanes talk, until all is quiet."""
        context = self._context
        budget = context.budget
        hungry = True
        while True:
            while context.touched:
                part = next(iter(context.touched))
                del context.touched[part]
                part.settle()
            while context.fenced:
                self._fence(*context.fenced.pop())
            message = context.take_local()
            if message is not None:
                self._lane_message(LOCAL, message)
            elif hungry and context.starved and not budget.exhausted:
                # Credit that was refused for want of room: once per turn they may ask again.
                hungry = False
                context.touched.update(context.starved)
                context.starved.clear()
            elif not context.touched:
                break
        if context.draining and not self._drained and self._idle():
            self._drained = True
            context.emit(Drained())

    def _parts(self) -> list[Reader | Runner]:
        return [*self._runners.values(), *self._readers.values()]

    def _idle(self) -> bool:
        return (
            self._commits.empty
            and not len(self._letters)
            and all(reader.empty and reader.exits.empty for reader in self._readers.values())
            and all(runner.empty for runner in self._runners.values())
        )

    # The table

    def _table_changed(self, event: events.TableChanged) -> None:
        table = event.table
        if table.revision <= self.table.revision:
            return
        old, self.table = self.table, table
        self._reception.table = table
        for name, pipeline in old.pipelines.items():
            present = table.pipelines.get(name)
            if present is None:
                self._close_pipeline(name, "the pipeline is no longer assigned here")
            elif present.version != pipeline.version:
                self._close_pipeline(name, "the pipeline has another version")
        for pipeline in table.pipelines.values():
            self._update_pipeline(pipeline)
        self._links.rehello()

    def _update_pipeline(self, pipeline: Pipeline) -> None:
        mine = {
            InstanceKey(pipeline.name, instance.stage, instance.index): instance
            for instance in pipeline.instances
            if instance.sidecar_id == self.options.sidecar_id
        }
        for key in [key for key in (*self._runners, *self._readers) if key[0] == pipeline.name]:
            instance = mine.get(key)
            present = self._runners.get(key) or self._readers.get(key)
            if present is not None and (instance is None or instance.term != present.term):
                self._close_instance(key, "the instance was assigned anew")
        for key, instance in mine.items():
            if instance.term <= self._superseded.get(key, -1):
                continue
            self._update_instance(key, pipeline, instance)

    def _update_instance(self, key: InstanceKey, pipeline: Pipeline, instance: Instance) -> None:
        self._superseded.pop(key, None)
        part: Reader | Runner
        if pipeline.stages[instance.stage].kind is StageKind.SOURCE:
            reader = self._readers.get(key)
            if reader is None:
                reader = self._readers[key] = Reader(
                    self._context,
                    self._links,
                    self._letters,
                    self._commits,
                    pipeline=pipeline,
                    instance=instance,
                )
            part = reader
        else:
            runner = self._runners.get(key)
            if runner is None:
                runner = self._runners[key] = Runner(
                    self._context, self._links, self._letters, pipeline, instance
                )
            part = runner
        part.update(pipeline, instance)
        part.service = self._services.get(instance.service_id)

    def _close_pipeline(self, name: str, reason: str) -> None:
        for key in [key for key in (*self._runners, *self._readers) if key.pipeline == name]:
            self._close_instance(key, reason)

    def _close_instance(self, key: InstanceKey, reason: str) -> None:
        part = self._runners.pop(key, None) or self._readers.pop(key, None)
        if part is not None:
            part.close(reason)
            self._context.touched.pop(part, None)
            self._context.starved.pop(part, None)

    def _fence(self, key: InstanceKey, newer_term: int) -> None:
        """A peer knows a newer owner of an instance of ours."""
        part = self._runners.get(key) or self._readers.get(key)
        if part is None or part.term >= newer_term:
            return
        self._superseded[key] = newer_term - 1
        self._context.note(
            "an instance has a newer owner; it is dropped here",
            pipeline=key.pipeline,
            stage=key.stage,
            instance=key.number,
            term=part.term,
            newer_term=newer_term,
        )
        self._close_instance(key, "the instance has a newer owner")

    # Services and their calls

    def _service_up(self, event: ServiceUp) -> None:
        self._services[event.service_id] = event
        for part in self._parts():
            if part.service_id == event.service_id:
                part.service = event
                self._context.touch(part)

    def _service_down(self, event: events.ServiceDown) -> None:
        self._services.pop(event.service_id, None)
        for runner in self._runners.values():
            if runner.service_id == event.service_id:
                runner.service = None
        for reader in self._readers.values():
            if reader.service_id == event.service_id:
                reader.service_down()

    def _call_finished(self, event: events.CallFinished) -> None:
        runner = self._caller(event.call_id)
        if runner is not None:
            runner.finished(event)

    def _call_failed(self, event: events.CallFailed) -> None:
        runner = self._caller(event.call_id)
        if runner is not None:
            runner.failed(event)

    def _caller(self, call_id: int) -> Runner | None:
        for runner in self._runners.values():
            if runner.calls.knows(call_id):
                return runner
        return None

    # Links and lanes

    def _link_up(self, event: events.LinkUp) -> None:
        self._links.on_up(event.link)

    def _link_down(self, event: events.LinkDown) -> None:
        self._context.drop_bundle(event.link)
        self._links.on_down(event.link, event.gone)
        self._reception.on_down(event.link)

    def _message_received(self, event: events.LaneMessageReceived) -> None:
        self._lane_message(event.link, event.message)

    def _lane_message(self, link: str, message: LaneMessage) -> None:
        """Handle a bundle, part by part, in the order that its producer relies on."""
        if message.hello is not None:
            self._reception.on_hello(link, message.hello)
        if message.hello_ack is not None:
            self._links.on_ack(link, message.hello_ack)
        for fenced in message.fenced:
            self._links.on_fenced(link, fenced.lane, fenced.newer_term)
        for credit in message.credits:
            self._links.on_credit(link, credit)
        for done in message.done:
            self._links.on_done(link, done)
        for mark in message.stable:
            self._reception.on_stable(link, mark)
        for frame in message.data:
            self._reception.on_data(link, frame)
        for end in message.ends:
            self._reception.on_end(link, end)

    # Sources and positions

    def _source_opened(self, event: events.SourceOpened) -> None:
        if (reader := self._readers.get(event.source)) is not None:
            reader.opened(event.stream)

    def _source_batch(self, event: events.SourceBatchRead) -> None:
        if (reader := self._readers.get(event.source)) is not None:
            reader.batch(event)

    def _source_finished(self, event: events.SourceFinished) -> None:
        if (reader := self._readers.get(event.source)) is not None:
            reader.finished(event.stream, event.partition)

    def _source_revoked(self, event: events.SourceRevoked) -> None:
        if (reader := self._readers.get(event.source)) is not None:
            reader.revoked(event.stream, event.partition)

    def _source_partition_failed(self, event: events.SourcePartitionFailed) -> None:
        if (reader := self._readers.get(event.source)) is not None:
            reader.partition_failed(event)

    def _source_failed(self, event: events.SourceFailed) -> None:
        if (reader := self._readers.get(event.source)) is not None:
            reader.failed(event.stream, event.reason, event.retry_after_ms)

    def _position_committed(self, partition: Partition, commit: PositionCommit) -> None:
        reader = self._reader_of(partition)
        if reader is not None:
            reader.committed(partition, commit)

    def _position_refused(self, partition: Partition, newer_term: int) -> None:
        self._context.note(
            "a partition has a newer owner; it is dropped here",
            pipeline=partition.key.pipeline,
            stage=partition.key.stage,
            partition=partition.key.partition,
            term=partition.term,
            newer_term=newer_term,
        )
        reader = self._reader_of(partition)
        if reader is not None:
            reader.fence(partition)

    def _reader_of(self, partition: Partition) -> Reader | None:
        for reader in self._readers.values():
            if reader.partitions.get(partition.key.partition) is partition:
                return reader
        return None

    # The rest

    def _letter_stored(self, event: events.DeadLetterStored) -> None:
        self._letters.on_stored(event.letter_id)

    def _letter_failed(self, event: events.DeadLetterFailed) -> None:
        self._letters.on_failed(event.letter_id, event.reason)

    def _positions_committed(self, event: events.PositionsCommitted) -> None:
        self._commits.on_committed(event)

    def _positions_failed(self, event: events.PositionsFailed) -> None:
        self._commits.on_failed(event.request_id)

    def _drain(self, event: events.Drain) -> None:
        self._context.draining = True
        self._context.touch(self._commits)
        for part in self._parts():
            self._context.touch(part)

    def _tick(self, event: events.Tick) -> None:
        """Nothing but the timers that `handle` has run."""


_HANDLERS: dict[type[Event], _Handler] = {
    events.TableChanged: Engine._table_changed,
    events.ServiceUp: Engine._service_up,
    events.ServiceDown: Engine._service_down,
    events.LinkUp: Engine._link_up,
    events.LinkDown: Engine._link_down,
    events.LaneMessageReceived: Engine._message_received,
    events.SourceOpened: Engine._source_opened,
    events.SourceBatchRead: Engine._source_batch,
    events.SourceFinished: Engine._source_finished,
    events.SourceRevoked: Engine._source_revoked,
    events.SourcePartitionFailed: Engine._source_partition_failed,
    events.SourceFailed: Engine._source_failed,
    events.CallFinished: Engine._call_finished,
    events.CallFailed: Engine._call_failed,
    events.DeadLetterStored: Engine._letter_stored,
    events.DeadLetterFailed: Engine._letter_failed,
    events.PositionsCommitted: Engine._positions_committed,
    events.PositionsFailed: Engine._positions_failed,
    events.Drain: Engine._drain,
    events.Tick: Engine._tick,
}
