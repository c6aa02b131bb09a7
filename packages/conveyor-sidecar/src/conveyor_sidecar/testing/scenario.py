"""What a seed means: a pipeline, who runs it, how large everything is, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from conveyor_sidecar.testing.records import SimStage

STAGES = ("reader", "parse", "enrich", "audit", "store", "archive")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One world.

    Attributes:
        seed: Reproduces everything.
        stages: The pipeline.
        parallelism: Instances by stage.
        sidecars: Number of sidecars; every one can run every stage.
        partitions: Number of source partitions.
        records: Records in each.
        stable_offsets: The source declares them.
        keyed: Edges that are keyed.
        faults: What goes wrong at all: a set of the names in `FAULTS`.
        storm_ms: Faults happen until then; afterwards everything heals.
        latency_ms: Of the network and the services, at most.
        pace_ms: Between two batches of a source, at most.
        fixed_addresses: A sidecar that comes back listens where it did before.
        concurrency: Calls that a service takes at a time.
        frame_records: See `EngineOptions`.
        stage_records: See `EngineOptions.stage_records_max`.
        retained_bytes: See `EngineOptions.retained_bytes_max`.
    """

    seed: int
    stages: dict[str, SimStage]
    parallelism: dict[str, int]
    sidecars: int
    partitions: int
    records: int
    stable_offsets: bool
    keyed: frozenset[str]
    faults: frozenset[str]
    storm_ms: int
    latency_ms: int
    pace_ms: int
    fixed_addresses: bool
    concurrency: int
    frame_records: int
    stage_records: int
    retained_bytes: int

    def address(self, sidecar: str, boot: int) -> str:
        """Where a sidecar listens in one of its lives."""
        return sidecar if self.fixed_addresses else f"{sidecar}:{boot}"


FAULTS = (
    "crash",  # sidecars die, at any step, and come back with nothing
    "cut",  # links break; what is under way on them arrives late or not at all
    "repeat",  # messages arrive twice
    "service-crash",  # services die, with or without having done their work
    "flaky",  # services refuse, fail, answer garbage, answer late or never
    "reassign",  # instances and partitions move while their owners are alive
    "zombie",  # a sidecar is cut off from the routers for a while, and its work is given to others
    "router-outage",  # commits fail, or succeed unheard
    "letter-failure",  # dead letters cannot be stored for a while
    "source-failure",  # source streams break, partitions fail for a while
    "new-version",  # the pipeline is changed while records flow
    "drain",  # a sidecar drains, then leaves and comes back
)


def scenario(seed: int) -> Scenario:
    """The world of a seed."""
    chance = Random(seed)
    stages = _pipeline(chance)
    parallelism = {name: chance.choice((1, 1, 2, 3)) for name in stages}
    partitions = chance.randint(1, 3)
    parallelism["reader"] += chance.randint(0, 1)
    parallelism["reader"] = min(parallelism["reader"], partitions)
    edges = [f"{stage.name}>{target}" for stage in stages.values() for target in stage.targets]
    keyed = frozenset(edge for edge in edges if chance.random() < 0.15)
    if chance.random() < 0.12:
        faults: frozenset[str] = frozenset()
    elif chance.random() < 0.15:
        faults = frozenset(FAULTS)
    else:
        faults = frozenset(chance.sample(FAULTS, chance.randint(1, 4)))
    sidecars = chance.randint(1, 4)
    if "zombie" in faults:  # it takes two for one to be replaced by the other
        sidecars = max(2, sidecars)
        partitions = max(2, partitions)
        parallelism["reader"] = 2
    records = chance.randint(5, 30)
    storm_ms = chance.choice((500, 2_000, 5_000))
    latency_ms = chance.choice((1, 10, 50))
    lasting = 6 * storm_ms // (records * partitions)  # the storm ends about when the records do
    return Scenario(
        seed=seed,
        stages=stages,
        parallelism=parallelism,
        sidecars=sidecars,
        partitions=partitions,
        records=records,
        stable_offsets=chance.random() < 0.4,
        keyed=keyed,
        faults=faults,
        storm_ms=storm_ms,
        latency_ms=latency_ms,
        pace_ms=chance.choice((latency_ms, lasting, lasting)),
        fixed_addresses=chance.random() < 0.5,
        concurrency=chance.choice((1, 1, 2, 4)),
        frame_records=chance.choice((2, 4, 8)),
        stage_records=chance.choice((6, 16, 60)),
        retained_bytes=chance.choice((600, 2_000, 8_000)),
    )


def _pipeline(chance: Random) -> dict[str, SimStage]:
    """A straight line, a fan-out, a fan-in or a diamond."""
    shape = chance.choice(("direct", "line", "line", "long", "fan-out", "fan-in", "diamond"))
    shapes: dict[str, dict[str, tuple[str, ...]]] = {
        "direct": {"reader": ("store",)},
        "line": {"reader": ("parse",), "parse": ("store",)},
        "long": {"reader": ("parse",), "parse": ("enrich",), "enrich": ("store",)},
        "fan-out": {"reader": ("parse", "archive"), "parse": ("store",)},
        "fan-in": {"reader": ("parse", "enrich"), "parse": ("store",), "enrich": ("store",)},
        "diamond": {
            "reader": ("parse",),
            "parse": ("enrich", "audit"),
            "enrich": ("store",),
            "audit": ("store", "archive"),
        },
    }
    arrows = shapes[shape]
    names = [name for name in STAGES if name in arrows or name in sum(arrows.values(), ())]
    stages: dict[str, SimStage] = {}
    for name in names:
        targets = arrows.get(name, ())
        kind = "source" if name == "reader" else "transform" if targets else "sink"
        stages[name] = SimStage(
            name=name,
            kind=kind,
            targets=targets,
            picky=frozenset(t for t in targets if chance.random() < 0.2),
            routes=kind == "transform" and len(targets) > 1 and chance.random() < 0.5,
            poison=chance.choice((0, 0, 9, 23)) if kind != "source" else 0,
        )
    return stages
