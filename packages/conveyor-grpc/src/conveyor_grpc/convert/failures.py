"""Exceptions of the lower packages into those of the error table: one literal table per package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from conveyor_grpc.convert.problems import problem_message
from conveyor_grpc.errors import (
    BusyError,
    ConflictError,
    ControlError,
    FellBehindError,
    FencedError,
    InvalidRequestError,
    NotFoundError,
    NotLeaderError,
    NotReadyError,
    RefusedError,
    TooLargeError,
    UnknownOutcomeError,
)
from conveyor_raft import errors as raft
from conveyor_registry import errors as registry
from conveyor_registry.model.problem import DocumentRefused, Problem


def _not_leader(error: raft.NotLeader) -> ControlError:
    return NotLeaderError(
        str(error),
        leader_id=error.leader_id or 0,
        leader_address=error.leader_client_address or "",
        term=error.term,
    )


def _rejected(error: raft.CommandRejected) -> ControlError:
    kind = REJECTION_CODES.get(error.code, RefusedError)
    return kind(error.message)


def _documents(error: DocumentRefused) -> ControlError:
    problems = [problem_message(problem) for problem in error.problems]
    return InvalidRequestError(str(error), problems=problems)


def _validation(error: ValidationError) -> ControlError:
    problems = [
        problem_message(Problem.error(details["loc"], details["msg"]))
        for details in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    lines = [f"{problem.path or 'request'}: {problem.message}" for problem in problems]
    return InvalidRequestError("; ".join(lines), problems=problems)


REJECTION_CODES: dict[str, type[ControlError]] = {
    "unknown": NotFoundError,
    "conflict": ConflictError,
    "exists": ConflictError,
    "outdated": FencedError,
    "fenced": FencedError,
    "invalid": InvalidRequestError,
}
"""Codes of `CommandRejected` that say more than that the state forbids it."""

_FOREIGN: dict[type[BaseException], Callable[[Any], ControlError]] = {
    raft.NotLeader: _not_leader,
    raft.Busy: lambda error: BusyError(str(error)),
    raft.PayloadTooLarge: lambda error: TooLargeError(str(error)),
    raft.NotReady: lambda error: NotReadyError(str(error)),
    raft.ShuttingDown: lambda error: NotReadyError(str(error)),
    raft.NodeStopped: lambda error: NotReadyError(str(error), retry_safe=False),
    raft.CommandRejected: _rejected,
    raft.UnknownOutcome: lambda error: UnknownOutcomeError(str(error)),
    registry.NotRegistered: lambda error: NotFoundError(str(error)),
    registry.InvalidRegistration: lambda error: InvalidRequestError(str(error)),
    registry.Contended: lambda error: BusyError(str(error)),
    registry.WatchOverflow: lambda error: FellBehindError(str(error)),
    registry.TooManyWatchers: lambda error: BusyError(str(error), retry_after_s=1.0),
    DocumentRefused: _documents,
    ValidationError: _validation,
}


def to_control_error(error: BaseException) -> ControlError | None:
    """Return the table's exception for `error`, or None if nobody foresaw it."""
    if isinstance(error, ControlError):
        return error
    for kind in type(error).__mro__:
        translate = _FOREIGN.get(kind)
        if translate is not None:
            return translate(error)
    return None
