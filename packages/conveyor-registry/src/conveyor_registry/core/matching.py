"""Which registered services can run a stage.

A stage names a service. Without a document (or with one that does not say how to match), that is
the name which the service gives in Describe, in the pipeline's namespace. A document may recognise
a foreign process by port, by a gRPC service that reflection lists, or by labels; and it may name a
static endpoint, which any living sidecar of the namespace can call.

What a described service says of itself outweighs the document's ``declares``; an undescribed one is
what the document declares it to be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Protocol

from conveyor_raft.machines.router.records import (
    ManifestRecord,
    ServiceHealth,
    ServiceRecord,
    ServiceType,
    SidecarRecord,
)
from conveyor_registry.model import (
    DocumentKey,
    DocumentRefused,
    Match,
    Pipeline,
    ServiceDocument,
    ServiceKind,
    ServiceOffer,
    Stage,
)

PARSED_MAX = 4_096
"""Documents that are kept parsed."""


class Facts(Protocol):
    """What matching reads of the agreed state."""

    @property
    def services(self) -> Mapping[str, ServiceRecord]:
        """All services by id."""
        ...

    @property
    def sidecars(self) -> Mapping[str, SidecarRecord]:
        """All sidecars by id."""
        ...

    @property
    def manifests(self) -> Mapping[tuple[str, str, str], ManifestRecord]:
        """All documents by kind, namespace and name."""
        ...


@lru_cache(maxsize=PARSED_MAX)
def parsed_pipeline(manifest: bytes) -> Pipeline:
    """The pipeline in canonical bytes; raises `DocumentRefused`."""
    return Pipeline.parse(manifest)


@lru_cache(maxsize=PARSED_MAX)
def parsed_document(document: bytes) -> ServiceDocument:
    """The service document in canonical bytes; raises `DocumentRefused`."""
    return ServiceDocument.parse(document)


def applied_document(
    manifests: Mapping[tuple[str, str, str], ManifestRecord],
    namespace: str,
    kind: ServiceKind,
    name: str,
) -> ServiceDocument | None:
    """The document that a stage refers to; None also for one that this release cannot read."""
    record = manifests.get((kind.value, namespace, name))
    if record is None:
        return None
    try:
        return parsed_document(record.document)
    except DocumentRefused:
        return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A service beside a sidecar that could run an instance of the stage."""

    sidecar_id: str
    service_id: str
    """Empty: the document's static endpoint."""
    endpoint: str
    service: ServiceRecord
    """With what the document declares where the service says nothing."""
    usable: bool
    """Whether it should be given anything: alive, not draining, not unhealthy."""
    obstacle: str = ""
    """Why it is not usable."""

    @property
    def key(self) -> tuple[str, str]:
        """What stays the same while it is the same instance."""
        return (self.sidecar_id, self.service_id)

    @property
    def partitions(self) -> tuple[str, ...]:
        """The partitions that a source offers: one, named "0", if it does not say."""
        return self.service.partitions or ("0",)


def effective(record: ServiceRecord, document: ServiceDocument | None) -> ServiceRecord:
    """What the service is taken to be: its own word, else the document's."""
    declares = None if document is None else document.spec.declares
    if record.described or declares is None:
        return record
    return replace(
        record,
        partitions=declares.partitions,
        stable_offsets=declares.stable_offsets,
        bounded=declares.bounded,
        idempotent=declares.idempotent,
    )


