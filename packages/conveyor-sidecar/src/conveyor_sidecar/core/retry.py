"""When records are tried again, and what a failure of a whole call means for them.

A failure that a service reports for a record concerns this record alone: it is tried again after
a back-off, until its attempts are used up. A call that fails as a whole (the service died, did
not answer, answered garbage) leaves open which record was the cause. The same records are tried
once more together, since most such failures are the service's own; from then on they are split,
so that one poisonous record ends as a dead letter alone and takes no other with it.

Refusals (busy, unreachable) say nothing about the records and do not count as attempts.
"""

from __future__ import annotations

from conveyor_sidecar.core.events import CallFailureKind
from conveyor_sidecar.core.options import Chance
from conveyor_sidecar.core.routes import RetryPolicy

SPLIT_PARTS = 8
"""Into how many parts the records of a failed call are split."""

COUNTED: dict[CallFailureKind, bool] = {
    CallFailureKind.UNREACHABLE: False,
    CallFailureKind.BUSY: False,
    CallFailureKind.LOST: True,
    CallFailureKind.DEADLINE: True,
    CallFailureKind.ERROR: True,
    CallFailureKind.GARBAGE: True,
}
"""Whether a failed call counts as an attempt of its records."""


def backoff_ms(policy: RetryPolicy, tries: int, wish_ms: int, chance: Chance) -> int:
    """Return the wait before the next delivery.

    Args:
        policy: Of the stage.
        tries: Deliveries that failed in a row, at least 1.
        wish_ms: What the service asked for; the wait is not shorter, nor longer than the maximum.
        chance: For the jitter.
    """
    wait = policy.backoff_ms * 2.0 ** min(tries - 1, 30)
    wait *= 1 + policy.jitter * (2 * chance.random() - 1)
    return max(1, min(int(max(wait, wish_ms)), policy.backoff_max_ms))


def parts_after_failure(count: int, attempt: int) -> int:
    """Return into how many parts `count` records go whose delivery number `attempt` failed."""
    return min(SPLIT_PARTS, count) if attempt >= 2 else 1
