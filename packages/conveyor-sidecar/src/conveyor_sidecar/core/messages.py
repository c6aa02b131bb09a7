"""What sidecars say to each other, as plain objects.

One `LaneMessage` is a bundle of parts, because on every carrier a message costs much the same
whatever its size. The shell turns a bundle into the bytes of `conveyor.service.v1.LaneMessage`
and back; lanes whose consumer lives on the same sidecar exchange the objects themselves. A
receiver handles the parts in the order of the attributes of `LaneMessage`.

Lane numbers are chosen by the producer and are never used twice in the life of its process:
(boot id, lane number) names one incarnation of a lane, and a consumer that knows a lane under
another incarnation begins anew with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from conveyor_sdk.carrier.frame import Frame
from conveyor_sdk.carrier.lineage import Origin


class LaneStatus(Enum):
    """A consumer's answer to the opening of a lane."""

    OPEN = "open"
    FENCED = "fenced"
    NOT_MINE = "not-mine"
    BUSY = "busy"


@dataclass(slots=True)
class StageInstance:
    """One end of a lane."""

    stage: str
    index: int
    term: int


@dataclass(slots=True)
class LaneOpen:
    """A lane that its producer opens or resumes.

    Attributes:
        lane: The producer's number for it.
        pipeline: Name of the pipeline.
        pipeline_version: Its version; the consumer must run the same.
        edge: Name of the edge.
        producer: Producing instance and its term.
        consumer: Consuming instance and the term under which the producer knows it.
        first_open_sequence: The first sequence that is not done; all before it may be forgotten.
        next_sequence: The first sequence that was not used yet.
    """

    lane: int
    pipeline: str
    pipeline_version: int
    edge: str
    producer: StageInstance
    consumer: StageInstance
    first_open_sequence: int
    next_sequence: int


@dataclass(slots=True)
class Hello:
    """The producer's first word on a link, repeated whenever lanes are added or resumed."""

    sidecar: str
    boot_id: str
    lanes: list[LaneOpen]


@dataclass(slots=True)
class LaneCredit:
    """Absolute totals since the lane was opened: a lost or repeated grant is harmless.

    A frame may be started while what was sent is below both limits; that one frame may overshoot.
    """

    lane: int
    records_limit: int
    bytes_limit: int


@dataclass(slots=True)
class Done:
    """Frames that have ended with everything derived from them:

    all up to `low`, and the ranges [first, last] above it.
    """

    lane: int
    low: int
    ranges: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class LaneAccept:
    """A consumer's answer for one lane.

    Attributes:
        lane: The producer's number.
        status: Whether the lane is open.
        next_sequence: The first sequence that the consumer does not hold; the producer sends
            from here.
        done: What ended meanwhile.
        credit: What may be sent.
        newer_term: With `FENCED`, the term that replaced the producer's.
        table_revision: With `NOT_MINE`, the table in which the lane does not exist.
        retry_after_ms: With `BUSY`.
    """

    lane: int
    status: LaneStatus
    next_sequence: int = 0
    done: Done | None = None
    credit: LaneCredit | None = None
    newer_term: int = 0
    table_revision: int = 0
    retry_after_ms: int = 0


@dataclass(slots=True)
class HelloAck:
    """The consumer's answer to a hello. Its boot id tells whether it remembers anything."""

    sidecar: str
    boot_id: str
    lanes: list[LaneAccept]


@dataclass(slots=True)
class Fenced:
    """The lane's producer was replaced: it stops, forgets, and waits for its next table."""

    lane: int
    newer_term: int


@dataclass(slots=True)
class StableMark:
    """Everything of the origin below this offset has ended: what was remembered of it can go."""

    origin: Origin
    below: int


@dataclass(slots=True)
class End:
    """The producer gives the lane up; nothing more comes on it."""

    lane: int
    last_sequence: int
    reason: str


@dataclass(slots=True)
class LaneMessage:
    """A bundle of parts, handled in the order of these attributes.

    Each frame in `data` names its lane, sequence and producer term. Sequences start at 1
    without gaps; the same sequence again is the same frame again.
    """

    hello: Hello | None = None
    hello_ack: HelloAck | None = None
    fenced: list[Fenced] = field(default_factory=list)
    credits: list[LaneCredit] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    stable: list[StableMark] = field(default_factory=list)
    data: list[Frame] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
