"""What one sidecar has to know, computed from the agreed state.

A table is whole and sorted: a sidecar swaps it in one step, and equal facts make equal tables. It
holds every pipeline in which the sidecar runs an instance, with all instances of all its stages
(the sidecar must know whom to send to and whom to accept), and the source partitions that the
sidecar itself reads, with where to go on.

`revision` takes no part in comparisons: two tables are equal if nothing changed for the sidecar.
Positions do not change a table either; they are read when a partition gets its owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from conveyor_raft.machines.router.records import (
    InstanceAssignment,
    PartitionOwner,
    PipelinePhase,
    PipelineRecord,
    ServiceHealth,
    ServiceRecord,
    ServiceType,
)
from conveyor_raft.machines.router.state import RouterState
from conveyor_registry.core.matching import applied_document, effective, parsed_pipeline
from conveyor_registry.model import DocumentRefused, Pipeline, ServiceDocument


@dataclass(frozen=True, slots=True)
class TableDocument:
    """A Source, Transform, Sink or Lookup document that a stage refers to."""

    kind: str
    name: str
    document: bytes


@dataclass(frozen=True, slots=True)
class TableInstance:
    """One instance of a stage, wherever it runs."""

    stage: str
    index: int
    term: int
    sidecar_id: str
    boot_id: str
    sidecar_endpoint: str
    """Where its sidecar takes frames."""
    service_id: str
    service_endpoint: str
    """As its own sidecar reaches the service."""
    service: ServiceRecord
    """What it can do; with the document's word where the service does not describe itself, and
    without the times of its registration."""
    health: ServiceHealth


@dataclass(frozen=True, slots=True)
class TablePartition:
    """One source partition of the table's own sidecar."""

    stage: str
    partition: str
    number: int
    term: int
    instance: int
    replay_id: str
    draining: bool
    """Stop reading, end what was read, commit it."""
    resume_position: bytes | None = field(compare=False)
    """None: from the beginning."""
    next_ordinal: int = field(compare=False)
    finished: bool = field(compare=False)


@dataclass(frozen=True, slots=True)
class TablePipeline:
    """One pipeline in which the sidecar takes part."""

    pipeline_id: str
    version: int
    manifest: bytes
    phase: PipelinePhase
    documents: tuple[TableDocument, ...]
    instances: tuple[TableInstance, ...]
    partitions: tuple[TablePartition, ...]


@dataclass(frozen=True, slots=True)
class SidecarTable:
    """Everything that one sidecar needs."""

    sidecar_id: str
    boot_id: str
    """Of the registration that the table answers; empty: the sidecar is not registered."""
    pipelines: tuple[TablePipeline, ...]
    revision: int = field(compare=False)
    """The state's table revision that it was computed at."""


def table_for(state: RouterState, sidecar_id: str) -> SidecarTable:
    """The table of one sidecar; an empty one if it is not registered or has nothing to do."""
    sidecar = state.sidecars.get(sidecar_id)
    ids = sorted({row.pipeline_id for row in state.instances_on(sidecar_id)})
    return SidecarTable(
        sidecar_id=sidecar_id,
        boot_id="" if sidecar is None else sidecar.boot_id,
        pipelines=tuple(
            _pipeline(state, state.pipelines[pipeline_id], sidecar_id)
            for pipeline_id in ids
            if pipeline_id in state.pipelines
        ),
        revision=state.table_revision,
    )


@dataclass(frozen=True, slots=True)
class _StageFacts:
    """What the documents say of one stage."""

    kind: ServiceType
    service: str
    document: ServiceDocument | None


_UNREADABLE = _StageFacts(ServiceType.TRANSFORM, "", None)
"""A stage of a document of another release: its assignments speak for themselves."""


def _pipeline(state: RouterState, record: PipelineRecord, sidecar_id: str) -> TablePipeline:
    try:
        pipeline: Pipeline | None = parsed_pipeline(record.manifest)
    except DocumentRefused:
        pipeline = None
    stages = {} if pipeline is None else _stage_facts(state, pipeline)
    return TablePipeline(
        pipeline_id=record.pipeline_id,
        version=record.version,
        manifest=record.manifest,
        phase=record.phase,
        documents=() if pipeline is None else _documents(state, pipeline.namespace, stages),
        instances=tuple(
            _instance(state, row, stages.get(row.stage, _UNREADABLE))
            for row in state.instances_of(record.pipeline_id)
            if row.sidecar_id in state.sidecars
        ),
        partitions=tuple(
            _partition(state, row, record)
            for row in state.partitions_of(record.pipeline_id)
            if row.sidecar_id == sidecar_id
        ),
    )


def _stage_facts(state: RouterState, pipeline: Pipeline) -> dict[str, _StageFacts]:
    facts = {}
    for stage in pipeline.stages:
        kind, service = stage.kind, stage.service
        document = applied_document(state.manifests, pipeline.namespace, kind, service)
        facts[stage.id] = _StageFacts(ServiceType(kind.value), service, document)
    return facts


def _documents(
    state: RouterState, namespace: str, stages: Mapping[str, _StageFacts]
) -> tuple[TableDocument, ...]:
    wanted = sorted({(facts.kind.value, facts.service) for facts in stages.values()})
    return tuple(
        TableDocument(kind, name, state.manifests[(kind, namespace, name)].document)
        for kind, name in wanted
        if (kind, namespace, name) in state.manifests
    )


def _instance(state: RouterState, row: InstanceAssignment, facts: _StageFacts) -> TableInstance:
    sidecar = state.sidecars[row.sidecar_id]
    service = state.services.get(row.service_id)
    if service is None:
        service = ServiceRecord(
            service_id=row.service_id,
            service_name=facts.service,
            service_type=facts.kind,
            endpoint=row.endpoint,
            sidecar_id=row.sidecar_id,
            described=False,
        )
    health = service.health
    if sidecar.health is ServiceHealth.UNHEALTHY:
        health = sidecar.health
    return TableInstance(
        stage=row.stage,
        index=row.index,
        term=row.term,
        sidecar_id=row.sidecar_id,
        boot_id=row.boot_id,
        sidecar_endpoint=sidecar.endpoint,
        service_id=row.service_id,
        service_endpoint=row.endpoint,
        service=replace(
            effective(service, facts.document),
            health_reason="",
            registered_ms=0,
            last_heartbeat_ms=0,
            registered_revision=0,
        ),
        health=health,
    )


def _partition(state: RouterState, row: PartitionOwner, record: PipelineRecord) -> TablePartition:
    position = state.positions.get((row.pipeline_id, row.stage, row.partition, ""))
    return TablePartition(
        stage=row.stage,
        partition=row.partition,
        number=row.number,
        term=row.term,
        instance=row.index,
        replay_id="",
        draining=record.phase is PipelinePhase.DRAINING,
        resume_position=None if position is None else position.position,
        next_ordinal=0 if position is None else position.ordinal,
        finished=position is not None and position.finished,
    )
