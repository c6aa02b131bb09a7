"""The frozen records of what the routers agreed on: the only form in which these facts exist.

What for: services and sidecars, documents and pipelines, who runs which stage and reads which
source partition, how far each partition is done, consumer groups. Upper layers build views on
them; nobody writes these nouns a second time.

Rules kept: records are values, replaced and never changed. A document and a pipeline are opaque
here: canonical bytes with a digest, validated before they were proposed. Times are the leader's,
taken from log entries, in milliseconds since 1970. A term is the owner number of a stage instance
or a source partition, the only fence of the data plane: it rises by one whenever the owner (the
sidecar, its boot, the service) changes, and is never used again for the same thing, not even after
the thing was removed and made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from pydantic import ConfigDict

BINARY = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
"""How bytes stand in JSON."""


class ServiceType(StrEnum):
    """The four kinds of user services."""

    SOURCE = "Source"
    TRANSFORM = "Transform"
    SINK = "Sink"
    LOOKUP = "Lookup"
    Source = SOURCE
    Transform = TRANSFORM
    Sink = SINK
    Lookup = LOOKUP


class ServiceHealth(StrEnum):
    """How a service or a sidecar is, as the leader last recorded it."""

    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    UNHEALTHY = "Unhealthy"
    UNKNOWN = "Unknown"
    Healthy = HEALTHY
    Degraded = DEGRADED
    Unhealthy = UNHEALTHY
    Unknown = UNKNOWN


class PipelinePhase(StrEnum):
    """Where a pipeline is in its life."""

    PENDING = "Pending"
    RUNNING = "Running"
    DRAINING = "Draining"
    STOPPED = "Stopped"
    COMPLETED = "Completed"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """One registered service: the user's process, or one of several services in it."""

    service_id: str
    service_name: str
    service_type: ServiceType
    endpoint: str
    """As its own sidecar (or, without one, a client) reaches it."""
    sidecar_id: str = ""
    """Empty: it registered itself and keeps its own lease."""
    namespace: str = "default"
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    group_id: str = ""
    grpc_services: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    """Sources: the names that Describe gave; empty means one, named "0"."""
    stable_offsets: bool = False
    bounded: bool = False
    idempotent: bool = False
    transactional: bool = False
    concurrency_max: int = 0
    batch_records_max: int = 0
    batch_bytes_max: int = 0
    call_timeout_ms: int = 0
    described: bool = True
    """False: the process has no ServiceInfo, and only a document can say what it offers."""
    lease_ms: int = 30_000
    health: ServiceHealth = ServiceHealth.HEALTHY
    health_reason: str = ""
    registered_ms: int = 0
    last_heartbeat_ms: int = 0
    registered_revision: int = 0
    """The log index of the registration; decisions about an older registration do not apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarRecord:
    """One data-plane process, with the services that it brought."""

    sidecar_id: str
    endpoint: str
    boot_id: str = ""
    replaced_boots: tuple[str, ...] = ()
    pod_name: str = ""
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    service_ids: tuple[str, ...] = ()
    lease_ms: int = 15_000
    health: ServiceHealth = ServiceHealth.HEALTHY
    health_reason: str = ""
    draining: bool = False
    registered_ms: int = 0
    last_heartbeat_ms: int = 0
    registered_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationRecord:
    """Which sidecar holds a service endpoint: the first registration wins."""

    location: str
    sidecar_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRecord:
    """One applied Source, Transform, Sink or Lookup document."""

    kind: str
    namespace: str
    name: str
    version: int
    document: bytes
    digest: str
    updated_ms: int = 0
    revision: int = 0

    __pydantic_config__: ClassVar[ConfigDict] = BINARY


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRecord:
    """One applied pipeline and where it is in its life."""

    pipeline_id: str
    version: int
    manifest: bytes
    digest: str
    enabled: bool = True
    deleting: bool = False
    phase: PipelinePhase = PipelinePhase.PENDING
    reason: str = ""
    phase_since_ms: int = 0
    created_ms: int = 0
    updated_ms: int = 0
    revision: int = 0

    __pydantic_config__: ClassVar[ConfigDict] = BINARY


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceAssignment:
    """One instance of a stage and who runs it."""

    pipeline_id: str
    stage: str
    index: int
    sidecar_id: str
    boot_id: str
    service_id: str
    endpoint: str
    """Of the service, as the sidecar reaches it."""
    term: int
    revision: int = 0


StageAssignment = InstanceAssignment
"""The name that the assignment of one stage instance has elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOwner:
    """One source partition and who reads it.

    `number` is the partition's place in the append-only table of its stage: the integer that
    consumer groups count in. An unowned partition keeps its last term, so that the last commits of
    its last owner still count; the next owner gets the next term.
    """

    pipeline_id: str
    stage: str
    partition: str
    number: int
    bounded: bool
    term: int
    index: int = 0
    sidecar_id: str = ""
    boot_id: str = ""
    service_id: str = ""
    revision: int = 0

    @property
    def owned(self) -> bool:
        """Whether somebody reads it."""
        return bool(self.sidecar_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionRecord:
    """How far one source partition is done.

    `ordinal` is the next one: all records below it are done. `position` is the source's own.
    """

    pipeline_id: str
    stage: str
    partition: str
    replay_id: str
    term: int
    ordinal: int
    position: bytes | None
    finished: bool = False
    committed_ms: int = 0

    __pydantic_config__: ClassVar[ConfigDict] = BINARY


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMemberRecord:
    """One member of a consumer group and the partitions that it was given."""

    member_id: str
    service_name: str
    topics: tuple[str, ...] = ()
    partitions: tuple[int, ...] = ()
    joined_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """One consumer group; `partition_names[i]` is the name of partition i, append-only."""

    group_id: str
    generation: int
    members: tuple[GroupMemberRecord, ...] = ()
    partition_names: tuple[str, ...] = ()
    offsets: Mapping[int, int] = field(default_factory=dict)
    revision: int = 0

    def member(self, member_id: str) -> GroupMemberRecord | None:
        """The member with this id, if there is one."""
        return next((one for one in self.members if one.member_id == member_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TermFloor:
    """The highest term of anything that was removed: what is made anew starts above it."""

    term: int = 0


Record = (
    ServiceRecord
    | SidecarRecord
    | LocationRecord
    | ManifestRecord
    | PipelineRecord
    | InstanceAssignment
    | PartitionOwner
    | PositionRecord
    | GroupRecord
    | TermFloor
)
