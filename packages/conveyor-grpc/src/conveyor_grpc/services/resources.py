"""What `List` and `Get` show: documents as they were applied, and what is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from conveyor_grpc.convert.groups import group_message
from conveyor_grpc.convert.services import service_message, timestamp
from conveyor_grpc.convert.sidecars import sidecar_message
from conveyor_grpc.errors import InvalidRequestError, NotFoundError
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_raft.machines.router import ManifestRecord, PipelineRecord, RouterState
from conveyor_registry import model


def summary_message(record: PipelineRecord) -> wire.PipelineSummary:
    """Return where a pipeline is in its life."""
    return wire.PipelineSummary(
        enabled=record.enabled,
        phase=record.phase.value,
        reason="being deleted" if record.deleting and not record.reason else record.reason,
        changed_at=timestamp(record.phase_since_ms),
    )


def _pipelines(state: RouterState, plane: ControlPlane) -> Iterable[wire.Resource]:
    for record in state.pipelines.values():
        namespace, _, name = record.pipeline_id.partition("/")
        yield wire.Resource(
            kind="Pipeline",
            namespace=namespace,
            name=name,
            version=record.version,
            digest=record.digest,
            document=record.manifest,
            pipeline=summary_message(record),
        )


def _document(record: ManifestRecord) -> wire.Resource:
    return wire.Resource(
        kind=record.kind,
        namespace=record.namespace,
        name=record.name,
        version=record.version,
        digest=record.digest,
        document=record.document,
    )


def _documents_of(kind: str) -> Callable[[RouterState, ControlPlane], Iterable[wire.Resource]]:
    def listed(state: RouterState, plane: ControlPlane) -> Iterable[wire.Resource]:
        return (_document(record) for record in state.manifests.values() if record.kind == kind)

    return listed


def _services(state: RouterState, plane: ControlPlane) -> Iterable[wire.Resource]:
    for record in state.services.values():
        yield wire.Resource(
            kind="Service",
            namespace=record.namespace,
            name=record.service_id,
            service=service_message(
                record, plane.heard_ms(sidecar_id=record.sidecar_id, service_id=record.service_id)
            ),
        )


def _sidecars(state: RouterState, plane: ControlPlane) -> Iterable[wire.Resource]:
    for record in state.sidecars.values():
        report = plane.counters.report(record.sidecar_id)
        message = sidecar_message(
            record, last_heartbeat_ms=plane.heard_ms(sidecar_id=record.sidecar_id)
        )
        if report is not None:
            message.revision_applied = report.revision_applied
            message.load = report.load
            message.dead_letters.extend(report.dead_letters)
        yield wire.Resource(
            kind="Sidecar", namespace=record.namespace, name=record.sidecar_id, sidecar=message
        )


def _groups(state: RouterState, plane: ControlPlane) -> Iterable[wire.Resource]:
    for record in state.groups.values():
        yield wire.Resource(
            kind="Group",
            namespace=model.DEFAULT_NAMESPACE,
            name=record.group_id,
            group=group_message(record),
        )


LISTINGS: dict[str, Callable[[RouterState, ControlPlane], Iterable[wire.Resource]]] = {
    "Pipeline": _pipelines,
    **{kind: _documents_of(kind) for kind in model.KINDS if kind != "Pipeline"},
    "Service": _services,
    "Sidecar": _sidecars,
    "Group": _groups,
}


def listed(
    state: RouterState, plane: ControlPlane, kind: str, namespace: str
) -> list[wire.Resource]:
    """Return all resources of a kind (in a namespace, if it is not empty), sorted.

    Raises:
        InvalidRequestError: there is no such kind.
    """
    listing = LISTINGS.get(kind)
    if listing is None:
        close = model.nearest(kind, LISTINGS)
        hint = f"; did you mean {close}?" if close else ""
        raise InvalidRequestError(f"{kind!r} is not one of {', '.join(LISTINGS)}{hint}")
    resources = [
        resource
        for resource in listing(state, plane)
        if not namespace or resource.namespace == namespace
    ]
    return sorted(resources, key=lambda resource: (resource.namespace, resource.name))


def found(
    state: RouterState, plane: ControlPlane, kind: str, namespace: str, name: str
) -> wire.Resource:
    """Return one resource; a service or sidecar is found in any namespace if none is given.

    Raises:
        InvalidRequestError: there is no such kind.
        NotFoundError: there is no such resource; the message names the nearest.
    """
    if not namespace and kind not in ("Service", "Sidecar"):
        namespace = model.DEFAULT_NAMESPACE
    resources = listed(state, plane, kind, namespace)
    for resource in resources:
        if resource.name == name:
            return resource
    close = model.nearest(name, [resource.name for resource in resources])
    place = f" in namespace {namespace}" if namespace else ""
    hint = f"; did you mean {close!r}?" if close else ""
    raise NotFoundError(f"there is no {kind} {name!r}{place}{hint}")
