"""How commands about documents, pipelines and their assignments change the state.

Rules kept: documents are opaque; the digest tells whether one changed. The steps of a pipeline's
life are a table. Who runs what was decided before the command was proposed; here it is checked
against what is registered, so that a decision which the log overtook is refused as a whole and made
again.
"""

from __future__ import annotations

from dataclasses import replace

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router.commands import (
    AssignPipeline,
    AssignSourcePartitions,
    CreatePipeline,
    DeleteManifest,
    DeletePipeline,
    DisablePipeline,
    EnablePipeline,
    PurgePipeline,
    PutManifest,
    RevokePipeline,
    SetPipelinePhase,
    UpdatePipeline,
)
from conveyor_raft.machines.router.outcome import Moment, Outcome
from conveyor_raft.machines.router.ownership import (
    own_instance,
    own_partition,
    release_partition,
    remove_instance,
)
from conveyor_raft.machines.router.parts import PARTITIONS_MAX, PartitionSlot
from conveyor_raft.machines.router.records import (
    InstanceAssignment,
    ManifestRecord,
    PartitionOwner,
    PipelinePhase,
    PipelineRecord,
)
from conveyor_raft.machines.router.state import RouterState

DOCUMENTS_MAX = 10_000
_P = PipelinePhase
STEPS: dict[PipelinePhase, frozenset[PipelinePhase]] = {
    _P.PENDING: frozenset({_P.RUNNING, _P.DRAINING, _P.STOPPED, _P.COMPLETED, _P.FAILED}),
    _P.RUNNING: frozenset({_P.PENDING, _P.DRAINING, _P.STOPPED, _P.COMPLETED, _P.FAILED}),
    _P.DRAINING: frozenset({_P.PENDING, _P.RUNNING, _P.STOPPED, _P.COMPLETED, _P.FAILED}),
    _P.STOPPED: frozenset({_P.PENDING, _P.RUNNING, _P.COMPLETED}),
    _P.COMPLETED: frozenset({_P.PENDING, _P.RUNNING, _P.STOPPED}),
    _P.FAILED: frozenset({_P.PENDING, _P.STOPPED}),
}
"""From which phase to which; a new reason within a phase is always possible."""


def put_manifest(state: RouterState, command: PutManifest, moment: Moment) -> Outcome:
    """Record a document; the version counts its changes."""
    old = state.manifests.get((command.document_kind, command.namespace, command.name))
    if old is not None and old.digest == command.digest:
        return Outcome()
    if old is None and len(state.manifests) >= DOCUMENTS_MAX:
        raise CommandRejected("full", f"{DOCUMENTS_MAX} documents are recorded; delete some first")
    state.put(
        ManifestRecord(
            kind=command.document_kind,
            namespace=command.namespace,
            name=command.name,
            version=1 if old is None else old.version + 1,
            document=command.document,
            digest=command.digest,
            updated_ms=moment.timestamp_ms,
            revision=moment.index,
        )
    )
    return Outcome()


def delete_manifest(state: RouterState, command: DeleteManifest, moment: Moment) -> Outcome:
    """Drop a document, if it is there."""
    old = state.manifests.get((command.document_kind, command.namespace, command.name))
    if old is not None:
        state.drop(old)
    return Outcome()


def create_pipeline(state: RouterState, command: CreatePipeline, moment: Moment) -> Outcome:
    """Record a new pipeline."""
    if command.pipeline_id in state.pipelines:
        raise CommandRejected("exists", f"pipeline {command.pipeline_id!r} exists; update it")
    if len(state.pipelines) >= DOCUMENTS_MAX:
        raise CommandRejected("full", f"{DOCUMENTS_MAX} pipelines are recorded; delete some first")
    state.put(
        PipelineRecord(
            pipeline_id=command.pipeline_id,
            version=1,
            manifest=command.manifest,
            digest=command.digest,
            enabled=command.enabled,
            phase_since_ms=moment.timestamp_ms,
            created_ms=moment.timestamp_ms,
            updated_ms=moment.timestamp_ms,
            revision=moment.index,
        )
    )
    return Outcome()


def update_pipeline(state: RouterState, command: UpdatePipeline, moment: Moment) -> Outcome:
    """Replace the document; a pipeline that failed or completed is looked at again with it."""
    old = _alive(state, command.pipeline_id)
    if command.expected_version and command.expected_version != old.version:
        raise CommandRejected(
            "conflict",
            f"pipeline {command.pipeline_id!r} is at version {old.version}, not"
            f" {command.expected_version}; look at it again",
        )
    if old.digest == command.digest and old.enabled == command.enabled:
        return Outcome()
    new = replace(old, enabled=command.enabled, revision=moment.index)
    if old.digest != command.digest:
        new = replace(
            new,
            version=old.version + 1,
            manifest=command.manifest,
            digest=command.digest,
            updated_ms=moment.timestamp_ms,
        )
    state.put(_another_chance(new, moment))
    return Outcome()


def delete_pipeline(state: RouterState, command: DeletePipeline, moment: Moment) -> Outcome:
    """Mark the pipeline for removal."""
    old = _known(state, command.pipeline_id)
    state.put(replace(old, deleting=True, enabled=False))
    return Outcome()


def purge_pipeline(state: RouterState, command: PurgePipeline, moment: Moment) -> Outcome:
    """Remove the pipeline with all that is recorded of it."""
    old = _known(state, command.pipeline_id)
    if not old.deleting:
        raise CommandRejected("conflict", f"pipeline {old.pipeline_id!r} is not being deleted")
    if state.instances_of(old.pipeline_id):
        raise CommandRejected("conflict", f"pipeline {old.pipeline_id!r} has not stopped yet")
    for partition in state.partitions_of(old.pipeline_id):
        state.raise_floor(partition.term)
        state.drop(partition)
    for position in state.positions_of(old.pipeline_id):
        state.drop(position)
    state.drop(old)
    return Outcome()


