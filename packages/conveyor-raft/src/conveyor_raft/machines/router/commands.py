"""What the routers may agree on: one class per command, one envelope for the log.

What for: `RouterCommand` is the vocabulary of the control plane. Its variants are reached as class
attributes, `RouterCommand.RegisterService(...)`, told apart by `kind`, and stand in the log as
canonical JSON in a versioned envelope: ``{"command":{...},"version":1}`` with sorted keys, so equal
commands are equal bytes on every node and in every release of the same version.

Rules kept: commands say what was decided (an owner, an expiry, a generation), never "now" or "if it
is late". Every list and text has a bound. Decoding an unknown command or a newer version raises
`UnknownCommand`, which stops a node instead of letting it skip what others have applied.
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationError

from conveyor_raft.machines.router.parts import (
    BATCH_MAX,
    MEMBERS_MAX,
    PARTITIONS_MAX,
    SERVICES_PER_SIDECAR_MAX,
    Count,
    Digest,
    Document,
    Endpoint,
    Expiry,
    Id,
    Labels,
    LeaseMs,
    LeaseRenewal,
    MemberPartitions,
    Name,
    OfPipeline,
    OptionalId,
    Part,
    PartitionName,
    PartitionSlot,
    PositionCommit,
    Reason,
    ServiceOffer,
    StageSlot,
    Text,
)
from conveyor_raft.machines.router.records import PipelinePhase, ServiceHealth
from conveyor_raft.machines.router.unreadable import UnknownCommand, why_unknown

VERSION: Literal[1] = 1


class RouterCommand(Part):
    """The base of all commands; the variants are its class attributes."""

    RegisterService: ClassVar[type[RegisterService]]
    DeregisterService: ClassVar[type[DeregisterService]]
    UpdateServiceHealth: ClassVar[type[UpdateServiceHealth]]
    RegisterSidecar: ClassVar[type[RegisterSidecar]]
    DeregisterSidecar: ClassVar[type[DeregisterSidecar]]
    DrainSidecar: ClassVar[type[DrainSidecar]]
    UpdateSidecarHealth: ClassVar[type[UpdateSidecarHealth]]
    RenewLeases: ClassVar[type[RenewLeases]]
    ExpireServices: ClassVar[type[ExpireServices]]
    ExpireSidecars: ClassVar[type[ExpireSidecars]]
    PutManifest: ClassVar[type[PutManifest]]
    DeleteManifest: ClassVar[type[DeleteManifest]]
    CreatePipeline: ClassVar[type[CreatePipeline]]
    UpdatePipeline: ClassVar[type[UpdatePipeline]]
    DeletePipeline: ClassVar[type[DeletePipeline]]
    PurgePipeline: ClassVar[type[PurgePipeline]]
    EnablePipeline: ClassVar[type[EnablePipeline]]
    DisablePipeline: ClassVar[type[DisablePipeline]]
    SetPipelinePhase: ClassVar[type[SetPipelinePhase]]
    AssignPipeline: ClassVar[type[AssignPipeline]]
    RevokePipeline: ClassVar[type[RevokePipeline]]
    AssignPipelineToSidecar: ClassVar[type[_Assign]]
    RevokePipelineFromSidecar: ClassVar[type[_Revoke]]
    AssignSourcePartitions: ClassVar[type[AssignSourcePartitions]]
    CommitPositions: ClassVar[type[CommitPositions]]
    JoinGroup: ClassVar[type[JoinGroup]]
    LeaveGroup: ClassVar[type[LeaveGroup]]
    AssignPartitions: ClassVar[type[AssignPartitions]]
    CommitGroupOffset: ClassVar[type[CommitGroupOffset]]
    Batch: ClassVar[type[Batch]]
    Noop: ClassVar[type[Noop]]

    def encode(self) -> bytes:
        """The canonical bytes for the log."""
        envelope = {"version": VERSION, "command": self.model_dump(mode="json")}
        return json.dumps(
            envelope, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()

    @staticmethod
    def decode(data: bytes) -> AnyCommand:
        """The command of canonical bytes; `UnknownCommand` for what this release does not know."""
        try:
            return Envelope.model_validate_json(data).command
        except ValidationError as error:
            raise UnknownCommand(why_unknown(data, VERSION, error)) from error


class Noop(RouterCommand):
    """Change nothing: a proof that a quorum still follows."""

    kind: Literal["noop"] = "noop"


class RegisterService(ServiceOffer, RouterCommand):
    """Register a service that has no sidecar, or register it again."""

    kind: Literal["register_service"] = "register_service"
    lease_ms: LeaseMs = 30_000


class DeregisterService(RouterCommand):
    """Remove a service; removing one that is not there is no error."""

    kind: Literal["deregister_service"] = "deregister_service"
    service_id: Id


class UpdateServiceHealth(RouterCommand):
    """Record how a service is; the reason says who found that out and how."""

    kind: Literal["update_service_health"] = "update_service_health"
    service_id: Id
    health: ServiceHealth
    reason: Reason = ""


class RegisterSidecar(RouterCommand):
    """Replace all that is known of a sidecar, its services included, in one step."""

    kind: Literal["register_sidecar"] = "register_sidecar"
    sidecar_id: Id
    endpoint: Endpoint
    services: Annotated[tuple[ServiceOffer, ...], Field(max_length=SERVICES_PER_SIDECAR_MAX)] = ()
    boot_id: OptionalId = ""
    pod_name: Text = ""
    namespace: Name = "default"
    labels: Labels = Field(default_factory=dict)
    version: Text = ""
    lease_ms: LeaseMs = 15_000


class DeregisterSidecar(RouterCommand):
    """Remove a sidecar with its services and assignments; an older boot removes no newer one."""

    kind: Literal["deregister_sidecar"] = "deregister_sidecar"
    sidecar_id: Id
    boot_id: OptionalId = ""


class DrainSidecar(RouterCommand):
    """Give the sidecar nothing more, and what it has to others; a new boot ends it."""

    kind: Literal["drain_sidecar"] = "drain_sidecar"
    sidecar_id: Id
    reason: Reason = ""


class UpdateSidecarHealth(RouterCommand):
    """Record how a sidecar is; services that it brought become unhealthy and well with it.

    With a `registered_revision` it is about that registration only.
    """

    kind: Literal["update_sidecar_health"] = "update_sidecar_health"
    sidecar_id: Id
    health: ServiceHealth
    reason: Reason = ""
    registered_revision: Count = 0


class RenewLeases(RouterCommand):
    """Record when many were last heard of; changes no revision, because nobody has to act on it."""

    kind: Literal["renew_leases"] = "renew_leases"
    services: Annotated[tuple[LeaseRenewal, ...], Field(max_length=BATCH_MAX)] = ()
    sidecars: Annotated[tuple[LeaseRenewal, ...], Field(max_length=BATCH_MAX)] = ()


class ExpireServices(RouterCommand):
    """Remove services whose leases have ended; a registration made since is left alone."""

    kind: Literal["expire_services"] = "expire_services"
    services: Annotated[tuple[Expiry, ...], Field(max_length=BATCH_MAX)]


class ExpireSidecars(RouterCommand):
    """Remove sidecars whose leases have ended, with their services and assignments."""

    kind: Literal["expire_sidecars"] = "expire_sidecars"
    sidecars: Annotated[tuple[Expiry, ...], Field(max_length=BATCH_MAX)]


class PutManifest(RouterCommand):
    """Record a service document; equal digests change nothing."""

    kind: Literal["put_manifest"] = "put_manifest"
    document_kind: Literal["Source", "Transform", "Sink", "Lookup"]
    name: Name
    document: Document
    digest: Digest
    namespace: Name = "default"


class DeleteManifest(RouterCommand):
    """Remove a service document."""

    kind: Literal["delete_manifest"] = "delete_manifest"
    document_kind: Literal["Source", "Transform", "Sink", "Lookup"]
    name: Name
    namespace: Name = "default"


class CreatePipeline(OfPipeline, RouterCommand):
    """Record a new pipeline; one that exists under this id is refused."""

    kind: Literal["create_pipeline"] = "create_pipeline"
    manifest: Document
    digest: Digest
    enabled: bool = True


class UpdatePipeline(OfPipeline, RouterCommand):
    """Replace a pipeline's document; refused unless it has the expected version (0: any)."""

    kind: Literal["update_pipeline"] = "update_pipeline"
    manifest: Document
    digest: Digest
    enabled: bool = True
    expected_version: Count = 0


