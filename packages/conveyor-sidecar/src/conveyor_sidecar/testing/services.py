"""Simulated services: a source, transforms and sinks, well-behaved or not.

Every sidecar has a host of services beside it, which lives and dies apart from it. A call that was
under way when the service died may have had its effect; the caller cannot know.
"""

from __future__ import annotations

from collections.abc import Callable

from conveyor_sdk.carrier.frame import read_u64, write_u64
from conveyor_sidecar.core.effects import (
    CallService,
    GrantSourceCredit,
    OpenPartition,
    OpenSource,
)
from conveyor_sidecar.core.events import (
    CallFailed,
    CallFailureKind,
    CallFinished,
    Event,
    Failure,
    FailureKind,
    Outputs,
    Oversize,
    SourceBatchRead,
    SourceFailed,
    SourceFinished,
    SourceOpened,
    SourcePartitionFailed,
    SourceRevoked,
)
from conveyor_sidecar.core.routes import InstanceKey
from conveyor_sidecar.testing.ledger import Ledger
from conveyor_sidecar.testing.records import (
    Fate,
    SimStage,
    encode,
    fate,
    is_large,
    key_of,
    names_of,
    outputs_of,
    route_of,
    source_name,
)
from conveyor_sidecar.testing.scenario import Scenario
from conveyor_sidecar.testing.world import World

Report = Callable[[Event], None]


class SourceStream:
    """One stream of a simulated source."""

    def __init__(
        self, world: World, ledger: Ledger, opened: OpenSource, report: Report, faulty: bool
    ) -> None:
        self.source = opened.source
        self.stream = opened.stream
        self.alive = True
        self._world = world
        self._ledger = ledger
        self._scenario = ledger.scenario
        self._report = report
        self._faulty = faulty
        self._next: dict[str, int] = {}
        self._sent_records = self._sent_bytes = 0
        self._records_limit = self._bytes_limit = 0
        self._busy = False

    def open_partition(self, effect: OpenPartition) -> None:
        """Read a partition from a position."""
        self._next[effect.partition] = self._index(effect)
        self.wake()

    def revoke(self, partition: str) -> None:
        """Stop reading a partition."""
        self._next.pop(partition, None)
        self._say(SourceRevoked(self.source, self.stream, partition))

    def grant(self, effect: GrantSourceCredit) -> None:
        """More may be sent."""
        self._records_limit = max(self._records_limit, effect.records_limit)
        self._bytes_limit = max(self._bytes_limit, effect.bytes_limit)
        self.wake()

    def wake(self) -> None:
        """Send the next batch soon, if there is something to send."""
        if self._busy or not self.alive or not self._next:
            return
        self._busy = True
        wait = self._world.chance.randint(0, self._scenario.pace_ms)
        self._world.after(wait, self._send)

    def _index(self, effect: OpenPartition) -> int:
        if effect.from_start:
            return 0
        position = int.from_bytes(effect.resume, "big")
        return position // 3 if self._scenario.stable_offsets else position

    def _position(self, index: int) -> bytes:
        return (3 * index if self._scenario.stable_offsets else index).to_bytes(8, "big")

    def _send(self) -> None:
        self._busy = False
        if not self.alive or not self._next:
            return
        may = self._sent_records < self._records_limit and self._sent_bytes < self._bytes_limit
        if not may:
            return
        partition = self._world.chance.choice(sorted(self._next))
        first = self._next[partition]
        if self._misbehaves(partition):
            return
        end = min(self._scenario.records, first + self._world.chance.randint(1, 5))
        if first >= self._scenario.records:
            del self._next[partition]
            self._say(SourceFinished(self.source, self.stream, partition))
        else:
            self._emit(partition, first, end)
            self._next[partition] = end
        self.wake()

    def _emit(self, partition: str, first: int, end: int) -> None:
        names = [source_name(partition, index) for index in range(first, end)]
        fitting = [name for name in names if not is_large(name)]
        oversize: list[Oversize] = []
        before = 0
        for name in names:
            if is_large(name):
                oversize.append(Oversize(before, 10**9, name.encode()))
            else:
                before += 1
        body, lengths = encode(fitting)
        places = [i for i, n in zip(range(first, end), names, strict=True) if not is_large(n)]
        large = [i for i, n in zip(range(first, end), names, strict=True) if is_large(n)]
        stable = self._scenario.stable_offsets
        self._sent_records += len(names)
        self._sent_bytes += len(body)
        self._ledger.emitted(partition, end)
        self._say(
            SourceBatchRead(
                self.source,
                self.stream,
                partition,
                body,
                lengths,
                self._position(end),
                offsets=write_u64([3 * index for index in places]) if stable else b"",
                oversize=tuple(oversize),
                oversize_offsets=tuple([3 * index for index in large]) if stable else (),
                key_hashes=write_u64([key_of(name) for name in fitting]),
            )
        )

    def _misbehaves(self, partition: str) -> bool:
        if not self._faulty or not self._world.odds(0.08):
            return False
        choice = self._world.chance.randrange(3)
        if choice == 0:
            self.alive = False
            self._report(SourceFailed(self.source, self.stream, "the stream broke"))
        elif choice == 1:
            del self._next[partition]
            kind = self._world.chance.choice((FailureKind.RETRY, FailureKind.BUSY))
            self._say(SourcePartitionFailed(self.source, self.stream, partition, kind, "not now"))
            self.wake()
        else:
            # Records that nobody asked for, or the same ones again without being asked.
            body, lengths = encode(["stray"])
            self._say(
                SourceBatchRead(self.source, self.stream, "p9", body, lengths, b"", write_u64([0]))
            )
            self.wake()
        return True

    def _say(self, event: Event) -> None:
        if self.alive:
            self._report(event)


