from typing import Any

from conveyor_registry.model import Change, Pipeline, changes


def test_equal_documents_have_no_changes(pipeline: Pipeline) -> None:
    """Nothing to say, nothing to do."""
    assert changes(pipeline, Pipeline.parse(pipeline.canonical())) == []


def test_a_changed_value_is_named_by_stage(flights: dict[str, Any], pipeline: Pipeline) -> None:
    """Stages are known by their ids, whatever their number."""
    flights["spec"]["stages"][2]["parallelism"] = "3"
    assert changes(pipeline, Pipeline.of(flights)) == [
        Change("spec.stages[enrich].parallelism", 2, 3)
    ]


def test_an_inserted_stage_is_one_addition(flights: dict[str, Any], pipeline: Pipeline) -> None:
    """What stands behind it has not changed; edges are known by their ends."""
    flights["spec"]["stages"].insert(1, {"id": "mask", "transform": "mask"})
    flights["spec"]["edges"][0]["to"] = "mask"
    flights["spec"]["edges"].insert(1, {"from": "mask", "to": "drop-cancelled"})
    found = changes(pipeline, Pipeline.of(flights))
    assert {(c.path, c.before is None, c.after is None) for c in found} == {
        ("spec.stages[mask]", True, False),
        ("spec.edges[flights->drop-cancelled]", False, True),
        ("spec.edges[flights->mask]", True, False),
        ("spec.edges[mask->drop-cancelled]", True, False),
    }


def test_a_new_order_is_a_change(flights: dict[str, Any], pipeline: Pipeline) -> None:
    """The same stages in another order are another document, and it shows."""
    flights["spec"]["stages"].reverse()
    (change,) = changes(pipeline, Pipeline.of(flights))
    assert change.path == "spec.stages"


def test_a_new_document_is_one_change(pipeline: Pipeline) -> None:
    """Before it there was nothing."""
    (change,) = changes(None, pipeline)
    assert change.before is None
