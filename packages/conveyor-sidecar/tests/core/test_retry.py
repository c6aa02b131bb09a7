"""Back-off and what a failed call means for its records."""

from random import Random

import pytest

from conveyor_sidecar.core.events import CallFailureKind
from conveyor_sidecar.core.retry import COUNTED, backoff_ms, parts_after_failure
from conveyor_sidecar.core.routes import RetryPolicy


def test_the_wait_doubles_up_to_its_maximum() -> None:
    """100 ms, 200, 400 … and never above the maximum."""
    policy = RetryPolicy(backoff_ms=100, backoff_max_ms=1_000, jitter=0)
    waits = [backoff_ms(policy, tries, 0, Random(0)) for tries in range(1, 7)]
    assert waits == [100, 200, 400, 800, 1_000, 1_000]


def test_jitter_stays_in_its_share() -> None:
    """Jitter moves a wait by at most its share, either way."""
    policy = RetryPolicy(backoff_ms=1_000, jitter=0.2)
    chance = Random(1)
    waits = [backoff_ms(policy, 1, 0, chance) for _ in range(500)]
    assert min(waits) >= 800
    assert max(waits) <= 1_200
    assert max(waits) - min(waits) > 300


def test_the_service_may_ask_for_longer_within_the_maximum() -> None:
    """retry_after lengthens the wait, but no service can stop a stage for ever."""
    policy = RetryPolicy(backoff_ms=10, backoff_max_ms=500, jitter=0)
    assert backoff_ms(policy, 1, 200, Random(0)) == 200
    assert backoff_ms(policy, 1, 10**9, Random(0)) == 500


def test_huge_numbers_of_tries_do_not_overflow() -> None:
    """A target that is busy for days still has a wait."""
    assert backoff_ms(RetryPolicy(jitter=0), 10**6, 0, Random(0)) == 10_000


@pytest.mark.parametrize(
    ("count", "attempt", "parts"), [(500, 1, 1), (500, 2, 8), (5, 3, 5), (1, 4, 1)]
)
def test_a_failed_batch_is_split_from_the_second_failure_on(
    count: int, attempt: int, parts: int
) -> None:
    """Once together, then in parts, so that a poisonous record ends alone."""
    assert parts_after_failure(count, attempt) == parts


def test_every_kind_of_failure_is_decided() -> None:
    """No kind of failed call is forgotten, and refusals do not count."""
    assert COUNTED.keys() == set(CallFailureKind)
    assert not COUNTED[CallFailureKind.BUSY]
    assert not COUNTED[CallFailureKind.UNREACHABLE]
