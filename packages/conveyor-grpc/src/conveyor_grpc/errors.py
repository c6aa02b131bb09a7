"""One exception for each way a call can fail, and the one table between exceptions and gRPC
statuses.

A server raises these (or lets an exception of a lower package through, which `convert/failures.py`
translates at the boundary), the error interceptor turns them into a status with an `ErrorDetail`
in the trailing metadata, and a client turns that back into the same class: both ends of a call
see one exception.

Rules kept here:

- Outcomes are three: done (no exception), *surely not done* (`retry_safe` is true: repeat at
  will) and *unknown* (repeat only what is idempotent). A status alone does not say which of the
  last two it is, so the detail does; an answer without a detail comes from the transport and
  counts as unknown.
- Each class names its caller's next move in its docstring.
- A new failure is a new row of `TABLE`; a test keeps rows, classes and codes one to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf.message import DecodeError

from conveyor_grpc.wire import errors_pb2

DETAIL_KEY = "conveyor-error-bin"
"""Trailing metadata entry that carries the serialised `ErrorDetail`."""

DETAIL_BYTES_MAX = 6 * 1024
"""gRPC refuses more than 8 KiB of metadata by default; problems beyond this are counted, not
listed.
"""


class ControlError(Exception):
    """Root of all failures of control-plane calls."""

    code: ClassVar[str] = "internal"
    retry_safe: bool = False

    def __init__(self, message: str, *, retry_safe: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        if retry_safe is not None:
            self.retry_safe = retry_safe

    def fill(self, detail: errors_pb2.ErrorDetail) -> None:
        """Write what this class carries beyond code, message and outcome."""

    @classmethod
    def from_detail(cls, detail: errors_pb2.ErrorDetail) -> ControlError:
        """Build the exception that a server described."""
        return cls(detail.message, retry_safe=detail.outcome == errors_pb2.OUTCOME_NOT_DONE)


class NotLeaderError(ControlError):
    """The answering router does not lead. Ask `leader_address`; if it is empty, ask again a
    little later.
    """

    code = "not_leader"
    retry_safe = True

    def __init__(
        self,
        message: str,
        *,
        leader_id: int = 0,
        leader_address: str = "",
        term: int = 0,
        member_addresses: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.leader_id = leader_id
        self.leader_address = leader_address
        self.term = term
        self.member_addresses = tuple(member_addresses)

    def fill(self, detail: errors_pb2.ErrorDetail) -> None:
        """Add the leader's id and client address."""
        detail.not_leader.leader_id = self.leader_id
        detail.not_leader.leader_address = self.leader_address
        detail.not_leader.term = self.term
        detail.not_leader.member_addresses.extend(self.member_addresses)

    @classmethod
    def from_detail(cls, detail: errors_pb2.ErrorDetail) -> NotLeaderError:
        """Build the exception that a server described."""
        hint = detail.not_leader
        return cls(
            detail.message,
            leader_id=hint.leader_id,
            leader_address=hint.leader_address,
            term=hint.term,
            member_addresses=hint.member_addresses,
        )


