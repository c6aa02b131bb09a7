"""A valid pipeline in plain data, to be bent by the tests."""

from typing import Any

import pytest

from conveyor_registry.model import Pipeline

FLIGHTS: dict[str, Any] = {
    "apiVersion": "conveyor/v1",
    "kind": "Pipeline",
    "metadata": {"name": "flights"},
    "spec": {
        "delivery": "at-least-once",
        "enabled": "true",
        "stages": [
            {"id": "flights", "source": "flights"},
            {"id": "drop-cancelled", "transform": "drop-cancelled"},
            {
                "id": "enrich",
                "transform": "enrich",
                "parallelism": "2",
                "retry": {"attempts": "5", "backoff": "100ms", "max": "10s", "jitter": "0.2"},
            },
            {
                "id": "with-user",
                "lookup": "users",
                "batch": {"records": "200"},
                "cache": "60s",
                "miss": "pass",
            },
            {"id": "warehouse", "sink": "warehouse"},
        ],
        "edges": [
            {"from": "flights", "to": "drop-cancelled"},
            {"from": "drop-cancelled", "to": "enrich"},
            {"from": "enrich", "to": "with-user"},
            {
                "from": "with-user",
                "to": "warehouse",
                "when": 'type == "flight" && headers["carrier"] != ""',
                "order": "none",
                "slow": "block",
            },
        ],
        "deadLetters": {"keep": "7d", "bytes": "1GiB"},
    },
}


@pytest.fixture
def flights() -> dict[str, Any]:
    """The long form of the manual's example, as the YAML loader gives it."""
    import copy

    return copy.deepcopy(FLIGHTS)


@pytest.fixture
def pipeline(flights: dict[str, Any]) -> Pipeline:
    return Pipeline.of(flights)
