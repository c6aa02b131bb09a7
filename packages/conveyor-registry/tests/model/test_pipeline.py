import json
from typing import Any

import pytest

from conveyor_registry.model import (
    Batch,
    Delivery,
    DocumentRefused,
    Miss,
    Pipeline,
    ServiceDocument,
    ServiceKind,
    Slow,
    document_of,
    parse_document,
)


def refused(data: Any) -> list[str]:
    with pytest.raises(DocumentRefused) as caught:
        Pipeline.of(data)
    return [str(problem) for problem in caught.value.problems]


def test_the_long_form_is_read(pipeline: Pipeline) -> None:
    """Every key of the manual arrives with its unit converted."""
    assert (pipeline.name, pipeline.namespace, pipeline.id) == (
        "flights",
        "default",
        "default/flights",
    )
    assert pipeline.delivery is Delivery.AT_LEAST_ONCE
    assert pipeline.enabled
    enrich = pipeline.stage("enrich")
    assert (enrich.kind, enrich.service, enrich.parallelism) == (ServiceKind.TRANSFORM, "enrich", 2)
    assert (enrich.retry.attempts, enrich.retry.backoff_ms, enrich.retry.max_ms) == (5, 100, 10_000)
    lookup = pipeline.stage("with-user")
    assert (lookup.kind, lookup.cache_ms, lookup.on_miss) == (ServiceKind.LOOKUP, 60_000, Miss.PASS)
    assert lookup.resolved().batch == Batch(records=200, bytes=262_144, linger_ms=5)
    assert pipeline.edges[3].slow is Slow.BLOCK
    assert pipeline.edges[3].id == "with-user->warehouse"
    assert pipeline.spec.dead_letters.keep_ms == 7 * 86_400_000
    assert pipeline.spec.dead_letters.bytes == 1 << 30


def test_absent_edges_are_a_straight_line(flights: dict[str, Any]) -> None:
    """Without edges the stages follow each other in order."""
    del flights["spec"]["edges"]
    edges = [edge.id for edge in Pipeline.of(flights).edges]
    assert edges == [
        "flights->drop-cancelled",
        "drop-cancelled->enrich",
        "enrich->with-user",
        "with-user->warehouse",
    ]


def test_the_short_form_means_the_same_as_the_long_one(flights: dict[str, Any]) -> None:
    """``source, steps, sink`` gives the very document that stages in order give."""
    flights["spec"] = {"source": "in", "steps": ["a", "b"], "sink": "out"}
    short = Pipeline.of(flights)
    flights["spec"] = {
        "stages": [
            {"id": "in", "source": "in"},
            {"id": "a", "transform": "a"},
            {"id": "b", "transform": "b"},
            {"id": "out", "sink": "out"},
        ]
    }
    assert Pipeline.of(flights) == short
    assert Pipeline.of(flights).digest == short.digest


def test_canonical_bytes_read_back_to_the_same_document(pipeline: Pipeline) -> None:
    """parse is the inverse of canonical, and canonical bytes are sorted and without blanks."""
    data = pipeline.canonical()
    assert Pipeline.parse(data) == pipeline
    assert parse_document(data).digest == pipeline.digest
    assert json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode() == data


def test_canonical_bytes_do_not_depend_on_spelling(
    flights: dict[str, Any], pipeline: Pipeline
) -> None:
    """Order of keys, other units and written-out defaults leave the digest alone."""
    flights["spec"]["deadLetters"] = {"bytes": "1024MiB", "keep": "168h"}
    flights["spec"]["stages"][0] = {"source": "flights", "retry": None, "id": "flights"}
    flights["metadata"]["namespace"] = "default"
    assert Pipeline.of(flights).digest == pipeline.digest


