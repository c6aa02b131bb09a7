"""A record as user code sees it.

Most handlers take and return plain values. `Record` is for those that need what stands beside the
payload: the key by which keyed edges route and order, the type and headers that conditions read,
the event time. A transform's plain result keeps these from its input; a `Record` says them itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from conveyor_sdk.codec import Codec, encode
from conveyor_sdk.errors import CodecError
from conveyor_sdk.wire import record_pb2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record(Generic[T]):
    """A value with its metadata.

    Attributes:
        value: `bytes` and `str` become the payload as they are, everything else as JSON.
        key: Keyed edges route and order by it.
        type: The user's name for what the payload is.
        headers: Conditions see these.
        event_time: With a time zone; None is the time of ingestion.
        route: Id of the stage that the out-edge leads to; "" is every edge whose condition holds.
            Only for results of transforms.
    """

    value: T
    key: bytes = b""
    type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    event_time: datetime | None = None
    route: str = ""

    def __post_init__(self) -> None:
        if self.event_time is not None and self.event_time.tzinfo is None:
            raise ValueError(
                f"event_time={self.event_time!r} has no time zone; use datetime.now(UTC)"
            )

    def to(self, stage: str) -> Record[T]:
        """Return the same record, meant for `stage` alone."""
        return replace(self, route=stage)


def to_wire(value: object) -> record_pb2.Record:
    """Return the protobuf record of a value or a `Record`.

    Raises:
        CodecError: The value has no payload form.
    """
    if not isinstance(value, Record):
        return record_pb2.Record(payload=encode(value))
    message = record_pb2.Record(
        payload=encode(value.value), key=value.key, type=value.type, headers=value.headers
    )
    if value.event_time is not None:
        message.event_time.CopyFrom(_timestamp(value.event_time))
    return message


def from_wire(message: record_pb2.Record, codec: Codec) -> Record[object]:
    """Return what a protobuf record holds, its value decoded by `codec`.

    Raises:
        CodecError: The payload is not what the codec reads.
    """
    event_time = None
    if message.HasField("event_time"):
        try:
            event_time = message.event_time.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError) as error:
            raise CodecError(f"the event time is out of range: {error}") from error
    return Record(
        value=codec(message.payload),
        key=message.key,
        type=message.type,
        headers=dict(message.headers),
        event_time=event_time,
    )


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment.astimezone(UTC))
    return timestamp
