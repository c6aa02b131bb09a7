"""Whether a pipeline can work: its graph, its predicates, and what it promises.

:func:`check` looks at the document alone, as an author's editor or ``conveyor validate`` does;
:func:`validate` adds what the cluster knows, as the router does before it proposes anything. The
same code runs in both places, so an author sees early what would be refused later.

A service that nobody offers yet is a warning, not an error: documents may be applied before the
processes start, and the pipeline waits as Pending with the reason. A promise that cannot be
checked is an error: effectively-once needs declarations to rest on.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from conveyor_registry.model.document import DOCUMENT_BYTES_MAX
from conveyor_registry.model.graph import Graph
from conveyor_registry.model.names import nearest
from conveyor_registry.model.pipeline import Edge, Pipeline, Stage
from conveyor_registry.model.policies import Delivery, Order, ServiceKind, Slow
from conveyor_registry.model.predicate import PredicateError, parse_predicate
from conveyor_registry.model.problem import Path, Problem
from conveyor_registry.model.service import ServiceDocument, ServiceOffer

EXACTLY_ONCE_REFUSED = (
    "exactly-once is not available yet: it needs epochs and transactional sinks, which this "
    "version does not have; use effectively-once with sinks that are idempotent"
)

ORDER_PARTITION_REFUSED = (
    "order: partition is not available yet; use order: key with the partition as the records' key"
)
SLOW_BLOCKS = "slow: {slow} is not available yet: the edge blocks instead, which loses nothing"


def check(pipeline: Pipeline) -> list[Problem]:
    """All that is wrong with the document by itself."""
    problems = list(_check_ids(pipeline))
    if not problems:
        problems = [*_check_edges(pipeline), *_check_shape(pipeline, Graph.of(pipeline))]
    if pipeline.delivery is Delivery.EXACTLY_ONCE:
        problems.append(Problem.error(("spec", "delivery"), EXACTLY_ONCE_REFUSED))
    size = len(pipeline.canonical())
    if size > DOCUMENT_BYTES_MAX:
        problems.append(
            Problem.error((), f"the pipeline has {size} bytes; at most {DOCUMENT_BYTES_MAX}")
        )
    return problems


def validate(
    pipeline: Pipeline,
    services: Iterable[ServiceOffer],
    documents: Iterable[ServiceDocument],
) -> list[Problem]:
    """All that is wrong with the pipeline in a cluster with these services and documents.

    A registered service's own description outweighs the document's ``declares``. Where several
    instances of a service are registered, a promise holds only if all of them make it.
    """
    known = _Known.of(pipeline.namespace, services, documents)
    problems = check(pipeline)
    for index, stage in enumerate(pipeline.stages):
        problems += _check_service(stage, index, known)
        if pipeline.delivery is Delivery.EFFECTIVELY_ONCE:
            problems += _check_promise(stage, index, known)
    return problems


def _check_ids(pipeline: Pipeline) -> Iterable[Problem]:
    seen: dict[str, int] = {}
    for index, stage in enumerate(pipeline.stages):
        if stage.id in seen:
            message = f"the id {stage.id!r} is already that of stages[{seen[stage.id]}]"
            yield Problem.error(("spec", "stages", index, "id"), message)
        seen.setdefault(stage.id, index)


def _check_edges(pipeline: Pipeline) -> Iterable[Problem]:
    ids = [stage.id for stage in pipeline.stages]
    seen: dict[str, int] = {}
    for index, edge in enumerate(pipeline.edges):
        path: Path = ("spec", "edges", index)
        for key, end in (("from", edge.from_stage), ("to", edge.to_stage)):
            if end not in ids:
                yield Problem.error((*path, key), f"no stage has the id {end!r}", nearest(end, ids))
        if edge.id in seen:
            message = (
                f"edges[{seen[edge.id]}] already joins these stages; join the conditions with ||"
            )
            yield Problem.error(path, message)
        seen.setdefault(edge.id, index)
        yield from _check_edge(edge, path)


def _check_edge(edge: Edge, path: Path) -> Iterable[Problem]:
    if edge.when is not None:
        try:
            parse_predicate(edge.when)
        except PredicateError as error:
            yield Problem.error((*path, "when"), str(error))
    if edge.order is Order.PARTITION:
        yield Problem.error((*path, "order"), ORDER_PARTITION_REFUSED)
    if edge.slow is not Slow.BLOCK:
        yield Problem.warning((*path, "slow"), SLOW_BLOCKS.format(slow=edge.slow))
    if edge.slow is Slow.DROP and not edge.allow_loss:
        yield Problem.error(
            (*path, "slow"), "slow: drop loses records; say so with allowLoss: true"
        )
    if edge.allow_loss and edge.slow is not Slow.DROP:
        yield Problem.warning((*path, "allowLoss"), "has no effect without slow: drop")
    if edge.spill is not None and edge.slow is not Slow.SPILL:
        yield Problem.warning((*path, "spill"), "has no effect without slow: spill")
    if edge.dead_letter_after_ms is not None and edge.slow is not Slow.DEAD_LETTER:
        yield Problem.warning((*path, "deadLetterAfter"), "has no effect without slow: dead-letter")


def _check_shape(pipeline: Pipeline, graph: Graph) -> Iterable[Problem]:
    kinds = {stage.kind for stage in pipeline.stages}
    for kind in (ServiceKind.SOURCE, ServiceKind.SINK):
        if kind not in kinds:
            yield Problem.error(("spec", "stages"), f"the pipeline has no {kind.lower()} stage")
    cycle = graph.cycle()
    if cycle is not None:
        yield Problem.error(("spec", "edges"), f"the stages form a cycle: {' -> '.join(cycle)}")
    reached = graph.descendants(
        stage.id for stage in pipeline.stages if stage.kind is ServiceKind.SOURCE
    )
    for index, stage in enumerate(pipeline.stages):
        path: Path = ("spec", "stages", index)
        label = f"{stage.kind.lower()} stage {stage.id!r}"
        incoming, outgoing = graph.incoming(stage.id), graph.outgoing(stage.id)
        if stage.kind is ServiceKind.SOURCE:
            if incoming:
                origin = incoming[0].from_stage
                yield Problem.error(
                    path, f"the {label} cannot receive: {origin!r} has an edge to it"
                )
        elif stage.id not in reached and cycle is None:
            yield Problem.error(path, f"no source reaches the {label}")
        if stage.kind is ServiceKind.SINK:
            if outgoing:
                target = outgoing[0].to_stage
                yield Problem.error(
                    path, f"the {label} ends records: it cannot have an edge to {target!r}"
                )
        elif not outgoing:
            yield Problem.error(path, f"no edge leaves the {label}: its records would go nowhere")


class _Known(NamedTuple):
    """What a namespace offers, by kind and name."""

    offers: Mapping[tuple[ServiceKind, str], list[ServiceOffer]]
    documents: Mapping[tuple[ServiceKind, str], ServiceDocument]
    elsewhere: Mapping[tuple[ServiceKind, str], str]
    """Another namespace that has a service of this kind and name."""

    @classmethod
    def of(
        cls, namespace: str, services: Iterable[ServiceOffer], documents: Iterable[ServiceDocument]
    ) -> "_Known":
        offers: dict[tuple[ServiceKind, str], list[ServiceOffer]] = {}
        elsewhere: dict[tuple[ServiceKind, str], str] = {}
        for offer in services:
            if offer.namespace == namespace:
                offers.setdefault((offer.kind, offer.name), []).append(offer)
            else:
                elsewhere.setdefault((offer.kind, offer.name), offer.namespace)
        here = {(d.service_kind, d.name): d for d in documents if d.namespace == namespace}
        return cls(offers, here, elsewhere)

    def names(self) -> set[tuple[ServiceKind, str]]:
        return {*self.offers, *self.documents}

    def offered(self, kind: ServiceKind, name: str) -> list[ServiceOffer]:
        """What is declared for a service: by its instances, else by its document."""
        offers = self.offers.get((kind, name))
        if offers:
            return offers
        document = self.documents.get((kind, name))
        declared = document.offer() if document else None
        return [declared] if declared else []


def _service_path(stage: Stage, index: int) -> Path:
    return ("spec", "stages", index, stage.kind.lower())


def _check_service(stage: Stage, index: int, known: _Known) -> Iterable[Problem]:
    names = known.names()
    if (stage.kind, stage.service) in names:
        return
    others = [kind for kind, name in names if name == stage.service]
    waits = "the pipeline waits until one is"
    namespace = known.elsewhere.get((stage.kind, stage.service))
    if others or namespace:
        instead = f"a {others[0]} is" if others else f"one in namespace {namespace!r} is"
        message = f"no {stage.kind} named {stage.service!r} is registered, but {instead}; {waits}"
        yield Problem.warning(_service_path(stage, index), message)
        return
    close = nearest(stage.service, [name for kind, name in names if kind is stage.kind])
    message = f"no {stage.kind} named {stage.service!r} is registered or documented; {waits}"
    yield Problem.warning(_service_path(stage, index), message, close)


_PROMISES = {
    ServiceKind.SOURCE: (
        "stable offsets",
        "stable_offsets",
        "its positions must be integers that name the same record at every replay",
    ),
    ServiceKind.SINK: (
        "idempotent",
        "idempotent",
        "writing a lineage key twice must have one effect",
    ),
}


def _check_promise(stage: Stage, index: int, known: _Known) -> Iterable[Problem]:
    promise = _PROMISES.get(stage.kind)
    if promise is None:
        return
    words, attribute, meaning = promise
    offers = known.offered(stage.kind, stage.service)
    path = _service_path(stage, index)
    if not offers:
        yield Problem.error(
            path,
            f"effectively-once needs the {stage.kind} {stage.service!r} to declare {words}, and "
            "nothing is known of it yet; start it first, or apply a document with declares",
        )
    elif not all(getattr(offer, attribute) for offer in offers):
        yield Problem.error(
            path,
            f"effectively-once needs the {stage.kind} {stage.service!r} to declare {words} "
            f"({meaning}); it does not: use at-least-once or change the service",
        )
