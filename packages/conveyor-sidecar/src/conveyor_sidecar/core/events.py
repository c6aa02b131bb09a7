"""What happens to a sidecar, as the engine hears of it.

The shell observes (streams, calls, answers, the clock) and reports each observation as one of
these; it never decides. The engine is the only place that knows what an event means. Stale
reports are harmless by construction: whatever can be late carries the number that the engine
gave it (`call_id`, `letter_id`, `request_id`, the number of a source stream, a link's id), and
the engine ignores numbers that it no longer waits for.

Events are slotted dataclasses that nobody changes after they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from conveyor_sidecar.core.messages import LaneMessage
from conveyor_sidecar.core.routes import InstanceKey, PartitionKey, Table


class FailureKind(Enum):
    """What a service says about one record that failed."""

    RETRY = "retry"
    REJECT = "reject"
    BUSY = "busy"


class CallFailureKind(Enum):
    """Why a whole call has no usable answer.

    Attributes:
        UNREACHABLE: The request never reached the service. Does not count as an attempt.
        BUSY: The service refused for lack of capacity. Does not count as an attempt.
        LOST: The service went away while it had the request.
        DEADLINE: No answer in time.
        ERROR: The service answered with an error for the whole call.
        GARBAGE: The answer breaks the contract.
    """

    UNREACHABLE = "unreachable"
    BUSY = "busy"
    LOST = "lost"
    DEADLINE = "deadline"
    ERROR = "error"
    GARBAGE = "garbage"


@dataclass(slots=True)
class Failure:
    """One record of a call that the service did not accept.

    Attributes:
        index: Its place in the request.
        kind: What to do with it.
        reason: Short, for people and for grouping.
        detail: A stack trace or the like; bounded by the shell.
        retry_after_ms: The service's wish, 0 for none.
    """

    index: int
    kind: FailureKind
    reason: str
    detail: str = ""
    retry_after_ms: int = 0


@dataclass(slots=True)
class Oversize:
    """A record above the limit, which its source named instead of sending it.

    Attributes:
        before: It stood before this place among the batch's records.
        size: Its length in bytes.
        sha256: Digest of its bytes, where the source computed it.
    """

    before: int
    size: int
    sha256: bytes = b""


@dataclass(slots=True)
class Outputs:
    """What a transform made of a call's records, split by the shell into spans and nothing more.

    Attributes:
        body: Run of `records` fields as they came.
        lengths: u32 column: bytes of each record in the body, tag and length prefix included.
        parents: For each output the place of its input in the request.
        routes: Empty, or one stage id per record ("" = every out-edge whose condition holds).
        key_hashes: u64 column, where an out-edge is keyed.
        traceparent: Trace context of the call, carried on by the outputs.
    """

    body: bytes
    lengths: bytes
    parents: Sequence[int]
    routes: Sequence[str] = ()
    key_hashes: bytes = b""
    traceparent: str = ""


@dataclass(slots=True)
class TableChanged:
    """The router's table for this sidecar, whole; an older revision than the engine's is
    ignored.
    """

    table: Table


@dataclass(slots=True)
class ServiceUp:
    """A local service answers.

    Attributes:
        service_id: As the table names it.
        concurrency_max: Calls it takes at a time.
        batch_records_max: Records in one call, 0 for no limit of its own.
        batch_bytes_max: Bytes in one call, 0 for no limit of its own.
    """

    service_id: str
    concurrency_max: int = 1
    batch_records_max: int = 0
    batch_bytes_max: int = 0


@dataclass(slots=True)
class ServiceDown:
    """A local service no longer answers. Calls in flight are reported by `CallFailed` beside it."""

    service_id: str
    reason: str = ""


@dataclass(slots=True)
class LinkUp:
    """A link that the engine asked for is connected."""

    link: str


@dataclass(slots=True)
class LinkDown:
    """A link, asked for or accepted, is gone.

    Attributes:
        link: Its id.
        gone: The peer's process is surely not there (connection refused); its lanes need not be
            kept for a resume.
        reason: For logs.
    """

    link: str
    gone: bool = False
    reason: str = ""


@dataclass(slots=True)
class LaneMessageReceived:
    """A bundle from a peer.

    Links that peers opened get an id from the shell, different from all that the engine gives.
    """

    link: str
    message: LaneMessage


@dataclass(slots=True)
class SourceOpened:
    """The stream to a source service stands; credit and partitions that were asked for have
    reached it.
    """

    source: InstanceKey
    stream: int


@dataclass(slots=True)
class SourceBatchRead:
    """Records from a source.

    Attributes:
        source: The instance that reads.
        stream: Number of the source stream.
        partition: Which partition they are of.
        body: Run of `records` fields as they came.
        lengths: u32 column: bytes of each record in the body.
        position: Where reading resumes after the whole batch, tombstones included. With stable
            offsets: the offset after the last one, 8 bytes big-endian.
        offsets: With stable offsets, the u64 column of the records' own; empty otherwise.
        oversize: Records that the source named instead of sending.
        oversize_offsets: With stable offsets, the tombstones' own; empty otherwise.
        key_hashes: u64 column, where an out-edge is keyed.
        traceparent: Trace context of the batch.
    """

    source: InstanceKey
    stream: int
    partition: str
    body: bytes
    lengths: bytes
    position: bytes
    offsets: bytes = b""
    oversize: tuple[Oversize, ...] = ()
    oversize_offsets: tuple[int, ...] = ()
    key_hashes: bytes = b""
    traceparent: str = ""


@dataclass(slots=True)
class SourceFinished:
    """A bounded partition has no more records."""

    source: InstanceKey
    stream: int
    partition: str


@dataclass(slots=True)
class SourceRevoked:
    """The source has stopped reading a partition, as it was told."""

    source: InstanceKey
    stream: int
    partition: str


@dataclass(slots=True)
class SourcePartitionFailed:
    """The source cannot read one partition now. REJECT means that it never will."""

    source: InstanceKey
    stream: int
    partition: str
    kind: FailureKind
    reason: str
    retry_after_ms: int = 0


@dataclass(slots=True)
class SourceFailed:
    """A source stream broke, or broke the contract; all its partitions are opened again on
    another stream.
    """

    source: InstanceKey
    stream: int
    reason: str
    retry_after_ms: int = 0


@dataclass(slots=True)
class CallFinished:
    """A service answered a call. `outputs` is None for sinks; failures may be in any order."""

    call_id: int
    outputs: Outputs | None = None
    failures: tuple[Failure, ...] = ()


@dataclass(slots=True)
class CallFailed:
    """A call has no usable answer."""

    call_id: int
    kind: CallFailureKind
    reason: str
    detail: str = ""
    retry_after_ms: int = 0


@dataclass(slots=True)
class DeadLetterStored:
    """A dead letter is on disk, synced."""

    letter_id: int


@dataclass(slots=True)
class DeadLetterFailed:
    """A dead letter could not be stored; its records stay un-ended and it is tried again."""

    letter_id: int
    reason: str


@dataclass(slots=True)
class PositionRefusal:
    """A position that was not taken, because the partition has a newer owner."""

    partition: PartitionKey
    newer_term: int


@dataclass(slots=True)
class PositionsCommitted:
    """The routers decided on a commit: everything in it is recorded but what was refused."""

    request_id: int
    refused: tuple[PositionRefusal, ...] = ()


@dataclass(slots=True)
class PositionsFailed:
    """No decision is known (no router, no leader, no answer); the commit is repeated."""

    request_id: int
    reason: str


@dataclass(slots=True)
class Drain:
    """Stop reading, end what is open, commit, then say `Drained`.

    The shell bounds how long it waits for that.
    """


@dataclass(slots=True)
class Tick:
    """Time has passed: the shell sends one when `Engine.next_deadline` is reached."""


Event = (
    TableChanged
    | ServiceUp
    | ServiceDown
    | LinkUp
    | LinkDown
    | LaneMessageReceived
    | SourceOpened
    | SourceBatchRead
    | SourceFinished
    | SourceRevoked
    | SourcePartitionFailed
    | SourceFailed
    | CallFinished
    | CallFailed
    | DeadLetterStored
    | DeadLetterFailed
    | PositionsCommitted
    | PositionsFailed
    | Drain
    | Tick
)
