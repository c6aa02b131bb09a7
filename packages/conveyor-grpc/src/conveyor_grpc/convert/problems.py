"""Problems of documents, both ways."""

from __future__ import annotations

from conveyor_grpc.wire import errors_pb2 as wire
from conveyor_registry.model.problem import Problem, Severity

_SEVERITY = {
    Severity.ERROR: wire.SEVERITY_ERROR,
    Severity.WARNING: wire.SEVERITY_WARNING,
}


def problem_message(problem: Problem, document: str = "") -> wire.Problem:
    """Return the message for a problem of `document` ("Pipeline default/flights")."""
    return wire.Problem(
        severity=_SEVERITY[problem.severity],
        document=document,
        path=problem.where,
        message=problem.message,
        nearest=problem.nearest or "",
    )