class ServiceHost:
    """The services beside one sidecar.

    Args:
        world: The clock.
        ledger: Where effects show.
    """

    def __init__(self, world: World, ledger: Ledger) -> None:
        self._world = world
        self._ledger = ledger
        self._scenario: Scenario = ledger.scenario
        self.flaky = "flaky" in self._scenario.faults
        self.up = True
        self.generation = 0
        self._calls: dict[tuple[Report, int], tuple[CallService, Report]] = {}
        self._streams: dict[tuple[InstanceKey, int], SourceStream] = {}

    def die(self) -> None:
        """All services of the host die; those who called hear of it."""
        self.up = False
        self.generation += 1
        self._ledger.fault()
        for call, report in self._calls.values():
            if self._world.odds(0.5):
                self._answer(call)
            report(CallFailed(call.call_id, CallFailureKind.LOST, "the service died"))
        self._calls.clear()
        for stream in self._streams.values():
            stream.alive = False
        self._streams.clear()

    def forget(self) -> None:
        """The sidecar died: its calls go on, its streams do not."""
        for stream in self._streams.values():
            stream.alive = False
        self._streams.clear()

    def stream(self, source: InstanceKey, number: int) -> SourceStream | None:
        """A source stream that is open."""
        return self._streams.get((source, number))

    def open_source(self, effect: OpenSource, report: Report) -> None:
        """Open a stream to the source."""
        if not self.up:
            report(SourceFailed(effect.source, effect.stream, "nobody listens"))
            return
        faulty = "source-failure" in self._scenario.faults and self.flaky_now
        stream = SourceStream(self._world, self._ledger, effect, report, faulty)
        self._streams[effect.source, effect.stream] = stream
        report(SourceOpened(effect.source, effect.stream))

    @property
    def flaky_now(self) -> bool:
        """Whether things still go wrong."""
        return self._world.now_ms < self._scenario.storm_ms

    def close_source(self, source: InstanceKey, number: int) -> None:
        """Close a stream."""
        stream = self._streams.pop((source, number), None)
        if stream is not None:
            stream.alive = False

    def call(self, effect: CallService, report: Report) -> None:
        """Answer a call, after a while."""
        if not self.up:
            kind = CallFailureKind.UNREACHABLE
            report(CallFailed(effect.call_id, kind, "nobody listens"))
            return
        key = (report, effect.call_id)
        self._calls[key] = (effect, report)
        generation = self.generation
        wait = self._world.chance.randint(0, 2 * self._scenario.latency_ms)
        trouble = self._world.chance.random() if self.flaky and self.flaky_now else 1.0
        if trouble < 0.03:
            return  # it never answers
        if trouble < 0.06:
            wait += 3 * effect.timeout_ms

        def answer() -> None:
            if generation != self.generation or self._calls.pop(key, None) is None:
                return
            if 0.06 <= trouble < 0.2:
                self._ledger.fault()
                report(self._trouble(effect, trouble))
            else:
                report(self._answer(effect))

        self._world.after(wait, answer)

    def cancel(self, report: Report, call_id: int) -> None:
        """The caller lost interest; the work may have been done."""
        found = self._calls.pop((report, call_id), None)
        if found is not None:
            self._ledger.fault()
            if self._world.odds(0.5):
                self._answer(found[0])

    def _answer(self, call: CallService) -> Event:
        """Do the work of a call and answer it."""
        stage = self._scenario.stages[call.instance.stage]
        names = names_of(call.frame)
        fates = [fate(stage, name) for name in names]
        if Fate.KILLER in fates:
            return CallFailed(call.call_id, CallFailureKind.LOST, "the service died of it")
        failures = [
            Failure(
                place,
                FailureKind.REJECT if end is Fate.REJECTED else FailureKind.RETRY,
                f"record {end.value}",
            )
            for place, end in enumerate(fates)
            if end is not Fate.FINE
        ]
        if self.flaky and self.flaky_now:
            failures = self._fail_some(names, failures)
        failed = {failure.index for failure in failures}
        if stage.kind == "sink":
            lineage = call.frame.lineage()
            for place, name in enumerate(names):
                if place not in failed:
                    self._ledger.wrote(stage.name, name, lineage[16 * place : 16 * place + 16])
            return CallFinished(call.call_id, None, tuple(failures))
        return CallFinished(call.call_id, _outputs(stage, names, failed), tuple(failures))

    def _fail_some(self, names: list[str], failures: list[Failure]) -> list[Failure]:
        failed = {failure.index for failure in failures}
        kinds = (FailureKind.RETRY, FailureKind.BUSY)
        for place in range(len(names)):
            if place not in failed and self._world.odds(0.05):
                kind = self._world.chance.choice(kinds)
                failures.append(Failure(place, kind, "not now", "", 20))
        self._world.chance.shuffle(failures)
        return failures

    def _trouble(self, call: CallService, trouble: float) -> Event:
        """An answer that is of no use."""
        count = call.frame.count
        number = call.call_id
        if trouble < 0.09:
            return CallFailed(number, CallFailureKind.BUSY, "too busy", "", 30)
        if trouble < 0.12:
            return CallFailed(number, CallFailureKind.ERROR, "internal error")
        if trouble < 0.14:
            return CallFailed(number, CallFailureKind.GARBAGE, "not a message")
        failure = Failure(count, FailureKind.RETRY, "of nobody")
        if trouble < 0.16 or self._scenario.stages[call.instance.stage].kind == "sink":
            return CallFinished(number, Outputs(b"", b"", ()), (failure,))
        body, lengths = encode(["stray"])
        return CallFinished(number, Outputs(body, lengths, (count,)), ())


def _outputs(stage: SimStage, names: list[str], failed: set[int]) -> Outputs:
    made: list[str] = []
    parents: list[int] = []
    for place, name in enumerate(names):
        if place in failed:
            continue
        for output in outputs_of(stage, name):
            made.append(output)
            parents.append(place)
    body, lengths = encode(made)
    routes = [route_of(stage, name) for name in made]
    return Outputs(
        body,
        lengths,
        parents,
        routes if stage.routes else (),
        write_u64([key_of(name) for name in made]),
    )


def position_index(position: bytes, stable_offsets: bool) -> int:
    """The index in the partition that a position stands for."""
    value = read_u64(position[::-1])[0] if position else 0
    return value // 3 if stable_offsets else value
