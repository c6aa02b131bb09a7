"""Exceptions of user code as failures of records: the one place where the two meet."""

from __future__ import annotations

import traceback
from datetime import timedelta

from conveyor_sdk.carrier import RECORD_BYTES_MAX
from conveyor_sdk.errors import Busy, CodecError, Reject, Retry
from conveyor_sdk.wire import record_pb2

REASON_CHARS_MAX = 500
DETAIL_CHARS_MAX = 4000
DETAIL_CHARS_TOTAL = 64_000
"""Characters of detail in one answer, shared among its failures."""

HANDLER_ERRORS = (Exception, SystemExit)
"""What a handler may raise without taking the process down with it."""


class InputError(Reject):
    """The payload is not what the handler asks for; no later attempt would change that."""


def unreadable(error: CodecError) -> InputError:
    """Return the outcome of a record that could not be decoded."""
    return InputError(str(error))


def too_large(size: int) -> Reject:
    """Return the outcome of an input whose output is above the limit."""
    return Reject(f"an output record has {size} bytes; the limit is {RECORD_BYTES_MAX}")


def kind_of(
    error: BaseException,
) -> tuple[record_pb2.FailureKind.ValueType, str, float | None]:
    """Return kind, reason and seconds to wait for what a handler raised."""
    if isinstance(error, Reject):
        return record_pb2.FAILURE_KIND_REJECT, _reason(error.reason), None
    if isinstance(error, Busy):
        return record_pb2.FAILURE_KIND_BUSY, _reason(error.reason), error.after
    if isinstance(error, Retry):
        return record_pb2.FAILURE_KIND_RETRY, _reason(error.reason), error.after
    return (
        record_pb2.FAILURE_KIND_RETRY,
        _reason(f"{type(error).__name__}: {error}"),
        None,
    )


def failure(index: int, error: BaseException, detail_chars: int) -> record_pb2.Failure:
    """Return the failure of record `index` for what its handler raised.

    Args:
        index: Place in the request.
        error: What was raised; unexpected exceptions carry their stack trace.
        detail_chars: Room for the stack trace, of which the end is kept.
    """
    kind, reason, after = kind_of(error)
    message = record_pb2.Failure(index=index, kind=kind, reason=reason)
    if not isinstance(error, Reject | Busy | Retry) and detail_chars > 0:
        message.detail = _valid("".join(traceback.format_exception(error))[-detail_chars:])
    if after is not None:
        message.retry_after.FromTimedelta(timedelta(seconds=after))
    return message


def failures(errors: dict[int, BaseException]) -> list[record_pb2.Failure]:
    """Return the failures of a request, by index, with the room for details shared among them."""
    if not errors:
        return []
    detail_chars = min(DETAIL_CHARS_MAX, DETAIL_CHARS_TOTAL // len(errors))
    return [failure(index, errors[index], detail_chars) for index in sorted(errors)]


def _reason(text: str) -> str:
    return _valid(text if len(text) <= REASON_CHARS_MAX else text[: REASON_CHARS_MAX - 1] + "…")


def _valid(text: str) -> str:
    """Return `text` as protobuf accepts it: without lone surrogates."""
    return text.encode("utf-8", "replace").decode()