class InvalidRequestError(ControlError):
    """The request cannot be right as it stands; `problems` say where. Correct it."""

    code = "invalid"
    retry_safe = True

    def __init__(self, message: str, *, problems: Iterable[errors_pb2.Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

    def fill(self, detail: errors_pb2.ErrorDetail) -> None:
        """Add as many problems as fit into the metadata of an answer."""
        room = DETAIL_BYTES_MAX - len(self.message)
        for problem in self.problems:
            room -= problem.ByteSize()
            if room < 0:
                break
            detail.problems.append(problem)

    @classmethod
    def from_detail(cls, detail: errors_pb2.ErrorDetail) -> InvalidRequestError:
        """Build the exception that a server described."""
        return cls(detail.message, problems=detail.problems)


class NotFoundError(ControlError):
    """What the request names does not exist. Look at the name, or register first."""

    code = "not_found"
    retry_safe = True


class ConflictError(ControlError):
    """Somebody else changed it in between. Read again, decide again."""

    code = "conflict"
    retry_safe = True


class RefusedError(ControlError):
    """The agreed state forbids it (the message says what). Repeating it unchanged does not help."""

    code = "refused"
    retry_safe = True


class FencedError(ControlError):
    """A newer owner exists. Stop acting for what you owned."""

    code = "fenced"
    retry_safe = True


class BusyError(ControlError):
    """The router has as much as it takes. Repeat after `retry_after_s`."""

    code = "busy"
    retry_safe = True

    def __init__(self, message: str, *, retry_after_s: float = 0.1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def fill(self, detail: errors_pb2.ErrorDetail) -> None:
        """Add the pause to keep."""
        detail.retry_after.FromMilliseconds(int(self.retry_after_s * 1000))

    @classmethod
    def from_detail(cls, detail: errors_pb2.ErrorDetail) -> BusyError:
        """Build the exception that a server described."""
        return cls(detail.message, retry_after_s=detail.retry_after.ToMilliseconds() / 1000)


class NotReadyError(ControlError):
    """The router is still starting, or stopping. Ask another one, or this one a little later."""

    code = "not_ready"
    retry_safe = True


class TooLargeError(ControlError):
    """The request is above a limit, which the message names. Split it."""

    code = "too_large"
    retry_safe = True


class FellBehindError(ControlError):
    """A watcher read too slowly and lost events. Read the present state, then watch again."""

    code = "fell_behind"
    retry_safe = True


class UnreachableError(ControlError):
    """No router could be spoken to: nobody there, or no router; nothing was done. Check
    addresses and network.
    """

    code = "unreachable"
    retry_safe = True


class UnknownOutcomeError(ControlError):
    """It may or may not have happened. Read back, or repeat it if it is idempotent."""

    code = "unknown_outcome"


class DeadlineError(ControlError):
    """Time ran out; it may still happen, unless `retry_safe` says that nothing was sent."""

    code = "deadline"


class InternalError(ControlError):
    """A mistake in Conveyor. The server's log has the details under the same trace id."""

    code = "internal"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    exception: type[ControlError]
    status: grpc.StatusCode


TABLE: tuple[Row, ...] = (
    Row(NotLeaderError, grpc.StatusCode.FAILED_PRECONDITION),
    Row(InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    Row(NotFoundError, grpc.StatusCode.NOT_FOUND),
    Row(ConflictError, grpc.StatusCode.ABORTED),
    Row(RefusedError, grpc.StatusCode.FAILED_PRECONDITION),
    Row(FencedError, grpc.StatusCode.FAILED_PRECONDITION),
    Row(BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    Row(NotReadyError, grpc.StatusCode.UNAVAILABLE),
    Row(TooLargeError, grpc.StatusCode.INVALID_ARGUMENT),
    Row(FellBehindError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    Row(UnreachableError, grpc.StatusCode.UNAVAILABLE),
    Row(UnknownOutcomeError, grpc.StatusCode.UNKNOWN),
    Row(DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED),
    Row(InternalError, grpc.StatusCode.INTERNAL),
)

_STATUS_OF = {row.exception: row.status for row in TABLE}
_CLASS_OF = {row.exception.code: row.exception for row in TABLE}

# What a bare status means when no detail came with it: it was made by the transport, not by a
# service.
_BARE: dict[grpc.StatusCode, type[ControlError]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: RefusedError,
    grpc.StatusCode.PERMISSION_DENIED: RefusedError,
    grpc.StatusCode.INTERNAL: InternalError,
}


def status_of(error: ControlError) -> grpc.StatusCode:
    """Return the status that carries `error`."""
    return _STATUS_OF[type(error)]


def detail_of(error: ControlError) -> errors_pb2.ErrorDetail:
    """Return the message that describes `error` to the other side."""
    detail = errors_pb2.ErrorDetail(
        code=error.code,
        message=error.message[:2048],
        outcome=errors_pb2.OUTCOME_NOT_DONE if error.retry_safe else errors_pb2.OUTCOME_UNKNOWN,
    )
    error.fill(detail)
    return detail


def from_rpc_error(error: grpc.aio.AioRpcError, endpoint: str) -> ControlError:
    """Translate what a call raised into the exception that the server meant.

    Args:
        error: what grpc raised.
        endpoint: who was asked; named in the message where the transport failed.
    """
    for key, value in error.trailing_metadata() or ():
        if key != DETAIL_KEY or not isinstance(value, bytes):
            continue
        try:
            detail = errors_pb2.ErrorDetail.FromString(value)
        except DecodeError:
            break
        return _CLASS_OF.get(detail.code, InternalError).from_detail(detail)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return UnreachableError(
            f"{endpoint} speaks gRPC but is no Conveyor router, or one of another version (a router"
            " has a port for clients and another one for Raft: this may be the wrong one)"
        )
    message = f"{endpoint}: {error.code().name}: {error.details() or 'no details'}"
    return _BARE.get(error.code(), UnknownOutcomeError)(message)


class ListenError(Exception):
    """A server cannot listen where it was told to; the message names the address and what to do."""