def test_canonical_bytes_are_stable(flights: dict[str, Any]) -> None:
    """The golden bytes of a small pipeline: to change them is to change every digest."""
    flights["spec"] = {"source": "a", "sink": "b"}
    assert Pipeline.of(flights).canonical() == (
        b'{"apiVersion":"conveyor/v1","kind":"Pipeline","metadata":{"labels":{},"name":"flights",'
        b'"namespace":"default"},"spec":{"deadLetters":{"bytes":"1GiB","keep":"7d"},'
        b'"delivery":"at-least-once","edges":[{"allowLoss":false,"from":"a","order":"none",'
        b'"slow":"block","to":"b"}],"enabled":true,"stages":[{"id":"a","retry":{"attempts":5,'
        b'"backoff":"100ms","jitter":0.2,"max":"10s"},"source":"a"},{"id":"b","retry":{"attempts":5,'
        b'"backoff":"100ms","jitter":0.2,"max":"10s"},"sink":"b"}]}}'
    )


def test_a_stage_overrides_its_document_key_by_key(flights: dict[str, Any]) -> None:
    """Config, timeout and batch come from the stage, then the document, then the defaults."""
    flights["spec"]["stages"][2] |= {
        "config": {"b": "stage", "c": "stage"},
        "batch": {"records": "7"},
    }
    document = ServiceDocument.of(
        {
            "apiVersion": "conveyor/v1",
            "kind": "Transform",
            "metadata": {"name": "enrich"},
            "spec": {
                "config": {"a": "document", "b": "document"},
                "timeout": "3s",
                "batch": {"records": "9", "linger": "1ms"},
            },
        }
    )
    stage = Pipeline.of(flights).stage("enrich")
    found = stage.resolved(document)
    assert found.config == {"a": "document", "b": "stage", "c": "stage"}
    assert found.timeout_ms == 3_000
    assert found.batch == Batch(records=7, bytes=262_144, linger_ms=1)
    assert stage.resolved(None).timeout_ms == 30_000


def test_retry_grows_to_its_maximum(pipeline: Pipeline) -> None:
    """100 ms * 2**n, at most 10 s, for any number of failures."""
    retry = pipeline.stage("enrich").retry
    assert [retry.delay_ms(n) for n in (1, 2, 3, 8, 10_000)] == [100, 200, 400, 10_000, 10_000]


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("spec.delivery", "at-leat-once", "'at-least-once'"),
        ("spec.enabled", "yes", "write true or false, not 'yes'"),
        ("spec.stages.2.parallelism", "0", "too small; the least is 1"),
        ("spec.stages.2.parallelism", "1_000", "not a whole number"),
        ("spec.stages.2.parallelism", True, "a whole number is needed"),
        ("spec.stages.2.retry.jitter", "1.5", "too large; the most is 1"),
        ("spec.stages.2.retry.attempts", "101", "too large; the most is 100"),
        ("spec.stages.2.retry.backoff", "11s", "backoff is longer than max"),
        ("spec.stages.2.timeout", "11m", "too large"),
        ("spec.stages.2.timeout", "30", "has no unit"),
        ("spec.stages.2.cache", "30s", "belong to lookup stages"),
        ("spec.stages.2.sink", "b", "this one names transform and sink"),
        ("spec.stages.2.transform", None, "this one names none"),
        ("spec.stages.2.transform", "Enrich", "'Enrich' is not a name"),
        ("spec.stages.2.transfrom", "enrich", "did you mean 'transform'?"),
        ("spec.stages.2.config", {"a": ["b"]}, "a text is needed, not a list"),
        ("spec.stages.2.config", {str(i): "" for i in range(257)}, "257 entries are too many"),
        ("spec.stages.2.batch.bytes", "4MiB", "too large"),
        ("spec.stages.2", "enrich", "a mapping is needed, not 'enrich'"),
        ("spec.stages", "enrich", "a list is needed, not 'enrich'"),
        ("spec.stages", [], "1 to 256 stages"),
        ("spec.edges.0.form", "a", "did you mean 'from'?"),
        ("spec.edges.0.slow", "dropp", "did you mean 'drop'?"),
        ("spec.edges.0.when", "", "at least 1 character"),
        ("spec.steps", [], "not both"),
        ("spec", None, "the key has no value"),
        ("metadata.name", "a" * 64, "is not a name"),
        ("metadata.name", None, "the key has no value"),
        ("metadata.labels", {"a b": "c"}, "is not a label"),
        ("metadata.labels", {"a": "c" * 257}, "longer than 256"),
        ("metadata.labels", {f"l{i}": "" for i in range(65)}, "65 labels are too many"),
        ("kind", "Pipelin", "is not one of: Pipeline"),
    ],
)
def test_a_mistake_is_named_with_its_path(
    flights: dict[str, Any], path: str, value: Any, problem: str
) -> None:
    """Each kind of mistake gives one problem, at its path, within it or around it."""
    target: Any = flights
    *parents, last = path.split(".")
    for part in parents:
        target = target[int(part)] if part.isdigit() else target.setdefault(part, {})
    if isinstance(target, list):
        target[int(last)] = value
    else:
        target[last] = value
    found = refused(flights)
    assert len(found) == 1, found
    assert problem in found[0]
    shown = found[0].split(": ")[1].replace("[", ".").replace("]", "")
    assert path.startswith(shown) or shown.startswith(path)


