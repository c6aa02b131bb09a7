from typing import Any

import pytest

from conveyor_registry.model import (
    DocumentRefused,
    ServiceDocument,
    ServiceKind,
    ServiceOffer,
    document_of,
)


def document(kind: str, **spec: Any) -> ServiceDocument:
    return ServiceDocument.of(
        {"apiVersion": "conveyor/v1", "kind": kind, "metadata": {"name": "enrich"}, "spec": spec}
    )


def test_the_manuals_example_is_read() -> None:
    """Every key of a service document arrives, with defaults where the manual has them."""
    found = document(
        "Transform",
        match={"port": "50053", "grpcService": "acme.Enricher", "labels": {}},
        declares={
            "idempotent": "false",
            "stableOffsets": "false",
            "bounded": "false",
            "partitions": ["0"],
        },
        endpoint="10.0.0.7:50053",
        config={"airlines": "airlines.csv"},
        timeout="30s",
        batch={"records": "500", "bytes": "256KiB", "linger": "5ms"},
    )
    assert found.service_kind is ServiceKind.TRANSFORM
    assert found.spec.match is not None
    assert (found.spec.match.port, found.spec.match.grpc_service) == (50053, "acme.Enricher")
    assert found.spec.timeout_ms == 30_000
    assert ServiceDocument.parse(found.canonical()) == found
    assert document_of(found.plain()) == found


def test_a_spec_may_be_absent() -> None:
    """A document that only names a service is complete."""
    found = document_of({"apiVersion": "conveyor/v1", "kind": "Lookup", "metadata": {"name": "u"}})
    assert isinstance(found, ServiceDocument)
    assert found.offer() is None


def test_declarations_become_an_offer() -> None:
    """What a document declares counts like what a service describes."""
    declares = {"stableOffsets": "true", "bounded": "true", "partitions": ["1", "2"]}
    assert document("Source", declares=declares).offer() == ServiceOffer(
        kind=ServiceKind.SOURCE,
        name="enrich",
        partitions=("1", "2"),
        stable_offsets=True,
        bounded=True,
    )


@pytest.mark.parametrize(
    ("kind", "spec", "problem"),
    [
        ("Source", {"declares": {"idempotent": "true"}}, "only a Sink"),
        ("Sink", {"declares": {"bounded": "true"}}, "only a Source"),
        ("Source", {"declares": {"partitions": []}}, "between 1 and 4096"),
        ("Source", {"declares": {"partitions": ["a", "a"]}}, "named twice"),
        ("Source", {"declares": {"partitions": [""]}}, "1 to 253"),
        ("Sink", {"endpoint": "10.0.0.7"}, "not host:port"),
        ("Sink", {"endpoint": "10.0.0.7:0"}, "has no port"),
        ("Sink", {"match": {"port": "65536"}}, "too large"),
        ("Sink", {"match": {"grpcService": "acme/Enricher"}}, "full name of a gRPC service"),
        ("Sink", {"mach": {}}, "did you mean 'match'"),
        ("Sink", {"timeout": "0ms"}, "too small"),
    ],
)
def test_a_mistake_is_refused(kind: str, spec: dict[str, Any], problem: str) -> None:
    """Each kind of mistake in a service document is named."""
    with pytest.raises(DocumentRefused, match=problem):
        document(kind, **spec)
