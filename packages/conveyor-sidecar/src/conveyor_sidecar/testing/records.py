"""Records whose whole life is written in their names.

A record of the simulated world is its name, padded: `p0/17` is record 17 of partition `p0`, and
`p0/17>enrich.1` is output 1 that stage `enrich` made of it. What a stage does with a record
follows from a checksum of its name alone, so the expected end of every source record is known
before anything runs, and any service instance does the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, pairwise
from zlib import crc32

from conveyor_sdk.carrier.frame import Frame, read_u32, write_u32

LARGE_BYTES = 400
"""Size of the records that are above the simulated limit."""


class Fate(Enum):
    """What the service of a stage does with a record, always."""

    FINE = "fine"
    REJECTED = "rejected"
    NEVER_READY = "never-ready"
    KILLER = "killer"


@dataclass(frozen=True, slots=True)
class SimStage:
    """A stage of the simulated pipeline.

    Attributes:
        name: Its id.
        kind: "source", "transform" or "sink".
        targets: Stages that its out-edges lead to.
        picky: Out-edges that have a condition.
        routes: It names routes for its outputs.
        poison: One record in so many has an unpleasant fate here; 0: none.
    """

    name: str
    kind: str
    targets: tuple[str, ...] = ()
    picky: frozenset[str] = frozenset()
    routes: bool = False
    poison: int = 0


def checksum(name: str, salt: str) -> int:
    """A number that depends on the name and nothing else."""
    return crc32(f"{salt}|{name}".encode())


def encode(names: list[str]) -> tuple[bytes, bytes]:
    """The records with these names: body and lengths."""
    parts = [_padded(name) for name in names]
    return b"".join(parts), write_u32([len(part) for part in parts])


def decode(body: bytes, lengths: bytes) -> list[str]:
    """The names of records."""
    ends = list(accumulate(read_u32(lengths), initial=0))
    spans = pairwise(ends)
    return [body[start:end].rstrip(b"\0").decode() for start, end in spans]


def names_of(frame: Frame) -> list[str]:
    """The names of a frame's records."""
    return decode(frame.body, frame.lengths_column)


def fate(stage: SimStage, name: str) -> Fate:
    """What the stage's service does with the record."""
    if not stage.poison:
        return Fate.FINE
    number = checksum(name, f"fate {stage.name}")
    if number % stage.poison:
        return Fate.FINE
    return (Fate.REJECTED, Fate.NEVER_READY, Fate.KILLER)[number // stage.poison % 3]


def outputs_of(stage: SimStage, name: str) -> list[str]:
    """What a transform makes of a record: nothing, one or two records, seldom a large one."""
    number = checksum(name, f"outputs {stage.name}") % 24
    if number == 23:
        return [f"{name}>{stage.name}.0!"]
    return [f"{name}>{stage.name}.{i}" for i in range((0, 1, 1, 1, 1, 2)[number % 6])]


def takes(edge: str, name: str) -> bool:
    """Whether a picky edge takes a record."""
    return checksum(name, f"edge {edge}") % 4 != 0


def route_of(stage: SimStage, name: str) -> str:
    """The route that a transform gives an output."""
    if not stage.routes:
        return ""
    choice = checksum(name, f"route {stage.name}") % (len(stage.targets) + 1)
    return ("", *stage.targets)[choice]


def is_large(name: str) -> bool:
    """Whether the record is above the limit."""
    return name.endswith("!")


def source_name(partition: str, index: int) -> str:
    """Name of a source record; one in 31 is above the limit."""
    name = f"{partition}/{index}"
    return f"{name}!" if checksum(name, "large") % 31 == 0 else name


def key_of(name: str) -> int:
    """The key hash of a record: all that comes from one source record has one key."""
    return checksum(name.split(">", maxsplit=1)[0].rstrip("!"), "key") * 2_654_435_761


End = tuple[str, str]
"""(stage, record): a place where a record ends."""


def expected_ends(
    stages: dict[str, SimStage], stage: str, name: str, places: set[End]
) -> list[list[End]]:
    """Where a record that reaches `stage` must end.

    Args:
        stages: The pipeline.
        stage: Where it is.
        name: The record.
        places: Every place that it, or what is made of it, may reach is added here.

    Returns:
        For each end the places on the way to it. The end is reached if its last place was written
        or dead-lettered, or if any place before was dead-lettered.
    """
    here = stages[stage]
    places.add((stage, name))
    if here.kind == "sink":
        return [[(stage, name)]]
    if here.kind == "source":
        if is_large(name):
            return [[(stage, name)]]
        outputs = [name]
        way: list[End] = []
    else:
        outputs = outputs_of(here, name)
        way = [(stage, name)]
        if fate(here, name) is not Fate.FINE:
            return [way]
    ends: list[list[End]] = []
    for output in outputs:
        if is_large(output):
            places.add((stage, output))
            ends.append([*way, (stage, output)])
            continue
        route = route_of(here, output)
        for target in here.targets:
            edge = f"{stage}>{target}"
            if route not in ("", target) or (target in here.picky and not takes(edge, output)):
                continue
            ends += [[*way, *rest] for rest in expected_ends(stages, target, output, places)]
    return ends


def _padded(name: str) -> bytes:
    size = LARGE_BYTES if is_large(name) else len(name) + checksum(name, "size") % 24
    return name.encode().ljust(size, b"\0")
