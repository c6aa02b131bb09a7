from typing import Any

import pytest

from conveyor_registry.model import (
    Pipeline,
    Problem,
    ServiceDocument,
    ServiceKind,
    ServiceOffer,
    Severity,
    check,
    validate,
)
from conveyor_registry.model.pipeline import as_written

OFFERS = [
    ServiceOffer(ServiceKind.SOURCE, "flights", stable_offsets=True, bounded=True),
    ServiceOffer(ServiceKind.TRANSFORM, "drop-cancelled"),
    ServiceOffer(ServiceKind.TRANSFORM, "enrich"),
    ServiceOffer(ServiceKind.LOOKUP, "users"),
    ServiceOffer(ServiceKind.SINK, "warehouse", idempotent=True),
]


def texts(problems: list[Problem]) -> str:
    return "\n".join(str(problem) for problem in problems)


def shaped(flights: dict[str, Any], stages: dict[str, str], edges: list[str]) -> list[Problem]:
    flights["spec"] = {
        "stages": [{"id": name, kind: name} for name, kind in stages.items()],
        "edges": [{"from": e.split(">")[0], "to": e.split(">")[1]} for e in edges],
    }
    return check(Pipeline.of(flights))


def test_a_good_pipeline_has_no_problems(pipeline: Pipeline) -> None:
    """The manual's example is valid in a cluster that has its services."""
    assert validate(pipeline, OFFERS, []) == []


def test_fan_out_and_fan_in_are_valid(flights: dict[str, Any]) -> None:
    """Two sources into one transform into two sinks."""
    stages = {"s": "source", "t": "source", "m": "transform", "x": "sink", "y": "sink"}
    assert shaped(flights, stages, ["s>m", "t>m", "m>x", "m>y"]) == []


@pytest.mark.parametrize(
    ("stages", "edges", "problem"),
    [
        ({"s": "source", "x": "sink"}, [], "no edge leaves the source stage 's'"),
        ({"s": "source", "x": "sink"}, [], "no source reaches the sink stage 'x'"),
        ({"m": "transform", "x": "sink"}, ["m>x"], "has no source stage"),
        ({"s": "source", "m": "transform"}, ["s>m"], "has no sink stage"),
        ({"s": "source", "m": "transform"}, ["s>m"], "no edge leaves the transform stage 'm'"),
        (
            {"s": "source", "m": "transform", "n": "transform", "x": "sink"},
            ["s>m", "m>n", "n>m", "n>x"],
            "cycle: m -> n -> m",
        ),
        ({"s": "source", "x": "sink"}, ["s>x", "x>s"], "the sink stage 'x' ends records"),
        ({"s": "source", "x": "sink"}, ["s>x", "x>s"], "the source stage 's' cannot receive"),
        ({"s": "source", "x": "sink"}, ["s>x", "s>x"], "edges[0] already joins these stages"),
        (
            {"s": "source", "enrich": "transform", "x": "sink"},
            ["s>enrch", "enrich>x"],
            "no stage has the id 'enrch' (did you mean 'enrich'?)",
        ),
        (
            {"s": "source", "m": "transform", "n": "transform", "x": "sink"},
            ["s>x", "m>n", "n>x"],
            "no source reaches the transform stage 'n'",
        ),
    ],
)
def test_a_wrong_shape_is_refused(
    flights: dict[str, Any], stages: dict[str, str], edges: list[str], problem: str
) -> None:
    """Everything that would strand records or loop them is named with the stage."""
    assert problem in texts(shaped(flights, stages, edges))


def test_ids_are_unique(flights: dict[str, Any]) -> None:
    """A repeated id is refused at its second place."""
    flights["spec"]["stages"][4]["id"] = "enrich"
    del flights["spec"]["edges"]
    assert "spec.stages[4].id: the id 'enrich' is already that of stages[2]" in texts(
        check(Pipeline.of(flights))
    )


def test_a_predicate_is_checked_with_its_caret(flights: dict[str, Any]) -> None:
    """The problem carries the two lines that show the place."""
    flights["spec"]["edges"][3]["when"] = 'typ == "flight"'
    (problem,) = check(Pipeline.of(flights))
    assert problem.where == "spec.edges[3].when"
    assert str(problem).splitlines()[1:] == ['  typ == "flight"', "  ^"]


@pytest.mark.parametrize(
    ("edge", "severity", "problem"),
    [
        ({"slow": "drop"}, Severity.ERROR, "allowLoss: true"),
        ({"allowLoss": "true"}, Severity.WARNING, "no effect"),
        ({"spill": {"bytes": "1MiB"}}, Severity.WARNING, "no effect"),
        ({"deadLetterAfter": "10m"}, Severity.WARNING, "no effect"),
    ],
)
def test_what_an_edge_does_when_slow(
    flights: dict[str, Any], edge: dict[str, Any], severity: Severity, problem: str
) -> None:
    """Loss needs consent; options that do nothing are pointed out."""
    flights["spec"]["edges"][0] |= edge
    *_, found = check(Pipeline.of(flights))
    assert found.severity is severity
    assert problem in found.message


