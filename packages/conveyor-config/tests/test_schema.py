import json
from typing import Any

import pytest

from conveyor_config import SCHEMA_KINDS, json_schema


def references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        found = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
        return found.union(*(references(value) for value in schema.values()), set())
    if isinstance(schema, list):
        return set().union(*(references(value) for value in schema))
    return set()


@pytest.mark.parametrize("kind", SCHEMA_KINDS)
def test_every_kind_has_a_closed_schema(kind: str) -> None:
    """It is JSON, all references lead somewhere, and unknown keys are refused everywhere."""
    schema = json.loads(json.dumps(json_schema(kind)))
    assert schema["$schema"].endswith("2020-12/schema")
    for reference in references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]
    for model in schema["$defs"].values():
        if model["type"] == "object":
            assert model["additionalProperties"] is False


def test_keys_are_the_manifests() -> None:
    """camelCase, units as text, bounds in the words of JSON Schema."""
    stage = json_schema("Pipeline")["$defs"]["Stage"]["properties"]
    assert stage["parallelism"]["anyOf"][0] == {"minimum": 1, "maximum": 1024, "type": "integer"}
    assert "pattern" in stage["timeout"]["anyOf"][0]
    assert "deadLetterAfter" in json_schema("Pipeline")["$defs"]["Edge"]["properties"]


def test_both_forms_of_a_pipeline_fit() -> None:
    """Either stages, with edges if wanted, or source, steps and sink."""
    spec = json_schema("Pipeline")["$defs"]["PipelineSpec"]
    assert {"stages", "edges", "source", "steps", "sink"} <= set(spec["properties"])
    assert [form["required"] for form in spec["oneOf"]] == [["stages"], ["source", "sink"]]


def test_a_service_schema_is_of_its_kind() -> None:
    """The schema of Sink takes sinks only."""
    assert json_schema("Sink")["properties"]["kind"]["const"] == "Sink"


def test_an_unknown_kind_names_the_nearest() -> None:
    """As everywhere."""
    with pytest.raises(ValueError, match="did you mean Pipeline"):
        json_schema("pipelines")
