"""The routing table: what this sidecar takes part in, translated once and swapped in one step.

The routers hand out a whole table (``conveyor.control.v1.SidecarTable``). ``translate`` turns it
into one frozen ``Routes``: the engine's own table (stages, edges with compiled conditions,
instances, partitions) and what the shell needs beside it to perform effects (where local services
are, which stages have keyed edges, how many dead letters a pipeline may keep). ``RoutingTable``
holds the one in force; swapping is one assignment, so nobody ever sees half of a table.

A pipeline whose documents cannot be read (written by a newer release, say) is left out with its
reason, and the others run.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from conveyor_grpc.wire import table_pb2
from conveyor_registry import model
from conveyor_sidecar.core import routes
from conveyor_sidecar.dead_letters import DeadLetterLimits
from conveyor_sidecar.routing.opened_records import OpenedRecords

logger = logging.getLogger(__name__)

_RUNNING_PHASES = frozenset({"Running", "Draining"})
_KINDS = {
    model.ServiceKind.SOURCE: routes.StageKind.SOURCE,
    model.ServiceKind.TRANSFORM: routes.StageKind.TRANSFORM,
    model.ServiceKind.SINK: routes.StageKind.SINK,
    # To the engine a lookup is a transform with one output per input.
    model.ServiceKind.LOOKUP: routes.StageKind.TRANSFORM,
}


@dataclass(frozen=True, slots=True)
class LocalService:
    """A service beside this sidecar that the table assigns work to."""

    service_id: str
    endpoint: str
    name: str
    kind: model.ServiceKind
    concurrency_max: int = 1
    batch_records_max: int = 0
    batch_bytes_max: int = 0


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What performing a stage's calls needs beyond what the engine knows."""

    kind: model.ServiceKind
    service: str
    keyed: bool = False
    stable_offsets: bool = False
    cache_ms: int = 0
    miss: model.Miss = model.Miss.PASS


@dataclass(frozen=True, slots=True)
class Routes:
    """One table, translated."""

    table: routes.Table = field(default_factory=routes.Table)
    services: Mapping[str, LocalService] = field(default_factory=dict)
    stages: Mapping[tuple[str, str], StageFacts] = field(default_factory=dict)
    dead_letters: Mapping[str, DeadLetterLimits] = field(default_factory=dict)
    replays: Mapping[routes.PartitionKey, str] = field(default_factory=dict)
    records: OpenedRecords = field(default_factory=OpenedRecords)

    @property
    def peer_endpoints(self) -> frozenset[str]:
        """The addresses of sidecars that may be connected to under this table."""
        return frozenset(
            instance.endpoint
            for pipeline in self.table.pipelines.values()
            for instance in pipeline.instances
        )

    @property
    def service_endpoints(self) -> frozenset[str]:
        """The addresses of local services that may be connected to under this table."""
        return frozenset(service.endpoint for service in self.services.values())


class RoutingTable:
    """Maps pipeline stages to endpoints: the routes in force."""

    def __init__(self) -> None:
        self.routes = Routes()

    def endpoints(self, pipeline: str, stage: str) -> tuple[str, ...]:
        """Where a stage's instances take records, by instance; empty if it is not known here."""
        found = self.routes.table.pipelines.get(pipeline)
        return tuple(item.endpoint for item in found.instances_of(stage)) if found else ()

    def swap(self, new: Routes) -> Routes:
        """Put a new table in force; returns the old one."""
        old, self.routes = self.routes, new
        return old


@dataclass(frozen=True, slots=True)
class _Part:
    """One pipeline's share of a table."""

    pipeline: routes.Pipeline
    services: Mapping[str, LocalService]
    stages: Mapping[tuple[str, str], StageFacts]
    dead_letters: DeadLetterLimits
    replays: Mapping[routes.PartitionKey, str]


def translate(table: table_pb2.SidecarTable) -> Routes:
    """The routes of a table from the routers."""
    records = OpenedRecords()
    parts: list[_Part] = []
    for entry in table.pipelines:
        if entry.phase not in _RUNNING_PHASES:
            continue
        try:
            parts.append(_part(entry, table.sidecar_id, records))
        except (model.DocumentRefused, model.PredicateError, KeyError) as error:
            logger.warning("pipeline %s cannot run here: %s", entry.pipeline, error)
    return Routes(
        table=routes.Table(
            revision=table.revision,
            pipelines={part.pipeline.name: part.pipeline for part in parts},
        ),
        services={key: value for part in parts for key, value in part.services.items()},
        stages={key: value for part in parts for key, value in part.stages.items()},
        dead_letters={part.pipeline.name: part.dead_letters for part in parts},
        replays={key: value for part in parts for key, value in part.replays.items()},
        records=records,
    )


