import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_registry.model import (
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration_ms,
)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("100ms", 100), ("30s", 30_000), ("1.5s", 1_500), ("10m", 600_000), ("7d", 604_800_000)],
)
def test_durations_are_read(text: str, milliseconds: int) -> None:
    """Every unit of the manual is read to milliseconds."""
    assert parse_duration_ms(text) == milliseconds


@pytest.mark.parametrize(("text", "count"), [("1B", 1), ("256KiB", 262_144), ("1.5MiB", 1_572_864)])
def test_sizes_are_read(text: str, count: int) -> None:
    """Every unit of the manual is read to bytes."""
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["30", "", "s", "-1s", "1 s", "1e3s", "30sec", "1.0005s", "٣s", "1__0s"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Nothing is guessed: a missing, unknown or too fine unit is an error with an example."""
    with pytest.raises(ValueError, match=r"30s|whole"):
        parse_duration_ms(text)


@pytest.mark.parametrize("text", ["256", "256KB", "256kib", "0.3B", "1TiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Decimal units are refused rather than taken for binary ones."""
    with pytest.raises(ValueError, match=r"256KiB|whole"):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=10**14))
def test_spelling_and_reading_are_inverse(amount: int) -> None:
    """The canonical spelling of any amount reads back to the same amount."""
    assert parse_duration_ms(format_duration(amount)) == amount
    assert parse_bytes(format_bytes(amount)) == amount
