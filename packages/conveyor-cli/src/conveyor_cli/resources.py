"""Resources as the routers list them: how each kind is fetched, its row in a table, its data."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from conveyor_cli.output import age
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import NotFoundError
from conveyor_grpc.wire import admin_pb2, registry_pb2, sidecar_pb2
from conveyor_registry.model import DocumentRefused, nearest, parse_document
from conveyor_sdk.wire.info_pb2 import Kind

CONCURRENT_MAX = 16

Data = dict[str, Any]
Fetch = Callable[[RouterAdminClient, str, str], Awaitable[list[Any]]]


def seconds_of(moment: Timestamp) -> float | None:
    """Seconds since 1970, or None when the field was not set."""
    return moment.seconds + moment.nanos / 1e9 if moment.seconds or moment.nanos else None


def age_of(moment: Timestamp, now: float) -> str:
    """How long ago a moment was."""
    seconds = seconds_of(moment)
    return age(None if seconds is None else now - seconds)


def iso_of(moment: Timestamp) -> str | None:
    """The moment as RFC 3339 text, or None when the field was not set."""
    return None if seconds_of(moment) is None else moment.ToJsonString()


def health_word(health: registry_pb2.ServiceHealth.ValueType) -> str:
    """``Healthy``, ``Degraded``, ``Unhealthy`` or ``Unknown``."""
    name = registry_pb2.ServiceHealth.Name(health).removeprefix("SERVICE_HEALTH_")
    return "Unknown" if name == "UNSPECIFIED" else name.capitalize()


def kind_word(kind: Kind.ValueType) -> str:
    """``Source``, ``Transform``, ``Sink`` or ``Lookup``."""
    return Kind.Name(kind).removeprefix("KIND_").capitalize()


def listed(*kinds: str) -> Fetch:
    """Fetch resources of kinds; a name given keeps that one, in ``default`` if not told."""

    async def fetch(client: RouterAdminClient, namespace: str, name: str) -> list[Any]:
        answers = await asyncio.gather(*(client.list(kind, namespace=namespace) for kind in kinds))
        found = [resource for answer in answers for resource in answer.resources]
        return chosen(found, name, _names_of, kinds[0])

    return fetch


def _names_of(resource: admin_pb2.Resource) -> tuple[str, ...]:
    """What a resource may be called: services by their id and by the name they describe."""
    if resource.HasField("service"):
        return resource.name, resource.service.description.name
    return (resource.name,)


def chosen(
    found: list[Any], name: str, names_of: Callable[[Any], tuple[str, ...]], kind: str
) -> list[Any]:
    """Those with the name, or all when none is given.

    Raises:
        NotFoundError: there is none of this name; the message names the nearest.
    """
    if not name:
        return found
    kept = [resource for resource in found if name in names_of(resource)]
    if not kept:
        close = nearest(name, {known for resource in found for known in names_of(resource)})
        meant = f"; did you mean {close!r}?" if close else ""
        raise NotFoundError(f"there is no {kind} named {name!r}{meant}")
    return kept


def document_of(resource: admin_pb2.Resource) -> Data:
    """The applied document of a resource, as it would stand in a file.

    A document of a newer release, which this one cannot read, is shown as it is.
    """
    if not resource.document:
        return {}
    try:
        return parse_document(resource.document).plain()
    except DocumentRefused:
        data: Data = json.loads(resource.document)
        return data


def pipeline_row(resource: Any, now: float) -> Sequence[object]:
    """A pipeline's row."""
    summary = resource.pipeline
    return (
        resource.namespace,
        resource.name,
        summary.phase,
        resource.version,
        age_of(summary.changed_at, now),
        summary.reason if summary.enabled else summary.reason or "disabled",
    )


def pipeline_data(resource: Any) -> Data:
    """A pipeline as data."""
    return {
        "kind": "Pipeline",
        "namespace": resource.namespace,
        "name": resource.name,
        "version": resource.version,
        "digest": resource.digest,
        **summary_data(resource.pipeline),
        "document": document_of(resource),
    }