def replay_number(replay_id: str) -> int:
    """The engine's number for a replay id; 0 is live."""
    return zlib.crc32(replay_id.encode()) | 1 if replay_id else 0


def _part(entry: table_pb2.TablePipeline, sidecar_id: str, records: OpenedRecords) -> _Part:
    pipeline = model.Pipeline.parse(entry.manifest)
    documents = {
        (item.kind, item.name): model.ServiceDocument.parse(item.document)
        for item in entry.documents
    }
    offers = {item.stage: item for item in entry.instances}
    keyed = {edge.from_stage for edge in pipeline.edges if edge.order is model.Order.KEY}
    stages: dict[str, routes.Stage] = {}
    facts: dict[tuple[str, str], StageFacts] = {}
    for stage in pipeline.stages:
        document = documents.get((stage.kind.value, stage.service))
        stages[stage.id] = built = _stage(stage, document, offers.get(stage.id))
        facts[entry.pipeline, stage.id] = StageFacts(
            kind=stage.kind,
            service=stage.service,
            keyed=stage.id in keyed,
            stable_offsets=built.stable_offsets,
            cache_ms=stage.cache_ms or 0,
            miss=stage.on_miss,
        )
    letters = pipeline.spec.dead_letters
    return _Part(
        pipeline=routes.Pipeline(
            name=entry.pipeline,
            version=entry.version,
            stages=stages,
            edges=tuple(_edge(edge, records) for edge in pipeline.edges),
            instances=tuple(_instance(item) for item in entry.instances),
            partitions=tuple(_partition(item) for item in entry.partitions),
        ),
        services={
            item.service_id: _service(item, pipeline.stage(item.stage))
            for item in entry.instances
            if item.sidecar_id == sidecar_id and item.service_id
        },
        stages=facts,
        dead_letters=DeadLetterLimits(letters.bytes, letters.keep_ms),
        replays={
            routes.PartitionKey(entry.pipeline, item.stage, item.partition): item.replay_id
            for item in entry.partitions
        },
    )


def _stage(
    stage: model.Stage,
    document: model.ServiceDocument | None,
    instance: table_pb2.StageInstance | None,
) -> routes.Stage:
    resolved = stage.resolved(document)
    timeout_ms = resolved.timeout_ms
    stable = False
    if instance is not None:
        said = instance.capabilities
        stable = said.stable_offsets
        by_manifest = stage.timeout_ms is not None or (
            document is not None and document.spec.timeout_ms is not None
        )
        if said.HasField("call_timeout") and not by_manifest:
            timeout_ms = said.call_timeout.ToMilliseconds() or timeout_ms
    if document is not None and document.spec.declares is not None:
        stable = stable or document.spec.declares.stable_offsets
    return routes.Stage(
        name=stage.id,
        kind=_KINDS[stage.kind],
        retry=routes.RetryPolicy(
            attempts=stage.retry.attempts,
            backoff_ms=stage.retry.backoff_ms,
            backoff_max_ms=stage.retry.max_ms,
            jitter=stage.retry.jitter,
        ),
        batch=routes.BatchPolicy(*resolved.batch),
        timeout_ms=timeout_ms,
        config=dict(resolved.config),
        stable_offsets=stable,
    )


def _edge(edge: model.Edge, records: OpenedRecords) -> routes.Edge:
    return routes.Edge(
        producer=edge.from_stage,
        consumer=edge.to_stage,
        keyed=edge.order is model.Order.KEY,
        condition=None
        if edge.when is None
        else records.condition(model.parse_predicate(edge.when)),
    )


def _instance(item: table_pb2.StageInstance) -> routes.Instance:
    return routes.Instance(
        stage=item.stage,
        index=item.index,
        term=item.term,
        sidecar_id=item.sidecar_id,
        endpoint=item.sidecar_endpoint,
        service_id=item.service_id,
        boot_id=item.boot_id,
    )


def _partition(item: table_pb2.SourcePartition) -> routes.SourcePartition:
    return routes.SourcePartition(
        stage=item.stage,
        index=item.instance,
        partition=item.partition,
        term=item.term,
        replay_id=replay_number(item.replay_id),
        resume=item.resume_position,
        from_start=not item.HasField("resume_position"),
        next_ordinal=item.next_ordinal,
        finished=item.finished,
        draining=item.draining,
    )


def _service(item: table_pb2.StageInstance, stage: model.Stage) -> LocalService:
    said = item.capabilities
    return LocalService(
        service_id=item.service_id,
        endpoint=item.service_endpoint,
        name=said.name or stage.service,
        kind=stage.kind,
        concurrency_max=said.concurrency_max or 1,
        batch_records_max=said.batch_records_max,
        batch_bytes_max=said.batch_bytes_max,
    )
