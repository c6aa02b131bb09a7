"""What runs: the pipelines' statuses, and the assignments and positions in them."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conveyor_cli.resources import Data, age_of, health_word, iso_of, listed
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import NotFoundError
from conveyor_grpc.wire import admin_pb2, checkpoint_pb2, table_pb2

CONCURRENT_MAX = 16


async def pipeline_statuses(
    client: RouterAdminClient, namespace: str, name: str
) -> list[admin_pb2.PipelineStatusResponse]:
    """The status of each pipeline, in the order of their names."""
    resources = await listed("Pipeline")(client, namespace, name)
    limit = asyncio.Semaphore(CONCURRENT_MAX)

    async def one(resource: Any) -> admin_pb2.PipelineStatusResponse | None:
        async with limit:
            try:
                return await client.pipeline_status(resource.name, namespace=resource.namespace)
            except NotFoundError:
                return None

    statuses = await asyncio.gather(*(one(resource) for resource in resources))
    return [status for status in statuses if status is not None]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who runs one instance of a stage."""

    pipeline: str
    stage: str
    kind: str
    instance: table_pb2.StageInstance
    partitions: int


async def assignments(client: RouterAdminClient, namespace: str, name: str) -> list[Any]:
    """All instances of all stages of the pipelines."""
    return [
        Assignment(status.pipeline, stage.stage, stage.kind, held.instance, held.partitions)
        for status in await pipeline_statuses(client, namespace, name)
        for stage in status.stages
        for held in stage.instances
    ]


def assignment_row(held: Assignment, now: float) -> Sequence[object]:
    """An assignment's row."""
    instance = held.instance
    return (
        held.pipeline,
        held.stage,
        held.kind,
        instance.index,
        instance.sidecar_id,
        instance.service_id,
        instance.term,
        held.partitions if held.kind == "Source" else "",
        health_word(instance.health),
    )


def assignment_data(held: Assignment) -> Data:
    """An assignment as data."""
    instance = held.instance
    return {
        "kind": "Assignment",
        "pipeline": held.pipeline,
        "stage": held.stage,
        "stage_kind": held.kind,
        "instance": instance.index,
        "term": instance.term,
        "sidecar": instance.sidecar_id,
        "boot_id": instance.boot_id,
        "sidecar_endpoint": instance.sidecar_endpoint,
        "service": instance.service_id,
        "service_endpoint": instance.service_endpoint,
        "health": health_word(instance.health),
        "partitions": held.partitions,
    }


async def positions(client: RouterAdminClient, namespace: str, name: str) -> list[Any]:
    """The positions of all partitions of the pipelines."""
    statuses = await pipeline_statuses(client, namespace, name)
    return [position for status in statuses for position in status.positions]


def position_row(position: Any, now: float) -> Sequence[object]:
    """A position's row."""
    return (
        position.pipeline,
        position.stage,
        position.partition,
        position.ordinal,
        position_text(position),
        position.term,
        "yes" if position.finished else "no",
        age_of(position.committed_at, now),
    )


def position_text(position: checkpoint_pb2.Position) -> str:
    """A source's opaque position as text where it is one, else in hexadecimal."""
    if not position.HasField("position"):
        return ""
    try:
        text = position.position.decode()
    except UnicodeDecodeError:
        return f"0x{position.position.hex()}"
    return text if text.isprintable() else f"0x{position.position.hex()}"


def position_data(position: Any) -> Data:
    """A position as data; the source's own is in base64."""
    encoded = base64.b64encode(position.position).decode()
    return {
        "kind": "Position",
        "pipeline": position.pipeline,
        "stage": position.stage,
        "partition": position.partition,
        "replay_id": position.replay_id,
        "term": position.term,
        "ordinal": position.ordinal,
        "position": encoded if position.HasField("position") else None,
        "finished": position.finished,
        "committed_at": iso_of(position.committed_at),
    }
