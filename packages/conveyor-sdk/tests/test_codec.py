"""Values to payloads and back, positions, and the errors on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_sdk import CodecError, Record
from conveyor_sdk.codec import codec_for, decode_json, encode
from conveyor_sdk.position import OpaquePositions, StableOffsets
from conveyor_sdk.record import from_wire, to_wire
from conveyor_sdk.wire import record_pb2

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
).filter(lambda value: not isinstance(value, float) or abs(value) != float("inf"))


@dataclass
class Order:
    quantity: int
    price: float = 1.0


def finite(value):
    if isinstance(value, float):
        return abs(value) != float("inf")
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, dict) or all(map(finite, value.values()))


@given(JSON.filter(lambda value: isinstance(value, dict | list | int | float) and finite(value)))
def test_json_values_come_back(value):
    """decode(encode(value)) == value for everything that JSON can say."""
    assert decode_json(encode(value)) == value


@given(st.binary(max_size=40))
def test_payloads_that_are_not_json_are_refused_and_nothing_else_happens(payload):
    """Whatever the bytes, the answer is a value or CodecError."""
    try:
        decode_json(payload)
    except CodecError as error:
        assert "not JSON" in str(error)


def test_bytes_and_text_are_left_alone():
    """They are payloads already."""
    assert encode(b"\xff") == b"\xff"
    assert encode("é") == "é".encode()
    assert codec_for(bytes)(b"\xff") == b"\xff"
    assert codec_for(str)("é".encode()) == "é"
    with pytest.raises(CodecError, match="not UTF-8"):
        codec_for(str)(b"\xff")


def test_dataclasses_are_json_objects():
    """Unknown and missing fields are refused by name."""
    codec = codec_for(Order)
    assert codec(encode(Order(2, 3.5))) == Order(2, 3.5)
    assert encode([Order(1)]) == b'[{"quantity":1,"price":1.0}]'
    with pytest.raises(CodecError, match="colour"):
        codec(b'{"quantity":1,"colour":2}')
    with pytest.raises(CodecError, match="quantity"):
        codec(b"{}")
    with pytest.raises(CodecError, match="the payload is a list"):
        codec(b"[]")


@pytest.mark.parametrize(
    ("hint", "payload", "value"),
    [
        (dict, b'{"a":1}', {"a": 1}),
        (dict[str, Any], b"{}", {}),
        (Mapping[str, int], b'{"a":1}', {"a": 1}),
        (int, b"3", 3),
        (float, b"3", 3),
        (bool, b"true", True),
        (Any, b"null", None),
        (int | None, b"null", None),
        (Optional[int], b" 3 ", 3),  # noqa: UP045
    ],
)
def test_hints_choose_the_value(hint, payload, value):
    """A hint is a promise about the type."""
    assert codec_for(hint)(payload) == value


@pytest.mark.parametrize(("hint", "payload"), [(dict, b"[]"), (int, b"true"), (int, b"1.5")])
def test_other_types_than_hinted_are_refused(hint, payload):
    """JSON of another type does not reach the handler."""
    with pytest.raises(CodecError, match="the handler asks for"):
        codec_for(hint)(payload)


@pytest.mark.parametrize("value", [None, float("nan"), {"a": object()}, {1, 2}, object()])
def test_values_without_a_payload_are_refused(value):
    """NaN is not JSON, None is not a record."""
    with pytest.raises(CodecError):
        encode(value)


def test_nan_in_a_payload_is_refused():
    """What encode refuses, decode refuses."""
    with pytest.raises(CodecError, match="NaN is not a JSON value"):
        decode_json(b"[NaN]")


def test_endless_nesting_is_refused():
    """Deep payloads end in an error, not in a crash."""
    with pytest.raises(CodecError):
        decode_json(b"[" * 100_000)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CodecError):
        encode(deep)


def test_records_carry_their_metadata():
    """to_wire and from_wire are inverse; the event time keeps its moment."""
    moment = datetime(2013, 1, 1, 12, tzinfo=timezone(timedelta(hours=-5)))
    record = Record({"a": 1}, key=b"k", type="t", headers={"h": "v"}, event_time=moment)
    back = from_wire(to_wire(record), decode_json)
    assert back == Record(
        {"a": 1}, key=b"k", type="t", headers={"h": "v"}, event_time=moment.astimezone(UTC)
    )
    assert record.to("errors").route == "errors"
    assert from_wire(record_pb2.Record(payload=b"1"), decode_json).event_time is None
    with pytest.raises(ValueError, match="has no time zone"):
        Record(1, event_time=datetime(2013, 1, 1))
    bad = record_pb2.Record(payload=b"1")
    bad.event_time.seconds = 2**62
    with pytest.raises(CodecError, match="out of range"):
        from_wire(bad, decode_json)


@given(
    st.one_of(
        st.binary(max_size=100), st.integers(), st.text(max_size=50), st.lists(JSON, max_size=3)
    )
)
def test_opaque_positions_come_back_as_they_were(position):
    """A source gets back exactly what it yielded, type included."""
    positions = OpaquePositions()
    try:
        data = positions.encode(position)
    except CodecError as error:
        assert "bytes; at most 1024" in str(error) or not finite(position)
    else:
        assert 0 < len(data) <= 1024
        assert positions.decode(data) == position


def test_positions_have_bounds():
    """None, long ones and foreign bytes are refused."""
    positions = OpaquePositions()
    with pytest.raises(CodecError, match="None is no position"):
        positions.encode(None)
    with pytest.raises(CodecError, match="1025 bytes; at most 1024"):
        positions.encode(bytes(1024))
    for foreign in (b"\x00\x00", b"j[1,2]", b"j1"):
        with pytest.raises(CodecError, match="not written by this SDK"):
            positions.decode(foreign)


@given(st.integers(0, 2**64 - 2))
def test_a_stable_offset_travels_as_the_next_one(offset):
    """8 bytes big-endian, so positions sort like offsets."""
    stable = StableOffsets()
    data = stable.encode(offset)
    assert len(data) == 8
    assert stable.decode(data) == offset + 1
    assert stable.encode(min(offset + 1, 2**64 - 2)) >= data


@pytest.mark.parametrize("position", [-1, 2**64 - 1, 1.0, "1", True, None, b"1"])
def test_offsets_are_integers(position):
    """Anything else with stable_offsets is refused."""
    with pytest.raises(CodecError, match="an integer from 0 on"):
        StableOffsets().encode(position)


def test_a_foreign_stable_position_is_refused():
    """A position that was committed before stable_offsets was switched on says so."""
    with pytest.raises(CodecError, match="switched on after"):
        StableOffsets().decode(b"j[1]")
