import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_config import YamlRefused, read_yaml
from conveyor_config.yaml import BYTES_MAX


def value(text: str) -> object:
    (document,) = read_yaml(text.encode())
    return document.value


def refusal(text: str | bytes) -> YamlRefused:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(YamlRefused) as caught:
        read_yaml(data, "a.yaml")
    return caught.value


@pytest.mark.parametrize(
    "scalar",
    [
        "no",
        "NO",
        "yes",
        "on",
        "true",
        "12:30",
        "12:30:45",
        "1_000",
        "010",
        "0x1F",
        "1e3",
        "2013-06-01",
    ],
)
def test_scalars_stay_what_was_written(scalar: str) -> None:
    """Nothing is guessed: Norway is no falsehood, half past twelve no 750."""
    assert value(f"a: {scalar}") == {"a": scalar}


@pytest.mark.parametrize(
    ("scalar", "read"), [("", None), ("~", None), ("null", None), ('""', ""), ('"null"', "null")]
)
def test_only_plain_emptiness_is_nothing(scalar: str, read: str | None) -> None:
    """A quoted text is a text, whatever it says."""
    assert value(f"a: {scalar}") == {"a": read}


def test_json_is_read_too() -> None:
    """JSON is a subset, with its scalars as text."""
    assert value('{"a": [1, true, null, "x"]}') == {"a": ["1", "true", None, "x"]}


def test_a_very_long_number_is_text() -> None:
    """A number of 5,000 digits costs nothing."""
    assert value("a: " + "9" * 5_000) == {"a": "9" * 5_000}


def test_lines_are_kept() -> None:
    """Each key and item knows its line, and what is absent the line of what is around it."""
    first, second = read_yaml(b"# head\na: 1\nb:\n  - x\n  - y: 2\n---\nc: 3\n", "f.yaml")
    assert first.place_of(("a",)) == "f.yaml:2"
    assert first.place_of(("b", 1, "y")) == "f.yaml:5"
    assert first.place_of(("b", 1, "z", "deeper")) == "f.yaml:5"
    assert first.place_of() == "f.yaml:2"
    assert second.place_of(("c",)) == "f.yaml:7"


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "---\n---\n", "--- ~\n"])
def test_empty_documents_are_left_out(text: str) -> None:
    """A separator too many is no mistake."""
    assert read_yaml(text.encode()) == []


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "stands already in line 1"),
        ("a: {b: 1,\n b: 2}\n", 2, "stands already in line 1"),
        ("a: &x 1\n", 1, "anchors (&x)"),
        ("a: 1\nb: *x\n", 2, "aliases (*x)"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tags"),
        ("a: !!int 5\n", 1, "tags"),
        ("a: ! 5\n", 1, "tags"),
        ("a: 1\n<<: {b: 2}\n", 2, "merge keys"),
        ("? [a, b]\n: 1\n", 1, "a key is a text"),
        ("?\n: 2\n", 1, "a key is missing"),
        ("a: 1\n: 2\n", 2, "expected key"),
        ("a: [1, 2\nb: 3\n", 2, ""),
        ("a: 'x\n", 2, ""),
        ("a:\n\t- b\n", 2, "tab"),
        ("a: \x00\n", 1, "not allowed"),
        ("a: 1\nb: \x07\n", 2, "not allowed"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        ("[" * 33 + "]" * 33, 1, "nested deeper than 32"),
        ("[" * 10_000, 1, "nested deeper than 32"),
        ("a: " + "{b: " * 40, 1, "nested deeper than 32"),
        ("[" + "1," * 20_001 + "]", 1, "more than 20000 values"),
        ("---\n" * 1_002, 1_001, "more than 1000 documents"),
        (b" " * (BYTES_MAX + 1), 1, "larger than 256 KiB"),
    ],
)
def test_what_is_outside_the_subset_is_refused(text: str | bytes, line: int, reason: str) -> None:
    """Each refusal names file, line and column, and what is not read."""
    error = refusal(text)
    assert error.line == line
    assert reason in error.reason
    assert str(error).startswith(f"a.yaml:{line}:")


def test_bombs_are_refused_at_once() -> None:
    """Aliases, merges, flat lists and depth cost milliseconds, not gigabytes."""
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    flat = "- 1\n" * (BYTES_MAX // 4)
    started = time.process_time()
    for bomb in (laughs, flat, "{a: " * 60_000, "? " * 100_000):
        refusal(bomb)
    assert time.process_time() - started < 2


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No input raises anything but the refusal."""
    try:
        read_yaml(data)
    except YamlRefused as error:
        assert error.line >= 1


@given(st.text(alphabet="ab:- \n[]{},#&*!|>'\"%@`\t?", max_size=60))
def test_any_yaml_like_text_is_read_or_refused(text: str) -> None:
    """The same for texts made of YAML's own signs."""
    try:
        read_yaml(text.encode())
    except YamlRefused as error:
        assert error.line >= 1