def test_all_problems_are_reported_at_once(flights: dict[str, Any]) -> None:
    """An author mends a file in one go."""
    flights["spec"]["stages"][0]["sorce"] = flights["spec"]["stages"][0].pop("source")
    flights["spec"]["deadLetter"] = {}
    flights["metadata"] = {}
    found = refused(flights)
    assert "error: metadata: the key 'name' is missing" in found
    assert "error: spec.stages[0].sorce: unknown key 'sorce' (did you mean 'source'?)" in found
    assert any("'deadLetters'" in line for line in found)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"source": "a"}, "has no sink"),
        ({"steps": ["a"]}, "has no source and no sink"),
        ({"source": "a", "steps": "b", "sink": "c"}, "steps is a list"),
        ({"source": "a", "steps": [{"transform": "b"}], "sink": "c"}, "a text is needed"),
        ({"source": "a", "sink": "c", "edges": []}, "not both"),
        ({"source": "a", "step": ["b"], "sink": "c"}, "'step' (did you mean 'steps'?)"),
        ({"sorce": "a", "sink": "c"}, "has no source; is 'sorce' meant to be it?"),
        ({"src": "a", "snk": "c"}, "unknown key 'src' (did you mean 'source'?)"),
    ],
)
def test_a_broken_short_form_is_refused(
    flights: dict[str, Any], spec: dict[str, Any], problem: str
) -> None:
    """The short form needs a source and a sink, and steps that are names."""
    flights["spec"] = spec
    assert problem in "\n".join(refused(flights))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "a document is a mapping"),
        ([], "a document is a mapping"),
        ({}, "must be 'conveyor/v1'"),
        ({"apiVersion": "v2", "kind": "Sink"}, "must be 'conveyor/v1', not 'v2'"),
        ({"apiVersion": "conveyor/v1", "kind": "Snk"}, "did you mean 'Sink'?"),
        ({"apiVersion": "conveyor/v1", "kind": ["Sink"]}, "is not one of: Pipeline"),
    ],
)
def test_what_is_no_document_is_refused(data: Any, problem: str) -> None:
    """Version and kind are checked first, for what else could be said depends on them."""
    with pytest.raises(DocumentRefused, match=problem.replace("?", r"\?")):
        document_of(data)


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"\xff", b" " * (256 * 1024 + 1)])
def test_bytes_that_are_no_document_are_refused(data: bytes) -> None:
    """Broken, deep and huge JSON is refused, not raised through."""
    with pytest.raises(DocumentRefused):
        parse_document(data)