class DeletePipeline(OfPipeline, RouterCommand):
    """Mark a pipeline for removal: it drains, and is purged when it has stopped."""

    kind: Literal["delete_pipeline"] = "delete_pipeline"


class PurgePipeline(OfPipeline, RouterCommand):
    """Remove a deleted pipeline that has stopped, with its positions."""

    kind: Literal["purge_pipeline"] = "purge_pipeline"


class EnablePipeline(OfPipeline, RouterCommand):
    """Let a pipeline run; one that failed or completed is looked at again."""

    kind: Literal["enable_pipeline"] = "enable_pipeline"


class DisablePipeline(OfPipeline, RouterCommand):
    """Let a pipeline drain and stop; its positions stay."""

    kind: Literal["disable_pipeline"] = "disable_pipeline"


class SetPipelinePhase(OfPipeline, RouterCommand):
    """Record a step in a pipeline's life, with its reason."""

    kind: Literal["set_pipeline_phase"] = "set_pipeline_phase"
    phase: PipelinePhase
    reason: Reason = ""


class AssignPipeline(OfPipeline, RouterCommand):
    """Give stage instances of a pipeline to a sidecar; changed owners get the next term."""

    kind: Literal["assign_pipeline"] = "assign_pipeline"
    sidecar_id: Id
    stages: Annotated[tuple[StageSlot, ...], Field(max_length=BATCH_MAX)]


