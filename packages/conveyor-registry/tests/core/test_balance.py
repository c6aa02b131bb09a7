"""Picking one of several."""

from __future__ import annotations

from collections import Counter

from conveyor_registry.core.balance import after, heaviest


def test_round_robin_goes_on_after_the_last():
    """Also when the last one is gone, and around the end."""
    assert after(["b", "a", "c"], None) == "a"
    assert after(["b", "a", "c"], "a") == "b"
    assert after(["a", "c"], "b") == "c"
    assert after(["a", "b"], "c") == "a"


def test_weights_are_kept_and_spread():
    """5, 1, 1 in seven picks, and the heavy one is not picked five times in a row (nginx)."""
    credit: dict[str, int] = {}
    picks = [heaviest({"a": 5, "b": 1, "c": 1}, credit) for _ in range(7)]
    assert picks == ["a", "a", "b", "a", "c", "a", "a"]
    more = [heaviest({"a": 5, "b": 1, "c": 1}, credit) for _ in range(70)]
    assert Counter(more) == {"a": 50, "b": 10, "c": 10}


def test_no_weight_is_nobody():
    """And who has none is never picked."""
    credit: dict[str, int] = {}
    assert heaviest({"a": 0}, credit) is None
    assert {heaviest({"a": 0, "b": 1}, credit) for _ in range(5)} == {"b"}