def enable_pipeline(state: RouterState, command: EnablePipeline, moment: Moment) -> Outcome:
    """Let it run."""
    old = _alive(state, command.pipeline_id)
    state.put(_another_chance(replace(old, enabled=True), moment))
    return Outcome()


def disable_pipeline(state: RouterState, command: DisablePipeline, moment: Moment) -> Outcome:
    """Let it drain and stop."""
    old = _alive(state, command.pipeline_id)
    state.put(replace(old, enabled=False))
    return Outcome()


def set_pipeline_phase(state: RouterState, command: SetPipelinePhase, moment: Moment) -> Outcome:
    """Record a step of its life."""
    old = _known(state, command.pipeline_id)
    if command.phase is old.phase:
        state.put(replace(old, reason=command.reason))
        return Outcome()
    if command.phase not in STEPS[old.phase]:
        raise CommandRejected(
            "conflict",
            f"pipeline {old.pipeline_id!r} is {old.phase}; it cannot become {command.phase}",
        )
    state.put(
        replace(
            old,
            phase=command.phase,
            reason=command.reason,
            phase_since_ms=moment.timestamp_ms,
        )
    )
    return Outcome()


def assign_pipeline(state: RouterState, command: AssignPipeline, moment: Moment) -> Outcome:
    """Record the owner of each stage instance."""
    _known(state, command.pipeline_id)
    sidecar = state.sidecars.get(command.sidecar_id)
    if sidecar is None:
        raise CommandRejected("unknown", f"no sidecar {command.sidecar_id!r} is registered")
    for slot in command.stages:
        endpoint = slot.endpoint
        if slot.service_id:
            service = state.services.get(slot.service_id)
            if service is None or service.sidecar_id != command.sidecar_id:
                raise CommandRejected(
                    "unknown",
                    f"sidecar {command.sidecar_id!r} has no service {slot.service_id!r}"
                    f" for stage {slot.stage!r}",
                )
            endpoint = endpoint or service.endpoint
        elif not endpoint:
            raise CommandRejected(
                "invalid", f"stage {slot.stage!r} is given neither a service nor an endpoint"
            )
        own_instance(
            state,
            InstanceAssignment(
                pipeline_id=command.pipeline_id,
                stage=slot.stage,
                index=slot.index,
                sidecar_id=command.sidecar_id,
                boot_id=sidecar.boot_id,
                service_id=slot.service_id,
                endpoint=endpoint,
                term=0,
            ),
            moment,
        )
    return Outcome()


def revoke_pipeline(state: RouterState, command: RevokePipeline, moment: Moment) -> Outcome:
    """Remove stage instances from the sidecar; those that it has not are left alone."""
    _known(state, command.pipeline_id)
    chosen = None
    if command.stages is not None:
        chosen = {(slot.stage, slot.index) for slot in command.stages}
    for instance in state.instances_of(command.pipeline_id):
        mine = instance.sidecar_id == command.sidecar_id
        if mine and (chosen is None or (instance.stage, instance.index) in chosen):
            remove_instance(state, instance, moment)
    return Outcome()


def assign_source_partitions(
    state: RouterState, command: AssignSourcePartitions, moment: Moment
) -> Outcome:
    """Record the owner of each source partition; new names are numbered in the order given."""
    _known(state, command.pipeline_id)
    known = len(state.partitions_of(command.pipeline_id, command.stage))
    for slot in command.partitions:
        partition, is_new = _numbered(state, command, slot, known)
        if is_new:
            known += 1
            if known > PARTITIONS_MAX:
                raise CommandRejected(
                    "full", f"stage {command.stage!r} has more than {PARTITIONS_MAX} partitions"
                )
        state.put(partition)
        if slot.index is None:
            release_partition(state, partition, moment)
            continue
        instance = state.instances.get((command.pipeline_id, command.stage, slot.index))
        if instance is None:
            raise CommandRejected(
                "unknown",
                f"stage {command.stage!r} has no instance {slot.index} for"
                f" partition {slot.partition!r}",
            )
        own_partition(state, partition, instance, moment)
    return Outcome()


def _numbered(
    state: RouterState, command: AssignSourcePartitions, slot: PartitionSlot, known: int
) -> tuple[PartitionOwner, bool]:
    old = state.partitions.get((command.pipeline_id, command.stage, slot.partition))
    if old is not None:
        return replace(old, bounded=slot.bounded), False
    made = PartitionOwner(
        pipeline_id=command.pipeline_id,
        stage=command.stage,
        partition=slot.partition,
        number=known,
        bounded=slot.bounded,
        term=state.term_floor,
    )
    return made, True


def _another_chance(pipeline: PipelineRecord, moment: Moment) -> PipelineRecord:
    """What had ended is looked at again, because somebody asked for it."""
    if pipeline.phase not in (PipelinePhase.FAILED, PipelinePhase.COMPLETED):
        return pipeline
    return replace(
        pipeline, phase=PipelinePhase.PENDING, reason="", phase_since_ms=moment.timestamp_ms
    )


def _known(state: RouterState, pipeline_id: str) -> PipelineRecord:
    pipeline = state.pipelines.get(pipeline_id)
    if pipeline is None:
        raise CommandRejected("unknown", f"there is no pipeline {pipeline_id!r}")
    return pipeline


def _alive(state: RouterState, pipeline_id: str) -> PipelineRecord:
    pipeline = _known(state, pipeline_id)
    if pipeline.deleting:
        raise CommandRejected(
            "conflict", f"pipeline {pipeline_id!r} is being deleted; wait until it is gone"
        )
    return pipeline