class RevokePipeline(OfPipeline, RouterCommand):
    """Take stage instances (None: all) from a sidecar, with the partitions that they read."""

    kind: Literal["revoke_pipeline"] = "revoke_pipeline"
    sidecar_id: Id
    stages: Annotated[tuple[StageSlot, ...], Field(max_length=BATCH_MAX)] | None = None


class AssignSourcePartitions(OfPipeline, RouterCommand):
    """Give source partitions to instances of their stage; new names get the next numbers."""

    kind: Literal["assign_source_partitions"] = "assign_source_partitions"
    stage: Name
    partitions: Annotated[tuple[PartitionSlot, ...], Field(max_length=PARTITIONS_MAX)]


class CommitPositions(RouterCommand):
    """Record how far partitions are done; each is fenced by its own term and judged by itself."""

    kind: Literal["commit_positions"] = "commit_positions"
    commits: Annotated[tuple[PositionCommit, ...], Field(max_length=BATCH_MAX)]


class JoinGroup(RouterCommand):
    """Add a member (or change its wishes), append new partition names: the generation rises."""

    kind: Literal["join_group"] = "join_group"
    group_id: Id
    member_id: Id
    service_name: Name
    topics: Annotated[tuple[PartitionName, ...], Field(max_length=256)] = ()
    partition_names: Annotated[tuple[PartitionName, ...], Field(max_length=PARTITIONS_MAX)] = ()


class LeaveGroup(RouterCommand):
    """Remove a member: the generation rises."""

    kind: Literal["leave_group"] = "leave_group"
    group_id: Id
    member_id: Id


class AssignPartitions(RouterCommand):
    """Record who reads what in a group's generation; another generation is refused."""

    kind: Literal["assign_partitions"] = "assign_partitions"
    group_id: Id
    generation: Count
    assignments: Annotated[tuple[MemberPartitions, ...], Field(max_length=MEMBERS_MAX)]


class CommitGroupOffset(RouterCommand):
    """Record how far a group has read a partition: fenced by generation and owner, monotone."""

    kind: Literal["commit_group_offset"] = "commit_group_offset"
    group_id: Id
    member_id: Id
    generation: Count
    partition: Count
    offset: Count


SingleCommand = Annotated[
    RegisterService
    | DeregisterService
    | UpdateServiceHealth
    | RegisterSidecar
    | DeregisterSidecar
    | DrainSidecar
    | UpdateSidecarHealth
    | RenewLeases
    | ExpireServices
    | ExpireSidecars
    | PutManifest
    | DeleteManifest
    | CreatePipeline
    | UpdatePipeline
    | DeletePipeline
    | PurgePipeline
    | EnablePipeline
    | DisablePipeline
    | SetPipelinePhase
    | AssignPipeline
    | RevokePipeline
    | AssignSourcePartitions
    | CommitPositions
    | JoinGroup
    | LeaveGroup
    | AssignPartitions
    | CommitGroupOffset
    | Noop,
    Field(discriminator="kind"),
]


class Batch(RouterCommand):
    """All or nothing: if one command is refused, none has changed anything. Batches do not nest."""

    kind: Literal["batch"] = "batch"
    commands: Annotated[tuple[SingleCommand, ...], Field(max_length=BATCH_MAX)]


AnyCommand = Annotated[SingleCommand | Batch, Field(discriminator="kind")]


class Envelope(Part):
    """What stands in the log."""

    version: Literal[1] = VERSION
    command: AnyCommand


VARIANTS: tuple[type[RouterCommand], ...] = tuple(
    one for one in RouterCommand.__subclasses__() if "kind" in one.model_fields
)
"""All commands, in the order of their definition."""
for _variant in VARIANTS:
    setattr(RouterCommand, _variant.__name__, _variant)
RouterCommand.AssignPipelineToSidecar = AssignPipeline
RouterCommand.RevokePipelineFromSidecar = RevokePipeline

_Assign = AssignPipeline
_Revoke = RevokePipeline
