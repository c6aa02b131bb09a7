"""The list of scenarios is complete, and what it names is there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCUMENT = Path(__file__).parents[3] / "docs" / "internals" / "raft-scenarios.md"
LETTERS = (
    ("A", 1, 27),
    ("B", 28, 50),
    ("C", 51, 59),
    ("D", 60, 69),
    ("E", 70, 83),
    ("F", 84, 89),
    ("G", 90, 104),
)
ROW = re.compile(r"^\| ([A-G]\d+)( ★)? \| ([^|]+) \| ([^|]+) \| ([^|]*) \|$", re.MULTILINE)
ROWS = ROW.findall(DOCUMENT.read_text())


def test_every_scenario_is_named_once():
    """In order; a line that is not written like the others would be missing here."""
    wanted = [f"{letter}{n}" for letter, low, high in LETTERS for n in range(low, high + 1)]
    assert [name for name, *_ in ROWS] == wanted


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_is_named_exists(row):
    """Scripts, and tests by their names; what shipped libraries got wrong is a script."""
    name, star, _, shown, source = row
    places = re.findall(r"`([^`]+)`", shown)
    assert places
    for place in places:
        path, _, test = place.partition("::")
        text = (TESTS / path).read_text()
        assert not test or re.search(rf"def {test}\(", text), f"{name}: no {test} in {path}"
    if star:
        assert source.strip()
        assert any(place.endswith(".txt") for place in places) or "(no script: " in shown


def test_every_script_is_listed():
    """In a line of its own, or among those that introduce the format."""
    listed = set(re.findall(r"`(scripts/[^`]+\.txt)`", DOCUMENT.read_text()))
    assert listed == {str(path.relative_to(TESTS)) for path in (TESTS / "scripts").rglob("*.txt")}
