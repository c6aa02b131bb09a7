"""A sidecar's table, and the stage instances in it."""

from __future__ import annotations

from conveyor_grpc.convert.services import MESSAGE_OF_HEALTH, description_message
from conveyor_grpc.wire import table_pb2 as wire
from conveyor_registry import SidecarTable, TableInstance, TablePartition, TablePipeline


def instance_message(instance: TableInstance) -> wire.StageInstance:
    """Return the message for a stage instance."""
    return wire.StageInstance(
        stage=instance.stage,
        index=instance.index,
        term=instance.term,
        sidecar_id=instance.sidecar_id,
        boot_id=instance.boot_id,
        sidecar_endpoint=instance.sidecar_endpoint,
        service_id=instance.service_id,
        service_endpoint=instance.service_endpoint,
        capabilities=description_message(instance.service),
        health=MESSAGE_OF_HEALTH[instance.health],
    )


def _partition_message(partition: TablePartition) -> wire.SourcePartition:
    return wire.SourcePartition(
        stage=partition.stage,
        partition=partition.partition,
        term=partition.term,
        instance=partition.instance,
        replay_id=partition.replay_id,
        resume_position=partition.resume_position,
        next_ordinal=partition.next_ordinal,
        finished=partition.finished,
        number=partition.number,
        draining=partition.draining,
    )


def _pipeline_message(pipeline: TablePipeline) -> wire.TablePipeline:
    return wire.TablePipeline(
        pipeline=pipeline.pipeline_id,
        version=pipeline.version,
        manifest=pipeline.manifest,
        phase=pipeline.phase.value,
        documents=[
            wire.TableDocument(kind=one.kind, name=one.name, document=one.document)
            for one in pipeline.documents
        ],
        instances=[instance_message(instance) for instance in pipeline.instances],
        partitions=[_partition_message(partition) for partition in pipeline.partitions],
    )


def table_message(table: SidecarTable) -> wire.SidecarTable:
    """Return the message for a table; equal tables of one revision are equal bytes."""
    return wire.SidecarTable(
        revision=table.revision,
        sidecar_id=table.sidecar_id,
        boot_id=table.boot_id,
        pipelines=[_pipeline_message(pipeline) for pipeline in table.pipelines],
    )
