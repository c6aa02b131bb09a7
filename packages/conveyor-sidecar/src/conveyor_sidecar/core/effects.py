"""What the engine wants done, in the order in which it wants it done.

The shell performs the effects of one `handle` in their order and reports back what came of them
as events. No effect waits for another; every one that can fail has an event for it. Effects are
slotted dataclasses that nobody changes after they were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conveyor_sdk.carrier.frame import Frame
from conveyor_sidecar.core.events import Failure, Oversize
from conveyor_sidecar.core.messages import LaneMessage
from conveyor_sidecar.core.routes import InstanceKey, PartitionKey, StageKind


@dataclass(slots=True)
class OpenLink:
    """Connect to a peer; this side is the producer of all lanes on it.

    Answered by `LinkUp` or `LinkDown`.
    """

    link: str
    peer: str
    endpoint: str


@dataclass(slots=True)
class CloseLink:
    """Let a link go, whoever opened it; messages still on it are of no interest.

    No event answers.
    """

    link: str
    reason: str


@dataclass(slots=True)
class SendLaneMessage:
    """Send a bundle.

    Either it arrives, in order, or the link breaks (`LinkDown`); losing it is harmless.
    """

    link: str
    message: LaneMessage


@dataclass(slots=True)
class CallService:
    """Hand records to a local service: Process for a transform, Write for a sink.

    Attributes:
        call_id: Number for the answer, `CallFinished` or `CallFailed`.
        instance: The instance that calls.
        term: Its assignment term.
        service_id: Which service.
        kind: Transform or sink.
        frame: The records; lineage comes from its index.
        attempt: 1 for the first delivery of these records to the stage.
        timeout_ms: The engine gives up after it (`CancelCall`); the shell sets it on the call
            as well.
        config: The stage's strings.
    """

    call_id: int
    instance: InstanceKey
    term: int
    service_id: str
    kind: StageKind
    frame: Frame
    attempt: int
    timeout_ms: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class CancelCall:
    """Nobody waits for this call any more. No event answers; a late one is ignored."""

    call_id: int


@dataclass(slots=True)
class OpenSource:
    """Open a stream to a source service; partitions and credit follow as effects of their own.

    The shell may queue those until the stream stands. Answered by `SourceOpened` or `SourceFailed`.
    """

    source: InstanceKey
    stream: int
    term: int
    service_id: str
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class CloseSource:
    """Close a source stream. No event answers; late ones are ignored."""

    source: InstanceKey
    stream: int


@dataclass(slots=True)
class OpenPartition:
    """Let the source read a partition from `resume`, or from its beginning."""

    source: InstanceKey
    stream: int
    partition: str
    term: int
    resume: bytes
    from_start: bool


@dataclass(slots=True)
class RevokePartition:
    """Tell the source to stop reading a partition; it answers `SourceRevoked` after its last
    batch.
    """

    source: InstanceKey
    stream: int
    partition: str


@dataclass(slots=True)
class GrantSourceCredit:
    """Absolute totals since the source stream began."""

    source: InstanceKey
    stream: int
    records_limit: int
    bytes_limit: int


@dataclass(slots=True)
class EndedUpTo:
    """Everything up to the position has ended and is committed: the source may forget it."""

    source: InstanceKey
    stream: int
    partition: str
    position: bytes


@dataclass(slots=True)
class StoreDeadLetter:
    """Put records that will never be delivered on disk, with the reason. Answered by
    `DeadLetterStored` or `-Failed`.

    Attributes:
        letter_id: Number for the answer. The same letter is stored again after a failure, under
            the same number.
        instance: The stage instance that gave the records up.
        term: Its assignment term.
        service_id: The service that refused them; empty where none was asked.
        frame: The records with their index; without records for a tombstone.
        failures: One per record, `index` being the place in `frame`.
        attempts: Deliveries to the stage, busy ones not counted.
        tombstone: The record that its source only named.
    """

    letter_id: int
    instance: InstanceKey
    term: int
    service_id: str
    frame: Frame
    failures: tuple[Failure, ...]
    attempts: int
    tombstone: Oversize | None = None


@dataclass(slots=True)
class PositionCommit:
    """Where a partition resumes: everything before it has ended.

    Attributes:
        partition: Which partition.
        replay_id: 0 for live records.
        term: The owner's; an older one than the recorded is refused.
        ordinal: Monotone number of the position: the next ordinal to give out.
        position: Opaque; empty while nothing was read.
        finished: The partition has no further records.
    """

    partition: PartitionKey
    replay_id: int
    term: int
    ordinal: int
    position: bytes
    finished: bool


@dataclass(slots=True)
class CommitPositions:
    """Record positions through the routers, as one batch. At most one is outstanding.

    Answered by `PositionsCommitted` or `PositionsFailed`. The shell bounds the wait.
    """

    request_id: int
    positions: tuple[PositionCommit, ...]


@dataclass(slots=True)
class Note:
    """Something that an operator should be able to read later; `problem` says that it is not
    routine.
    """

    problem: bool
    text: str
    fields: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(slots=True)
class PartitionCompleted:
    """A bounded partition is finished, everything in it has ended, and that is recorded."""

    partition: PartitionKey


@dataclass(slots=True)
class Drained:
    """After `Drain`: nothing is open and every position is committed."""


Effect = (
    OpenLink
    | CloseLink
    | SendLaneMessage
    | CallService
    | CancelCall
    | OpenSource
    | CloseSource
    | OpenPartition
    | RevokePartition
    | GrantSourceCredit
    | EndedUpTo
    | StoreDeadLetter
    | CommitPositions
    | Note
    | PartitionCompleted
    | Drained
)
