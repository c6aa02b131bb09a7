import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_raft.core.frames import (
    FRAME_OVERHEAD_BYTES,
    LENGTH_BYTES,
    Frame,
    decode_frames,
    encode_frames,
)
from conveyor_raft.core.types import EntryKind, LogEntry
from conveyor_raft.errors import Corrupt

payload_lists = st.lists(st.binary(max_size=40), min_size=1, max_size=8)
numbers = st.integers(1, 2**62)


@given(numbers, numbers, numbers, st.sampled_from(EntryKind), payload_lists)
def test_a_frame_survives_its_encoding(first, term, timestamp_ms, kind, payloads):
    """Everything that was put in comes out, and the bytes are the same again."""
    frame = Frame.build(first, term, timestamp_ms, kind, payloads)
    decoded = Frame.decode(frame.data)
    assert decoded == frame
    assert hash(decoded) == hash(frame)
    assert list(decoded.entries()) == [
        LogEntry(first + offset, term, timestamp_ms, kind, payload)
        for offset, payload in enumerate(payloads)
    ]
    assert decoded.last_id == (first + len(payloads) - 1, term)
    assert frame.size == FRAME_OVERHEAD_BYTES + sum(len(p) + LENGTH_BYTES for p in payloads)


@given(payload_lists, st.data())
def test_a_slice_is_the_frame_of_its_entries(payloads, data):
    """Cutting bytes equals building anew; the whole is not copied."""
    frame = Frame.build(5, 2, 9, EntryKind.COMMAND, payloads)
    first = data.draw(st.integers(5, frame.last_index))
    last = data.draw(st.integers(first, frame.last_index))
    expected = Frame.build(first, 2, 9, EntryKind.COMMAND, payloads[first - 5 : last - 4])
    assert frame.slice(first, last) == expected
    assert frame.slice(5, frame.last_index) is frame


@pytest.mark.parametrize(("first", "last"), [(4, 6), (5, 8), (7, 6)])
def test_a_slice_stays_within_its_frame(first, last):
    """Asking for more than there is is a mistake of the caller."""
    frame = Frame.build(5, 2, 9, EntryKind.COMMAND, [b"a", b"b", b"c"])
    with pytest.raises(ValueError, match="is not within"):
        frame.slice(first, last)


def test_a_frame_holds_something():
    """An empty frame has no last entry."""
    with pytest.raises(ValueError, match="at least one entry"):
        Frame.build(1, 1, 0, EntryKind.NOOP, [])


@given(st.lists(payload_lists, max_size=4))
def test_frames_stand_one_after_the_other(lists):
    """A row or a message is the concatenation of its frames."""
    frames = tuple(Frame.build(1, 1, 0, EntryKind.COMMAND, payloads) for payloads in lists)
    assert decode_frames(encode_frames(frames)) == frames


@given(payload_lists, st.data())
def test_every_single_damage_is_noticed(payloads, data):
    """One flipped bit anywhere, or a lost end: never a frame, always `Corrupt`."""
    good = Frame.build(7, 3, 11, EntryKind.COMMAND, payloads).data
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Corrupt):
        Frame.decode(bytes(bad))
    with pytest.raises(Corrupt):
        decode_frames(good[: data.draw(st.integers(1, len(good) - 1))])


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage):
    """The decoder raises `Corrupt` and nothing else."""
    if garbage:
        with pytest.raises(Corrupt):
            decode_frames(garbage)


def _with_crc(data: bytes) -> bytes:
    return zlib.crc32(data[4:]).to_bytes(4, "little") + data[4:]


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [(8, 9, "version 9"), (10, 7, "kind 7"), (40, 1, "do not add up")],
)
def test_a_sound_frame_of_another_release_is_refused_with_the_remedy(offset, value, words):
    """A checksum proves that the bytes arrived, not that this release understands them."""
    data = bytearray(Frame.build(1, 1, 0, EntryKind.COMMAND, [b"ab", b"c"]).data)
    data[offset] = value
    with pytest.raises(Corrupt, match=words):
        Frame.decode(_with_crc(bytes(data)))


def test_the_encoding_is_pinned():
    """Golden bytes: what one release writes, the next one reads."""
    frame = Frame.build(7, 3, 11, EntryKind.COMMAND, [b"ab", b""])
    assert frame.data.hex() == (
        "4791c671320000000100010002000000070000000000000003000000000000000b00000000000000"
        "02000000000000006162"
    )
    assert repr(frame) == "Frame(7..8 term 3 COMMAND 50 bytes)"