class Matcher:
    """Answers for one state, with the services sorted once."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._by_kind: dict[tuple[str, str], list[ServiceRecord]] = defaultdict(list)
        self._by_name: dict[tuple[str, str, str], list[ServiceRecord]] = defaultdict(list)
        for service_id in sorted(facts.services):
            record = facts.services[service_id]
            if record.sidecar_id:
                kind = (record.namespace, record.service_type.value)
                self._by_kind[kind].append(record)
                self._by_name[(*kind, record.service_name)].append(record)

    def document(self, namespace: str, kind: ServiceKind, name: str) -> ServiceDocument | None:
        """The document that a stage refers to, if one was applied."""
        return applied_document(self._facts.manifests, namespace, kind, name)

    def candidates(self, namespace: str, stage: Stage) -> list[Candidate]:
        """Who could run the stage, sorted by service id."""
        document = self.document(namespace, stage.kind, stage.service)
        if document is not None and document.spec.endpoint is not None:
            return self._static(namespace, stage, document, document.spec.endpoint)
        found = []
        for record in self._matching(namespace, stage, document):
            sidecar = self._facts.sidecars.get(record.sidecar_id)
            if sidecar is None:
                continue
            obstacle = _obstacle(record, sidecar)
            found.append(
                Candidate(
                    sidecar_id=record.sidecar_id,
                    service_id=record.service_id,
                    endpoint=record.endpoint,
                    service=effective(record, document),
                    usable=not obstacle,
                    obstacle=obstacle,
                )
            )
        return found

    def _static(
        self, namespace: str, stage: Stage, document: ServiceDocument, endpoint: str
    ) -> list[Candidate]:
        service = effective(
            ServiceRecord(
                service_id="",
                service_name=stage.service,
                service_type=ServiceType(stage.kind.value),
                endpoint=endpoint,
                namespace=namespace,
                described=False,
            ),
            document,
        )
        found = []
        for sidecar_id in sorted(self._facts.sidecars):
            sidecar = self._facts.sidecars[sidecar_id]
            if sidecar.namespace == namespace:
                obstacle = _sidecar_obstacle(sidecar)
                found.append(
                    Candidate(
                        sidecar_id=sidecar_id,
                        service_id="",
                        endpoint=endpoint,
                        service=replace(service, sidecar_id=sidecar_id),
                        usable=not obstacle,
                        obstacle=obstacle,
                    )
                )
        return found

    def is_static(self, namespace: str, stage: Stage) -> bool:
        """Whether the stage's document names a static endpoint."""
        document = self.document(namespace, stage.kind, stage.service)
        return document is not None and document.spec.endpoint is not None

    def names(self, namespace: str, kind: ServiceKind) -> list[str]:
        """The names that services of a kind go by, as registered."""
        rows = self._by_kind.get((namespace, kind.value), ())
        return sorted({record.service_name for record in rows})

    def namespaces(self, kind: ServiceKind, name: str) -> list[str]:
        """Where services of this kind and name are registered."""
        return sorted(
            namespace
            for namespace, a_kind, a_name in self._by_name
            if (a_kind, a_name) == (kind.value, name)
        )

    @cached_property
    def documents(self) -> list[ServiceDocument]:
        """All applied service documents."""
        found = []
        for kind, namespace, name in sorted(self._facts.manifests):
            document = self.document(namespace, ServiceKind(kind), name)
            if document is not None:
                found.append(document)
        return found

    def offers(
        self, pipeline: Pipeline, extra: Iterable[ServiceDocument] = ()
    ) -> list[ServiceOffer]:
        """What the pipeline's stages can count on, under the names that the stages use."""
        fresh = {document.key: document for document in extra}
        found = []
        for stage in pipeline.stages:
            key = DocumentKey(stage.kind.value, pipeline.namespace, stage.service)
            document = fresh.get(key) or self.document(
                pipeline.namespace, stage.kind, stage.service
            )
            declared = document is not None and document.spec.declares is not None
            for record in self._matching(pipeline.namespace, stage, document):
                if record.described or declared:
                    found.append(_offer(effective(record, document), stage))
        return found

    def _matching(
        self, namespace: str, stage: Stage, document: ServiceDocument | None
    ) -> list[ServiceRecord]:
        kind = stage.kind.value
        match = None if document is None else document.spec.match
        if match is None or not _says_anything(match):
            return self._by_name.get((namespace, kind, stage.service), [])
        return [one for one in self._by_kind.get((namespace, kind), ()) if _fits(one, match)]


def _says_anything(match: Match) -> bool:
    return match.port is not None or match.grpc_service is not None or bool(match.labels)


def _fits(record: ServiceRecord, match: Match) -> bool:
    if match.port is not None and record.endpoint.rpartition(":")[2] != str(match.port):
        return False
    if match.grpc_service is not None and match.grpc_service not in record.grpc_services:
        return False
    return all(record.labels.get(key) == value for key, value in match.labels.items())


def _obstacle(record: ServiceRecord, sidecar: SidecarRecord) -> str:
    if record.health is ServiceHealth.UNHEALTHY:
        reason = record.health_reason or "no reason given"
        return f"{record.service_id} is unhealthy ({reason})"
    return _sidecar_obstacle(sidecar)


def _sidecar_obstacle(sidecar: SidecarRecord) -> str:
    if sidecar.health is ServiceHealth.UNHEALTHY:
        reason = sidecar.health_reason or "no reason given"
        return f"sidecar {sidecar.sidecar_id} is unhealthy ({reason})"
    return f"sidecar {sidecar.sidecar_id} is draining" if sidecar.draining else ""


def _offer(record: ServiceRecord, stage: Stage) -> ServiceOffer:
    return ServiceOffer(
        kind=stage.kind,
        name=stage.service,
        namespace=record.namespace,
        labels=record.labels,
        partitions=record.partitions or ("0",),
        stable_offsets=record.stable_offsets,
        bounded=record.bounded,
        idempotent=record.idempotent,
        transactional=record.transactional,
    )
