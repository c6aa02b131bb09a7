"""A simulated sidecar: the engine under test, and a shell that performs its effects.

The shell may die between any two effects. Everything that it reports to the engine arrives as an
event of its own, in the order of virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from conveyor_sidecar.core import effects as fx
from conveyor_sidecar.core.engine import Engine
from conveyor_sidecar.core.events import (
    DeadLetterFailed,
    DeadLetterStored,
    Event,
    LinkDown,
    PositionsCommitted,
    PositionsFailed,
    ServiceDown,
    ServiceUp,
    TableChanged,
    Tick,
)
from conveyor_sidecar.core.options import EngineOptions
from conveyor_sidecar.testing.ledger import Broken, Ledger
from conveyor_sidecar.testing.network import Network
from conveyor_sidecar.testing.records import LARGE_BYTES, names_of
from conveyor_sidecar.testing.router import Router
from conveyor_sidecar.testing.scenario import Scenario
from conveyor_sidecar.testing.services import ServiceHost
from conveyor_sidecar.testing.world import World

FRAME_BYTES = 500
"""Bytes of a frame in the simulated worlds."""


class Reporter:
    """The way back into one life of a sidecar: what is reported to a dead one is not heard."""

    def __init__(self, sidecar: SimSidecar, boot: int) -> None:
        self._sidecar = sidecar
        self.boot = boot

    def __call__(self, event: Event) -> None:
        """Report an event."""
        self._sidecar.world.after(0, lambda: self._sidecar.handle(self, event))


class SimSidecar:
    """One sidecar with its host of services, through all its lives.

    Args:
        name: Its id.
        world: The clock.
        network: Its links.
        ledger: The laws.
    """

    def __init__(self, name: str, world: World, network: Network, ledger: Ledger) -> None:
        self.name = name
        self.world = world
        self.alive = False
        self.isolated = False
        self.draining = False
        self.boot = 0
        self.host = ServiceHost(world, ledger)
        self.report = Reporter(self, 0)
        self.engine: Engine | None = None
        self.peers: dict[str, SimSidecar] = {}
        self.router: Router | None = None
        self.on_drained: Callable[[], None] = self.die
        self.on_death: Callable[[str], None] = lambda name: None
        self._network = network
        self._ledger = ledger
        self._scenario: Scenario = ledger.scenario
        self._tick_ms: int | None = None
        self._handled = 0

    def start(self) -> None:
        """Begin a life, with an empty memory."""
        self.boot += 1
        self.alive = True
        self.draining = False
        self.report = Reporter(self, self.boot)
        scenario = self._scenario
        options = EngineOptions(
            self.name,
            f"{self.name}-{self.boot}",
            records_max=4 * scenario.stage_records,
            stage_records_max=scenario.stage_records,
            retained_bytes_max=scenario.retained_bytes,
            record_bytes_max=LARGE_BYTES - 1,
            frame_records=scenario.frame_records,
            frame_bytes=FRAME_BYTES,
            lane_window_bytes_max=4 * FRAME_BYTES,
            linger_ms=2,
            resume_ms=600,
            reconnect_min_ms=10,
            reconnect_max_ms=200,
            commit_interval_ms=40,
            commit_retry_ms=40,
            dead_letter_retry_ms=50,
            call_grace_ms=20,
        )
        self.engine = Engine(options, Random(self.world.chance.random()))
        self._tick_ms = None
        if self.host.up:
            self.services_up()

    def die(self, with_services: bool = False) -> None:
        """End this life at once."""
        if not self.alive:
            return
        self.alive = False
        self.engine = None
        self._ledger.fault()
        self._network.cut_all(self.report)
        self.host.forget()
        if with_services:
            self.host.die()
        self.world.say(f"{self.name} dies")
        self.on_death(self.name)

    def services_up(self) -> None:
        """The services beside it answer."""
        for stage in self._scenario.stages:
            self.report(ServiceUp(f"{self.name}/{stage}", self._scenario.concurrency))

    def services_down(self) -> None:
        """It has noticed that the services are gone."""
        for stage in self._scenario.stages:
            self.report(ServiceDown(f"{self.name}/{stage}", "gone"))

    def handle(self, report: Reporter, event: Event) -> None:
        """Give an event to the engine and perform what it wants."""
        if report is not self.report or self.engine is None:
            return
        wanted = self.engine.handle(event, self.world.now_ms)
        self.world.say(f"{self.name} {type(event).__name__} {len(wanted)}")
        self._check_bounds()
        for effect in wanted:
            if self._dies_here():
                self.die()
                return
            _PERFORM[type(effect)](self, effect)
        self._schedule_tick()

    def check_quiet(self) -> None:
        """When everything has ended nothing may be held."""
        if self.engine is None:
            return
        now = self.engine.statistics()
        held = (now.records, now.bytes, now.calls, now.waiting_records, now.dead_letters_pending)
        if any(held) or any(lane.retained_frames for lane in now.lanes):
            raise Broken(f"{self.name} still holds something when everything has ended: {now}")

    def _dies_here(self) -> bool:
        storm = self.world.now_ms < self._scenario.storm_ms
        return storm and "crash" in self._scenario.faults and self.world.odds(0.002)

    def _check_bounds(self) -> None:
        self._handled += 1
        if self._handled % 8 or self.engine is None:
            return
        now = self.engine.statistics()
        scenario = self._scenario
        # Beyond the bound: a frame for every lane, a batch for every source, larger outputs.
        edges = [(stage.name, to) for stage in scenario.stages.values() for to in stage.targets]
        runs = scenario.parallelism
        lanes = sum(runs[of] * runs[to] for of, to in edges) + runs["reader"]
        records = now.records + now.promised_records
        if records > 4 * scenario.stage_records + lanes * (scenario.frame_records + 5):
            raise Broken(f"{self.name} holds or promised {records} records, above its bound")
        size = now.bytes + now.promised_bytes
        if size > 2 * scenario.retained_bytes + lanes * (FRAME_BYTES + 2 * LARGE_BYTES):
            raise Broken(f"{self.name} holds or promised {size} bytes, above its bound")
        if min(now.records, now.bytes, now.promised_records, now.promised_bytes) < 0:
            raise Broken(f"{self.name} has a negative account: {now}")

    def _schedule_tick(self) -> None:
        if self.engine is None:
            return
        due = self.engine.next_deadline
        if due is None or (self._tick_ms is not None and self._tick_ms <= due):
            return
        self._tick_ms = due
        report = self.report

        def tick() -> None:
            if self._tick_ms == due and report is self.report:
                self._tick_ms = None
                self.handle(report, Tick())

        self.world.after(max(0, due - self.world.now_ms), tick)

    def _open_link(self, effect: fx.OpenLink) -> None:
        report = self.report
        wait = self.world.chance.randint(0, self._scenario.latency_ms)

        def connect() -> None:
            peer = self.peers[effect.peer]
            if report is not self.report:
                return
            address = self._scenario.address(peer.name, peer.boot)
            if not peer.alive or effect.endpoint != address:
                report(LinkDown(effect.link, True, "connection refused"))
            else:
                self._network.connect(effect.link, report, peer.report)

        self.world.after(wait, connect)

    def _close_link(self, effect: fx.CloseLink) -> None:
        self._network.close(self.report, effect.link)

    def _send(self, effect: fx.SendLaneMessage) -> None:
        self._network.send(self.report, effect.link, effect.message)

    def _call(self, effect: fx.CallService) -> None:
        self.host.call(effect, self.report)

    def _cancel(self, effect: fx.CancelCall) -> None:
        self.host.cancel(self.report, effect.call_id)

    def _open_source(self, effect: fx.OpenSource) -> None:
        self.host.open_source(effect, self.report)

    def _close_source(self, effect: fx.CloseSource) -> None:
        self.host.close_source(effect.source, effect.stream)

    def _open_partition(self, effect: fx.OpenPartition) -> None:
        stream = self.host.stream(effect.source, effect.stream)
        if stream is not None:
            stream.open_partition(effect)

    def _revoke_partition(self, effect: fx.RevokePartition) -> None:
        stream = self.host.stream(effect.source, effect.stream)
        if stream is not None:
            stream.revoke(effect.partition)

    def _grant(self, effect: fx.GrantSourceCredit) -> None:
        stream = self.host.stream(effect.source, effect.stream)
        if stream is not None:
            stream.grant(effect)

    def _store(self, effect: fx.StoreDeadLetter) -> None:
        report = self.report
        storm = self.world.now_ms < self._scenario.storm_ms
        fails = storm and "letter-failure" in self._scenario.faults and self.world.odds(0.5)

        def store() -> None:
            if fails:
                report(DeadLetterFailed(effect.letter_id, "disk full"))
                return
            if report is not self.report:
                return
            names = names_of(effect.frame)
            if effect.tombstone is not None:
                names = [effect.tombstone.sha256.decode()]
            for name in names:
                self._ledger.buried(effect.instance.stage, name)
            report(DeadLetterStored(effect.letter_id))

        self.world.after(self.world.chance.randint(0, self._scenario.latency_ms), store)

    def _commit(self, effect: fx.CommitPositions) -> None:
        report = self.report
        wait = self.world.chance.randint(0, self._scenario.latency_ms)

        def commit() -> None:
            router = self.router
            assert router is not None
            if not router.up or self.isolated:
                report(PositionsFailed(effect.request_id, "no leader"))
                return
            refused = router.commit(effect.positions)
            storm = self.world.now_ms < self._scenario.storm_ms
            if storm and "router-outage" in self._scenario.faults and self.world.odds(0.2):
                report(PositionsFailed(effect.request_id, "no answer"))
            else:
                report(PositionsCommitted(effect.request_id, refused))

        self.world.after(wait, commit)

    def _drained(self, effect: fx.Drained) -> None:
        self.on_drained()

    def _ignore(self, effect: fx.Effect) -> None:
        """Nothing of the simulated world depends on it."""

    def learn(self) -> None:
        """Get the present table, if the routers can be heard and know this process."""
        router = self.router
        if self.alive and not self.isolated and router and router.boots[self.name] == self.boot:
            self.report(TableChanged(router.table(self.name)))


_PERFORM: dict[type, Callable[[SimSidecar, Any], None]] = {
    fx.OpenLink: SimSidecar._open_link,
    fx.CloseLink: SimSidecar._close_link,
    fx.SendLaneMessage: SimSidecar._send,
    fx.CallService: SimSidecar._call,
    fx.CancelCall: SimSidecar._cancel,
    fx.OpenSource: SimSidecar._open_source,
    fx.CloseSource: SimSidecar._close_source,
    fx.OpenPartition: SimSidecar._open_partition,
    fx.RevokePartition: SimSidecar._revoke_partition,
    fx.GrantSourceCredit: SimSidecar._grant,
    fx.StoreDeadLetter: SimSidecar._store,
    fx.CommitPositions: SimSidecar._commit,
    fx.Drained: SimSidecar._drained,
    fx.EndedUpTo: SimSidecar._ignore,
    fx.Note: SimSidecar._ignore,
    fx.PartitionCompleted: SimSidecar._ignore,
}
