import pytest

from conveyor_registry.model import is_name, nearest, split_endpoint


@pytest.mark.parametrize("name", ["a", "0", "drop-cancelled", "a" * 63])
def test_names(name: str) -> None:
    """Labels of DNS are names."""
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a.b", "a" * 64, "ä", "a\n"])
def test_what_is_no_name(name: str) -> None:
    """Anything else is not, a trailing line break included."""
    assert not is_name(name)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("enrch", "enrich"),
        ("ENRICH", "enrich"),
        ("dead_letters", "deadLetters"),
        ("xyzzy", None),
    ],
)
def test_nearest_finds_what_was_meant(word: str, found: str | None) -> None:
    """Case and separators do not count; far words find nothing."""
    assert nearest(word, ["enrich", "deadLetters", "stages"]) == found


def test_nearest_of_nothing_is_nothing() -> None:
    """No known words, no suggestion."""
    assert nearest("a", []) is None


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:50051", "::1", 50051),
        ("a.b-c:65535", "a.b-c", 65535),
    ],
)
def test_endpoints_are_split(text: str, host: str, port: int) -> None:
    """Host and port come apart, with the brackets of IPv6 gone."""
    assert split_endpoint(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:65536", "::1:1", "a b:1", "h:1\n"]
)
def test_what_is_no_endpoint(text: str) -> None:
    """What is not host:port is refused."""
    with pytest.raises(ValueError, match="host:port"):
        split_endpoint(text)
