"""The simulated routers: who runs what under which term, and which positions are committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed

from conveyor_sdk.carrier.frame import Frame
from conveyor_sidecar.core.effects import PositionCommit
from conveyor_sidecar.core.events import PositionRefusal
from conveyor_sidecar.core.routes import (
    BatchPolicy,
    Edge,
    Instance,
    Pipeline,
    RetryPolicy,
    SourcePartition,
    Stage,
    StageKind,
    Table,
)
from conveyor_sidecar.testing.ledger import Ledger
from conveyor_sidecar.testing.records import names_of, takes
from conveyor_sidecar.testing.scenario import Scenario
from conveyor_sidecar.testing.services import position_index
from conveyor_sidecar.testing.world import World

PIPELINE = "sim"


@dataclass(slots=True)
class _Position:
    term: int
    ordinal: int = 0
    position: bytes = b""
    finished: bool = False


class Router:
    """What the router cluster has agreed on.

    Args:
        world: The clock.
        ledger: Told of every position that is recorded.
        boots: The live boot of every sidecar.
    """

    def __init__(self, world: World, ledger: Ledger, boots: dict[str, int]) -> None:
        self._world = world
        self._ledger = ledger
        self._scenario: Scenario = ledger.scenario
        self.boots = boots
        self.revision = 1
        self.up = True
        self._term = 1
        self._version = 1
        self._instances: dict[tuple[str, int], Instance] = {}
        self._positions: dict[str, _Position] = {}
        self._readers: dict[str, int] = {}
        sidecars = sorted(boots)
        for stage, count in self._scenario.parallelism.items():
            for index in range(count):
                self._place(stage, index, world.chance.choice(sidecars))
        for partition in ledger.partitions:
            self._positions[partition] = _Position(self._next_term())
            self._readers[partition] = len(self._readers) % self._scenario.parallelism["reader"]
        self._stages = {name: self._stage(name) for name in self._scenario.stages}
        self._edges = tuple(
            Edge(
                stage.name,
                target,
                keyed=f"{stage.name}>{target}" in self._scenario.keyed,
                condition=_condition(f"{stage.name}>{target}") if target in stage.picky else None,
            )
            for stage in self._scenario.stages.values()
            for target in stage.targets
        )

    def runs(self, stage: str) -> list[str]:
        """The sidecars that run a stage."""
        return [i.sidecar_id for i in self._instances.values() if i.stage == stage]

    def table(self, sidecar: str) -> Table:
        """The table of one sidecar."""
        mine = [
            instance.index
            for instance in self._instances.values()
            if instance.stage == "reader" and instance.sidecar_id == sidecar
        ]
        partitions = [
            self._partition(name) for name in self._ledger.partitions if self._readers[name] in mine
        ]
        pipeline = Pipeline(
            PIPELINE,
            self._version,
            self._stages,
            self._edges,
            tuple(self._instances.values()),
            tuple(partitions),
        )
        return Table(self.revision, {PIPELINE: pipeline})

    def move(self, sidecar: str | None, live: list[str]) -> None:
        """Assign anew what `sidecar` runs, or any one instance if None, under newer terms."""
        if not live:
            return
        if sidecar is None:
            chosen = [self._world.chance.choice(sorted(self._instances))]
        else:
            chosen = [k for k, i in self._instances.items() if i.sidecar_id == sidecar]
        for stage, index in chosen:
            self._place(stage, index, self._world.chance.choice(live))
            if stage == "reader":
                for name in self._ledger.partitions:
                    if self._readers[name] == index:
                        self._positions[name].term = self._next_term()
        if chosen:
            self.revision += 1
            self._world.say(f"router moves {chosen}")

    def hand_over(self, partitions: list[str], away_from: str = "") -> None:
        """Give partitions to other readers under newer terms; all instances stay as they are."""
        readers = [i for i in self._instances.values() if i.stage == "reader"]
        others = [i.index for i in readers if i.sidecar_id != away_from]
        for partition in partitions:
            chosen = self._world.chance.choice(others or [0])
            self._readers[partition] = chosen
            self._positions[partition].term = self._next_term()
        self.revision += 1
        self._world.say(f"router hands {partitions} over")

    def change(self) -> None:
        """The pipeline has another version; who runs what stays as it is."""
        self._version += 1
        self.revision += 1
        self._world.say("the pipeline is changed")

    def commit(self, positions: tuple[PositionCommit, ...]) -> tuple[PositionRefusal, ...]:
        """Record positions; refuse those of older owners."""
        refused: list[PositionRefusal] = []
        for commit in positions:
            name = commit.partition.partition
            known = self._positions[name]
            if commit.term < known.term:
                refused.append(PositionRefusal(commit.partition, known.term))
                continue
            if commit.ordinal < known.ordinal:
                continue
            known.ordinal = commit.ordinal
            known.position = commit.position
            known.finished = known.finished or commit.finished
            end = position_index(commit.position, self._scenario.stable_offsets)
            self._world.say(f"commit {name} {end} {commit.finished}")
            self._ledger.commit(name, end, commit.finished)
        return tuple(refused)

    def _place(self, stage: str, index: int, sidecar: str) -> None:
        boot = self.boots[sidecar]
        self._instances[stage, index] = Instance(
            stage,
            index,
            self._next_term(),
            sidecar,
            self._scenario.address(sidecar, boot),
            f"{sidecar}/{stage}",
            boot_id=f"{sidecar}-{boot}" if self._world.odds(0.5) else "",
        )

    def _partition(self, name: str) -> SourcePartition:
        known = self._positions[name]
        return SourcePartition(
            "reader",
            self._readers[name],
            name,
            known.term,
            resume=known.position,
            from_start=not known.position,
            next_ordinal=known.ordinal,
            finished=known.finished,
        )

    def _stage(self, name: str) -> Stage:
        stage = self._scenario.stages[name]
        policy = RetryPolicy(attempts=5, backoff_ms=10, backoff_max_ms=200)
        batch = BatchPolicy(records=2 * self._scenario.frame_records, bytes=2_000)
        made = Stage(name, StageKind(stage.kind), policy, batch, timeout_ms=300)
        return changed(made, stable_offsets=self._scenario.stable_offsets)

    def _next_term(self) -> int:
        self._term += 1
        return self._term


def _condition(edge: str) -> Callable[[Frame], Sequence[int]]:
    def holds(frame: Frame) -> Sequence[int]:
        return [place for place, name in enumerate(names_of(frame)) if takes(edge, name)]

    return holds
