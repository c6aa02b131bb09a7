"""Exceptions of the lower packages into those of the error table."""

from __future__ import annotations

from conveyor_grpc.errors import ControlError


def to_control_error(error: BaseException) -> ControlError | None:
    """Return the table's exception for `error`, or None if nobody foresaw it."""
    if isinstance(error, ControlError):
        return error
    return None
