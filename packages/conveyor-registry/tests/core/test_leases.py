"""What silence means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conveyor_registry.core.leases import Lease, is_mass_expiry, judge

LEASE = Lease(id="s", lease_ms=30_000, silent_ms=0, spoke=True, unhealthy=False)


@pytest.mark.parametrize(
    ("silent_ms", "unhealthy", "step"),
    [
        (29_999, False, None),
        (30_000, False, "unhealthy"),
        (30_000, True, None),
        (89_999, True, None),
        (90_000, True, "removed"),
        (90_000, False, "removed"),
        (0, True, "healthy"),
    ],
)
def test_unhealthy_after_one_lease_removed_after_two_more(silent_ms, unhealthy, step):
    """And well as soon as it speaks."""
    verdict = judge(replace(LEASE, silent_ms=silent_ms, unhealthy=unhealthy))
    assert (None if verdict is None else verdict.step) == step


def test_only_who_spoke_recovers():
    """The grace of a new leader is no sign of life."""
    assert judge(replace(LEASE, unhealthy=True, spoke=False)) is None


def test_the_reason_is_in_words():
    """An operator reads how long and how long was allowed."""
    verdict = judge(replace(LEASE, silent_ms=31_250))
    assert verdict is not None
    assert verdict.reason == "not heard of for 31.2 s, its lease is 30.0 s"


@pytest.mark.parametrize(
    ("silent", "total", "mass"),
    [(4, 4, False), (5, 5, True), (5, 16, True), (5, 17, False), (31, 100, True), (30, 100, False)],
)
def test_mass_expiry_is_more_than_thirty_percent_and_at_least_five(silent, total, mass):
    """Small clusters may lose everybody; large ones doubt themselves first."""
    assert is_mass_expiry(silent, total) is mass