@pytest.mark.parametrize("slow", ["spill", "dead-letter", "drop"])
def test_what_is_not_carried_out_yet_is_said(flights: dict[str, Any], slow: str) -> None:
    """Blocking instead loses nothing, so the pipeline is taken, with a warning."""
    flights["spec"]["edges"][0] |= {"slow": slow, "allowLoss": str(slow == "drop").lower()}
    (problem,) = check(Pipeline.of(flights))
    assert problem.severity is Severity.WARNING
    assert "the edge blocks instead" in problem.message


def test_an_order_that_would_not_be_kept_is_refused(flights: dict[str, Any]) -> None:
    """A weaker order than asked for would be a broken promise."""
    flights["spec"]["edges"][0]["order"] = "partition"
    (problem,) = check(Pipeline.of(flights))
    assert problem.severity is Severity.ERROR
    assert "order: key" in problem.message


def test_exactly_once_is_refused_with_the_reason(flights: dict[str, Any]) -> None:
    """The reason says what is missing and what to use instead."""
    flights["spec"]["delivery"] = "exactly-once"
    (problem,) = check(Pipeline.of(flights))
    assert problem.severity is Severity.ERROR
    assert "epochs" in problem.message
    assert "effectively-once" in problem.message


def test_effectively_once_needs_what_it_rests_on(flights: dict[str, Any]) -> None:
    """Stable offsets of every source and idempotence of every sink, by all instances."""
    flights["spec"]["delivery"] = "effectively-once"
    pipeline = Pipeline.of(flights)
    assert validate(pipeline, OFFERS, []) == []
    weaker = [*OFFERS, ServiceOffer(ServiceKind.SINK, "warehouse", idempotent=False)]
    (problem,) = validate(pipeline, weaker, [])
    assert problem.severity is Severity.ERROR
    assert problem.where == "spec.stages[4].sink"
    found = texts(validate(pipeline, [], []))
    assert "stable offsets, and nothing is known of it yet" in found


def test_a_document_declares_for_a_service_that_cannot(flights: dict[str, Any]) -> None:
    """Declarations count where no instance describes itself, and only there."""
    flights["spec"]["delivery"] = "effectively-once"
    pipeline = Pipeline.of(flights)
    document = ServiceDocument.of(
        {
            "apiVersion": "conveyor/v1",
            "kind": "Sink",
            "metadata": {"name": "warehouse"},
            "spec": {"declares": {"idempotent": "true"}},
        }
    )
    assert validate(pipeline, OFFERS[:4], [document]) == []
    plain = ServiceOffer(ServiceKind.SINK, "warehouse")
    assert len(validate(pipeline, [*OFFERS[:4], plain], [document])) == 1


def test_an_unknown_service_is_a_warning_with_the_nearest(pipeline: Pipeline) -> None:
    """Documents may come before processes: the pipeline waits, and a typing mistake shows."""
    offers = [*OFFERS[:2], ServiceOffer(ServiceKind.TRANSFORM, "enricher"), *OFFERS[3:]]
    (problem,) = validate(pipeline, offers, [])
    assert problem.severity is Severity.WARNING
    assert problem.nearest == "enricher"
    assert problem.where == "spec.stages[2].transform"


def test_a_service_of_another_kind_is_pointed_out(pipeline: Pipeline) -> None:
    """A sink is no transform, whatever its name."""
    offers = [*OFFERS[:2], ServiceOffer(ServiceKind.SINK, "enrich"), *OFFERS[3:]]
    (problem,) = validate(pipeline, offers, [])
    assert "but a Sink is" in problem.message


def test_services_of_another_namespace_do_not_count(pipeline: Pipeline) -> None:
    """Namespaces are separate worlds, and a service that is in the wrong one is pointed out."""
    offers = [offer._replace(namespace="other") for offer in OFFERS]
    problems = validate(pipeline, offers, [])
    assert len(problems) == 5
    assert all("but one in namespace 'other' is" in problem.message for problem in problems)


def test_paths_in_the_short_form_are_the_authors() -> None:
    """A problem of an expanded stage points to what was written."""
    spec = {"source": "a", "steps": ["b", "c"], "sink": "d"}
    written = [as_written(("spec", "stages", i, "id"), spec) for i in range(4)]
    assert written == [
        ("spec", "source"),
        ("spec", "steps", 0),
        ("spec", "steps", 1),
        ("spec", "sink"),
    ]
    assert as_written(("spec", "stages", 1), {"stages": []}) == ("spec", "stages", 1)
