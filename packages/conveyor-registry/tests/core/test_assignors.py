"""The one assignor: complete, even, sticky, and the same everywhere."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor_registry import assign

members = st.sets(st.integers(0, 8), min_size=1, max_size=6)
pasts = st.dictionaries(st.integers(0, 20), st.integers(0, 8), max_size=20)


def loads(result, crew):
    count = Counter(result.values())
    return [count[member] for member in crew]


def test_without_a_past_it_gives_ranges():
    """As Kafka's range assignor: neighbours stay together, the first ones have one more."""
    assert assign(range(7), ["b", "a", "c"], {}) == {
        0: "a", 1: "a", 2: "a", 3: "b", 4: "b", 5: "c", 6: "c"
    }  # fmt: skip


def test_nobody_gets_nothing():
    """No members, no owners; more members than partitions, some stay idle."""
    assert assign(range(3), [], {0: "a"}) == {}
    assert sorted(loads(assign(range(2), ["a", "b", "c"], {}), "abc")) == [0, 1, 1]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(count=st.integers(0, 20), crew=members, past=pasts)
def test_complete_even_and_least_movement(count, crew, past):
    """Everybody has an owner, loads differ by one at most, and nothing moves that need not.

    The least movement is known: each member may keep as many as its share, the larger shares go to
    those that have the most.
    """
    result = assign(range(count), list(crew), past)
    assert set(result) == set(range(count))
    share = loads(result, crew)
    assert max(share) - min(share) <= 1
    held = Counter(member for part, member in past.items() if part < count and member in crew)
    low, larger = divmod(count, len(crew))
    best = sorted((held[member] for member in crew), reverse=True)
    could_keep = sum(min(have, low + (place < larger)) for place, have in enumerate(best))
    kept = sum(result[part] == past.get(part) for part in result)
    assert kept == could_keep
    assert assign(range(count), sorted(crew, reverse=True), result) == result


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    allowed=st.lists(st.sets(st.integers(0, 4)), max_size=12),
    crew=st.sets(st.integers(0, 4), min_size=1),
    past=st.dictionaries(st.integers(0, 12), st.integers(0, 4)),
)
def test_eligibility_is_kept_and_evened_out(allowed, crew, past):
    """Only who may have a partition gets it, and no single exchange would make it more even."""
    eligible = {part: frozenset(who) for part, who in enumerate(allowed)}
    parts = range(len(allowed))
    result = assign(parts, list(crew), past, eligible)
    assert set(result) == {part for part in parts if eligible[part] & crew}
    assert all(owner in eligible[part] & crew for part, owner in result.items())
    count = Counter(dict.fromkeys(crew, 0))
    count.update(result.values())
    for part, owner in result.items():
        for other in eligible[part] & crew:
            assert count[owner] - count[other] <= 1
    assert assign(parts, list(crew), result, eligible) == result


@pytest.mark.slow
def test_four_thousand_partitions_are_assigned_at_once():
    """The largest group is no reason to stop the leader."""
    crew = [f"m{n}" for n in range(200)]
    first = assign(range(4_096), crew, {})
    then = assign(range(4_096), crew[:-1], first)
    moved = sum(then[part] != first[part] for part in first)
    assert moved == Counter(first.values())["m199"] or moved <= 4_096 // 200 + 1
