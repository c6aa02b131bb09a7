"""From the ``kind`` of a document to its class."""

from typing import Any

from conveyor_registry.model.document import API_VERSION, plain_of
from conveyor_registry.model.names import nearest
from conveyor_registry.model.pipeline import Pipeline
from conveyor_registry.model.policies import ServiceKind
from conveyor_registry.model.problem import DocumentRefused, Problem
from conveyor_registry.model.service import ServiceDocument

AnyDocument = Pipeline | ServiceDocument

KINDS: dict[str, type[Pipeline] | type[ServiceDocument]] = {
    "Pipeline": Pipeline,
    **{kind.value: ServiceDocument for kind in ServiceKind},
}


def document_of(data: Any) -> AnyDocument:
    """The document that plain data describe, of whatever kind.

    Raises:
        DocumentRefused: with every problem found.
    """
    if not isinstance(data, dict):
        raise DocumentRefused(
            [Problem.error((), "a document is a mapping with apiVersion and kind")]
        )
    problems: list[Problem] = []
    if data.get("apiVersion") != API_VERSION:
        message = f"must be {API_VERSION!r}"
        if "apiVersion" in data:
            message += f", not {str(data['apiVersion'])[:80]!r}"
        problems.append(Problem.error(("apiVersion",), message))
    kind = data.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        close = nearest(kind, KINDS) if isinstance(kind, str) else None
        shown = f"{str(kind)[:80]!r} is not" if kind is not None else "must be"
        message = f"{shown} one of: {', '.join(KINDS)}"
        problems.append(Problem.error(("kind",), message, close))
    if model is None or problems:
        raise DocumentRefused(problems)
    return model.of(data)


def parse_document(data: bytes) -> AnyDocument:
    """The document in JSON bytes, of whatever kind; the inverse of ``canonical()``.

    Raises:
        DocumentRefused: too large, not JSON, or not a document.
    """
    return document_of(plain_of(data))
