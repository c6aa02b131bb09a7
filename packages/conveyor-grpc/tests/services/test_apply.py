"""Applying documents: all or nothing, idempotent, with everything said that is wrong."""

import json
from typing import Any

import pytest

from conveyor_grpc import errors
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire import errors_pb2

CREATED = wire.APPLY_OUTCOME_CREATED
UPDATED = wire.APPLY_OUTCOME_UPDATED
UNCHANGED = wire.APPLY_OUTCOME_UNCHANGED
REFUSED = wire.APPLY_OUTCOME_REFUSED
SKIPPED = wire.APPLY_OUTCOME_SKIPPED


def outcomes(response: wire.ApplyResponse) -> list[int]:
    return [document.outcome for document in response.documents]


@pytest.mark.asyncio
async def test_applying_twice_changes_nothing(cluster: Any) -> None:
    """The second time everything is unchanged and no entry is written."""
    documents = [cluster.transform("mid", config={"a": "1"}), cluster.pipeline()]
    first = await cluster.admin.apply(documents)
    assert first.applied
    assert outcomes(first) == [CREATED, CREATED]
    second = await cluster.admin.apply(documents)
    assert not second.applied
    assert outcomes(second) == [UNCHANGED, UNCHANGED]
    assert second.revision == first.revision


@pytest.mark.asyncio
async def test_a_changed_document_raises_its_version(cluster: Any) -> None:
    """The pipeline counts its changes."""
    await cluster.admin.apply([cluster.pipeline()])
    changed = cluster.pipeline(source="in", steps=["mid", "more"], sink="out")
    response = await cluster.admin.apply([changed])
    assert outcomes(response) == [UPDATED]
    assert response.documents[0].version == 2
    resource = await cluster.admin.get("Pipeline", "flights")
    assert resource.version == 2
    assert len(json.loads(resource.document)["spec"]["stages"]) == 4


@pytest.mark.asyncio
async def test_an_unknown_service_makes_it_wait_and_names_the_nearest(cluster: Any) -> None:
    """The pipeline is taken, Pending, with a warning that an operator can act on."""
    await cluster.register("a", ("source", "in"), ("sink", "out"), ("transform", "enrich"))
    pipeline = cluster.pipeline(source="in", steps=["enrch"], sink="out")
    response = await cluster.admin.apply([pipeline])
    (document,) = response.documents
    assert (document.outcome, document.phase) == (CREATED, "Pending")
    (problem,) = document.problems
    assert problem.severity == errors_pb2.SEVERITY_WARNING
    assert problem.nearest == "enrich"
    assert "enrch" in document.reason
    await cluster.leader.plan()
    status = await cluster.admin.pipeline_status("flights")
    assert status.summary.phase == "Pending"
    assert "enrch" in status.summary.reason


@pytest.mark.asyncio
async def test_one_bad_document_stops_all(cluster: Any) -> None:
    """A valid document beside a refused one is skipped, and nothing is recorded."""
    cycle = cluster.pipeline(
        "bad",
        stages=[
            {"id": "in", "source": "in"},
            {"id": "x", "transform": "x"},
            {"id": "y", "transform": "y"},
            {"id": "out", "sink": "out"},
        ],
        edges=[
            {"from": "in", "to": "x"},
            {"from": "x", "to": "y"},
            {"from": "y", "to": "x"},
            {"from": "y", "to": "out"},
        ],
    )
    response = await cluster.admin.apply([cluster.pipeline(), cycle])
    assert not response.applied
    assert outcomes(response) == [SKIPPED, REFUSED]
    messages = [problem.message for problem in response.documents[1].problems]
    assert any("cycle" in message for message in messages)
    assert not (await cluster.leader.state()).pipelines


@pytest.mark.asyncio
async def test_a_malformed_document_is_refused_with_its_place(cluster: Any) -> None:
    """Unknown keys name the nearest known one; text that is no document says so."""
    misspelt = cluster.pipeline(source="in", steps=["mid"], sink="out", enable=True)
    response = await cluster.admin.apply([misspelt, b"{not json"])
    assert outcomes(response) == [REFUSED, REFUSED]
    assert response.documents[0].problems[0].path == "spec.enable"
    assert response.documents[0].problems[0].nearest == "enabled"
    assert "JSON" in response.documents[1].problems[0].message


@pytest.mark.asyncio
async def test_the_same_document_twice_is_a_mistake(cluster: Any) -> None:
    """Which of the two should count is not guessed."""
    response = await cluster.admin.apply([cluster.pipeline(), cluster.pipeline()])
    assert not response.applied
    assert REFUSED in outcomes(response)


@pytest.mark.asyncio
async def test_a_dry_run_says_what_would_happen_and_does_nothing(cluster: Any) -> None:
    """Outcomes are those of the real thing."""
    response = await cluster.admin.apply([cluster.pipeline()], dry_run=True)
    assert not response.applied
    assert outcomes(response) == [CREATED]
    assert not (await cluster.leader.state()).pipelines


@pytest.mark.asyncio
async def test_somebody_elses_apply_is_noticed(cluster: Any) -> None:
    """An apply in between is a conflict; a sidecar that registers is not."""
    first = await cluster.admin.apply([cluster.pipeline()])
    await cluster.register("a", ("source", "in"))
    await cluster.admin.apply([cluster.transform("mid")], expected_revision=first.revision)
    with pytest.raises(errors.ConflictError, match="applied at revision"):
        await cluster.admin.apply([cluster.pipeline("other")], expected_revision=first.revision)


@pytest.mark.asyncio
async def test_an_empty_request_is_invalid(cluster: Any) -> None:
    """Nothing to apply is a mistake of the caller."""
    with pytest.raises(errors.InvalidRequestError, match="0 documents"):
        await cluster.admin.apply([])


@pytest.mark.asyncio
async def test_delete_of_a_document_warns_its_users(cluster: Any) -> None:
    """The pipeline that refers to it is named."""
    await cluster.admin.apply([cluster.transform("mid"), cluster.pipeline()])
    dry = await cluster.admin.delete("Transform", "mid", dry_run=True)
    assert (dry.existed, dry.deleted) == (True, False)
    assert "default/flights" in dry.problems[0].message
    assert (await cluster.admin.delete("Transform", "mid")).deleted
    assert not (await cluster.admin.delete("Transform", "mid")).existed


@pytest.mark.asyncio
async def test_a_deleted_pipeline_ends_and_is_gone(cluster: Any) -> None:
    """While it is being deleted it cannot be applied; afterwards it can."""
    await cluster.run_flights()
    assert (await cluster.admin.delete("Pipeline", "flights")).deleted
    response = await cluster.admin.apply([cluster.pipeline()])
    assert outcomes(response) == [REFUSED]
    assert "being deleted" in response.documents[0].problems[0].message


@pytest.mark.asyncio
async def test_deleting_an_unknown_kind_names_the_nearest(cluster: Any) -> None:
    """Registered things are not deleted by an operator's word."""
    with pytest.raises(errors.InvalidRequestError, match="Pipeline"):
        await cluster.admin.delete("pipline", "flights")
