"""The pieces that router commands are made of, and the bounds of everything in them.

What for: a command arrives from the network and then lives in every node's log and memory, so each
text, list and number has a bound here, checked once, when the command is made.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from conveyor_raft.machines.router.records import ServiceHealth, ServiceType

BATCH_MAX = 4_096
DOCUMENT_BYTES_MAX = 256 * 1024
POSITION_BYTES_MAX = 1_024
PARTITIONS_MAX = 4_096
MEMBERS_MAX = 4_096
SERVICES_PER_SIDECAR_MAX = 1_024
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}")


def _check_endpoint(text: str) -> str:
    if not _ENDPOINT.fullmatch(text):
        raise PydanticCustomError("endpoint", "{text} is not host:port", {"text": repr(text[:80])})
    return text


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:/@-]{0,189}[A-Za-z0-9])?$")]
"""An identifier: letters, digits and ``. _ : / @ -`` within, at most 191 (three joined names)."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
"""A name of at most 63."""
OptionalId = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._:/@-]{0,189}[A-Za-z0-9])?)?$")
]
PartitionName = Annotated[str, Field(min_length=1, max_length=253)]
Endpoint = Annotated[str, Field(max_length=300), AfterValidator(_check_endpoint)]
"""``host:port``; an IPv6 host stands in brackets."""
Reason = Annotated[str, Field(max_length=1_024)]
Text = Annotated[str, Field(max_length=256)]
Labels = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=63)], Text], Field(max_length=64)
]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
LeaseMs = Annotated[int, Field(ge=1_000, le=3_600_000)]
Document = Annotated[bytes, Field(min_length=2, max_length=DOCUMENT_BYTES_MAX)]
Digest = Annotated[str, Field(min_length=1, max_length=128)]


class Part(BaseModel):
    """A frozen piece of a command; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )


class OfPipeline(Part):
    """Something about one pipeline."""

    pipeline_id: Id


class ServiceOffer(Part):
    """What a process offers: a registered service without its registration."""

    service_id: Id
    service_type: ServiceType
    endpoint: Endpoint
    service_name: Name | Literal[""] = ""
    """Empty: as the service id."""
    namespace: Name = "default"
    version: Text = ""
    labels: Labels = Field(default_factory=dict)
    group_id: OptionalId = ""
    grpc_services: Annotated[tuple[Text, ...], Field(max_length=256)] = ()
    partitions: Annotated[tuple[PartitionName, ...], Field(max_length=PARTITIONS_MAX)] = ()
    stable_offsets: bool = False
    bounded: bool = False
    idempotent: bool = False
    transactional: bool = False
    concurrency_max: Count = 0
    batch_records_max: Count = 0
    batch_bytes_max: Count = 0
    call_timeout_ms: Count = 0
    described: bool = True
    health: ServiceHealth = ServiceHealth.HEALTHY
    health_reason: Reason = ""

    @model_validator(mode="before")
    @classmethod
    def _name_it(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("service_name"):
            return {**data, "service_name": data.get("service_id")}
        return data


class StageSlot(Part):
    """One stage instance given to a sidecar; `service_id` is empty for a static endpoint."""

    stage: Name
    index: Annotated[int, Field(ge=0, lt=1 << 16)] = 0
    service_id: OptionalId = ""
    endpoint: Endpoint | Literal[""] = ""
    """Empty: the registered service's."""


class PartitionSlot(Part):
    """One source partition given to the stage instance `index`; None takes it from its owner."""

    partition: PartitionName
    index: Annotated[int, Field(ge=0, lt=1 << 16)] | None
    bounded: bool = False


class PositionCommit(Part):
    """How far one partition is done; see `PositionRecord`."""

    pipeline_id: Id
    stage: Name
    partition: PartitionName
    term: Count
    ordinal: Count
    position: Annotated[bytes, Field(max_length=POSITION_BYTES_MAX)] | None = None
    finished: bool = False
    replay_id: Annotated[str, Field(max_length=63)] = ""


class LeaseRenewal(Part):
    """Somebody was heard of."""

    id: Id
    at_ms: Count


class Expiry(Part):
    """The end of one registration, and of no later one."""

    id: Id
    registered_revision: Count
    reason: Reason = ""


class MemberPartitions(Part):
    """What one member of a group reads."""

    member_id: Id
    partitions: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=PARTITIONS_MAX)]