def summary_data(summary: admin_pb2.PipelineSummary) -> Data:
    """Phase and reason of a pipeline."""
    return {
        "enabled": summary.enabled,
        "phase": summary.phase,
        "reason": summary.reason,
        "changed_at": iso_of(summary.changed_at),
    }


def service_row(resource: Any, now: float) -> Sequence[object]:
    """A service's row."""
    service = resource.service
    return (
        resource.namespace,
        service.description.name,
        kind_word(service.description.kind),
        health_word(service.health),
        service.endpoint,
        service.sidecar_id,
        service.service_id,
        age_of(service.last_heartbeat, now),
        service.health_reason,
    )


def service_data(resource: Any) -> Data:
    """A registered service as data."""
    service = resource.service
    description = service.description
    return {
        "kind": "Service",
        "namespace": resource.namespace,
        "id": service.service_id,
        "name": description.name,
        "service_kind": kind_word(description.kind),
        "version": description.version,
        "labels": dict(description.labels),
        "endpoint": service.endpoint,
        "health": health_word(service.health),
        "health_reason": service.health_reason,
        "group": service.group_id,
        "sidecar": service.sidecar_id,
        "registered_at": iso_of(service.registered_at),
        "last_heartbeat": iso_of(service.last_heartbeat),
        "partitions": list(description.partitions),
        "bounded": description.bounded,
        "stable_offsets": description.stable_offsets,
        "idempotent": description.idempotent,
        "transactional": description.transactional,
        "described": not service.undescribed,
    }


def sidecar_row(resource: Any, now: float) -> Sequence[object]:
    """A sidecar's row."""
    sidecar = resource.sidecar
    return (
        resource.namespace,
        sidecar.sidecar_id,
        "Draining" if sidecar.draining else health_word(sidecar.health),
        sidecar.endpoint,
        sidecar.pod_name,
        len(sidecar.service_ids),
        f"{sidecar.load:.0%}",
        age_of(sidecar.last_heartbeat, now),
        sidecar.health_reason,
    )


def sidecar_data(resource: Any) -> Data:
    """A sidecar as data."""
    sidecar: sidecar_pb2.Sidecar = resource.sidecar
    return {
        "kind": "Sidecar",
        "namespace": resource.namespace,
        "id": sidecar.sidecar_id,
        "boot_id": sidecar.boot_id,
        "endpoint": sidecar.endpoint,
        "pod": sidecar.pod_name,
        "labels": dict(sidecar.labels),
        "version": sidecar.version,
        "services": list(sidecar.service_ids),
        "health": health_word(sidecar.health),
        "health_reason": sidecar.health_reason,
        "draining": sidecar.draining,
        "registered_at": iso_of(sidecar.registered_at),
        "last_heartbeat": iso_of(sidecar.last_heartbeat),
        "revision_applied": sidecar.revision_applied,
        "load": sidecar.load,
        "dead_letters": [
            {"pipeline": held.pipeline, "records": held.records, "bytes": held.bytes}
            for held in sidecar.dead_letters
        ],
    }


def group_row(resource: Any, now: float) -> Sequence[object]:
    """A group's row."""
    group = resource.group
    return (
        group.group_id,
        group.service_name,
        group.generation,
        len(group.members),
        len(group.partition_names),
        ", ".join(group.topics),
    )


def group_data(resource: Any) -> Data:
    """A consumer group as data."""
    group: registry_pb2.Group = resource.group
    return {
        "kind": "Group",
        "id": group.group_id,
        "service": group.service_name,
        "generation": group.generation,
        "topics": list(group.topics),
        "partitions": list(group.partition_names),
        "members": [
            {"id": member.member_id, "partitions": list(member.assigned_partitions)}
            for member in group.members
        ],
    }


def document_row(resource: Any, now: float) -> Sequence[object]:
    """An applied document's row."""
    return (
        resource.kind,
        resource.namespace,
        resource.name,
        resource.version,
        resource.digest[:12],
    )
