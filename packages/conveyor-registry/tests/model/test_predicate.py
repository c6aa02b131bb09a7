import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_registry.model import PredicateError, parse_predicate
from conveyor_registry.model.timestamp import timestamp_ms

HEADERS = {"carrier": "UA", "delay": "15", "empty": "", "quote": 'a"b'}
NOON = 1_370_088_000_000


def holds(text: str) -> bool:
    return parse_predicate(text).matches(b"k1", "flight", NOON, HEADERS)


@pytest.mark.parametrize(
    "text",
    [
        'type == "flight"',
        "type == 'flight'",
        '"flight" == type',
        'key == "k1"',
        'key < "k2" && key >= "k1"',
        'type == "flight" && headers["carrier"] != ""',
        'headers["absent"] == ""',
        '!(headers["carrier"] == "AA")',
        '!(!(type == "flight"))',
        '!!(type == "flight")',
        'headers["delay"] > 9',
        '9 < headers["delay"]',
        'headers["delay"] == 15.0',
        'headers["delay"] >= 1.5e1',
        'headers["delay"] > -3',
        'headers["carrier"] != 3',
        '!(headers["carrier"] > 3)',
        '!(headers["carrier"] < 3)',
        'type == "x" || type == "y" || type == "flight"',
        'type == "flight" || type == "x" && type == "y"',
        '!((type == "flight" || type == "x") && type == "y")',
        'headers["quote"] == "a\\"b"',
        'headers["carrier"] == "\\u0055A"',
        "event_time == 1370088000000",
        'event_time == "2013-06-01T12:00:00Z"',
        'event_time == "2013-06-01T14:00:00+02:00"',
        'event_time >= "2013-06-01" && event_time < "2013-06-02"',
        '"2013-06-02" > event_time',
        'headers["carrier"] != headers["delay"]',
        'key != headers["carrier"]',
    ],
)
def test_what_holds(text: str) -> None:
    """The language means what its manual says."""
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        'headers["delay"] > "9"',
        'headers["carrier"] == 3',
        'headers["absent"] == 0',
        'headers["empty"] <= 0',
        'type == "Flight"',
        'type != "flight" && type == "flight"',
        "event_time > 1370088000000",
    ],
)
def test_what_does_not_hold(text: str) -> None:
    """Text compares as text, and what is no number is neither below nor above one."""
    assert not holds(text)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "expected key, type, event_time"),
        ('type = "a"', 5, "write == to compare"),
        ('type == "a" & key == "b"', 12, "write && for and"),
        ('type == "a" | key == "b"', 12, "write || for or"),
        ('type == "a" and key == "b"', 12, "write && for and"),
        ('not (type == "a")', 0, "write !( … ) for not"),
        ('typ == "a"', 0, "did you mean 'type'?"),
        ('payload == "a"', 0, "there are key, type, event_time, headers"),
        ("type", 4, "expected a comparison"),
        ('headers["a"]', 12, "expected a comparison"),
        ('headers.carrier == "a"', 7, 'write headers["name"]'),
        ('headers[carrier] == "a"', 8, "in quotes"),
        ('headers["carrier" == "a"', 18, "expected ]"),
        ('type == "a', 8, "no closing quote"),
        ('type == "a\\x"', 10, "unknown escape"),
        ('(type == "a"', 12, "expected )"),
        ('type == "a")', 11, "expected && or ||"),
        ('!type == "a"', 1, "in parentheses"),
        ('"a" < type < "c"', 11, "two sides"),
        ('"a" == "b"', 0, "two constants"),
        ('event_time > "tomorrow"', 13, "is not a time"),
        ('event_time > "2013-02-29"', 13, "is not a time"),
        ("event_time > type", 13, "event_time compares with"),
        ("type > event_time", 7, "event_time compares with"),
        ('type == "a" && ', 15, "expected key"),
        ('type == "a" # b', 12, "means nothing here"),
        ("(" * 40 + 'type == "a"' + ")" * 40, 33, "nested deeper than 32"),
        ("!" * 40 + '(type == "a")', 33, "nested deeper than 32"),
        ("x" * 5_000, 4_096, "longer than 4096"),
    ],
)
def test_a_mistake_has_a_position(text: str, position: int, reason: str) -> None:
    """Each mistake says what was expected, at the character where it stands."""
    with pytest.raises(PredicateError) as caught:
        parse_predicate(text)
    assert reason in caught.value.reason
    assert caught.value.position == position
    shown, caret = caught.value.caret.splitlines()
    assert caret.index("^") == 2 + min(position, 60)
    assert shown.strip() in text or not text


def test_a_predicate_says_what_it_looks_at() -> None:
    """A sidecar decodes only the fields that the predicates of an edge need."""
    found = parse_predicate('headers["a"] == "x" || (key == "y" && headers["b"] > 1)')
    assert found.fields == {"headers", "key"}
    assert found.headers == {"a", "b"}
    assert found == parse_predicate(found.text)
    assert hash(found) == hash(parse_predicate(found.text))


def test_keys_that_are_no_text_compare_exactly() -> None:
    """Any bytes may be a key."""
    found = parse_predicate('key == "k"')
    assert not found.matches(b"\xff\xfe", "", 0, {})


@given(st.text(alphabet="keytypheadrs_im\"'[]()!=<>&| 01.-\\u", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text makes the parser fail in another way, and what parses never fails to evaluate."""
    try:
        predicate = parse_predicate(text)
    except PredicateError as error:
        assert 0 <= error.position <= len(text)
    else:
        assert predicate.matches(b"\xff", "", 0, {}) in (True, False)


@given(st.text(max_size=20))
def test_evaluation_is_total_over_headers(value: str) -> None:
    """Whatever a header holds, a number comparison answers, and == and != are opposites."""
    equal = parse_predicate('headers["h"] == 1').matches(b"", "", 0, {"h": value})
    unequal = parse_predicate('headers["h"] != 1').matches(b"", "", 0, {"h": value})
    assert equal is not unequal


@given(
    st.datetimes(min_value=datetime.datetime(1, 1, 1), max_value=datetime.datetime(9999, 12, 31))
)
def test_timestamps_agree_with_the_standard_library(moment: datetime.datetime) -> None:
    """The day count is right over four digits of years."""
    aware = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=datetime.UTC)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert timestamp_ms(aware.isoformat()) == (aware - epoch) // datetime.timedelta(milliseconds=1)
