"""What user code raises to say what shall happen to a record, and what the SDK raises at the user.

Two branches. `Outcome` is control flow by exception: a handler raises `Retry`, `Reject`, `Busy` or
`Partial`, and the sidecar acts on it. Any other exception that leaves a handler counts as a retry
with the stack trace as its detail; no record is skipped because of one. `SdkError` says that the
program is wrong before any record has moved.
"""

from __future__ import annotations

from collections.abc import Mapping


class Outcome(Exception):  # noqa: N818 - not an error but an answer
    """What a handler says about a record instead of a result."""


class Retry(Outcome):
    """Try again later; counts as an attempt.

    Args:
        reason: For people.
        after: Seconds to wait at least; None leaves it to the stage's retry policy.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = _seconds(after)


class Reject(Outcome):
    """Never again: the record goes to the dead letters with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Busy(Outcome):
    """The target is busy: try again later, and do not count it as an attempt.

    Args:
        reason: For people.
        after: Seconds to wait at least; None leaves it to the stage's retry policy.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = _seconds(after)


class Partial(Outcome):
    """Some records of a batch failed; the others are done.

    Only a batched sink can say this, because the others must really be written. A batched transform
    puts the exceptions into the list that it returns.

    Args:
        failures: For each failed record its place in the batch and the exception.
    """

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        super().__init__(f"{len(failures)} records of the batch failed")
        self.failures = dict(failures)


def _seconds(after: float | None) -> float | None:
    if after is not None and not 0 <= after < float("inf"):
        raise ValueError(f"after={after!r}: give the seconds to wait, 0 or more")
    return after


class SdkError(Exception):
    """The SDK cannot do what the program asks."""


class DefinitionError(SdkError, TypeError):
    """A handler is declared in a way that cannot work; raised at the decorator."""


class ServeError(SdkError):
    """The process cannot serve: the port is taken, or there is nothing to serve."""


class CodecError(SdkError, ValueError):
    """A value cannot become a payload, or a payload not the value that the handler asks for."""
