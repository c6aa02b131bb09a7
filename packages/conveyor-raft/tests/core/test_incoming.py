import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_raft.core.incoming import Incoming, SnapshotName, name_of
from conveyor_raft.core.types import LogId
from conveyor_raft.errors import Corrupt

DATA = bytes(range(40))
OLD, NEW = LogId(5, 1), LogId(9, 2)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), max_size=40))
def test_whatever_arrives_only_the_whole_is_handed_over(pieces):
    """Lost, repeated, overlapping and late pieces: what is here is always a true beginning."""
    incoming, name, have = Incoming(), name_of(OLD, DATA), 0
    for offset, length in pieces:
        piece = DATA[offset : offset + length]
        if offset <= have:
            have = max(have, offset + len(piece))
        assert incoming.add(name, offset, piece) == have == incoming.offset(name)
        if have < len(DATA):
            with pytest.raises(Corrupt, match="have arrived"):
                incoming.take(name)
    assert incoming.add(name, have, DATA[have:]) == len(DATA)
    assert incoming.take(name) == DATA
    assert incoming.offset(name) == 0


def test_who_begins_last_takes_the_place():
    """Even with an older snapshot: the sender of the newer one may be gone for ever."""
    incoming = Incoming()
    old, new = name_of(OLD, DATA), name_of(NEW, DATA[::-1])
    assert incoming.add(new, 0, DATA[::-1][:10]) == 10
    assert incoming.add(old, 5, b"behind a hole") == 0
    assert incoming.offset(new) == 10
    assert incoming.add(old, 0, DATA[:7]) == 7
    assert incoming.add(new, 10, DATA[::-1][10:]) == 0
    assert incoming.offset(old) == 7
    assert incoming.add(old, 7, DATA[7:]) == 40
    assert incoming.take(old) == DATA


def test_another_leader_goes_on_with_the_same_bytes():
    """The name says what the bytes are, not who sends them; other bytes are another snapshot."""
    incoming = Incoming()
    incoming.add(name_of(OLD, DATA), 0, DATA[:25])
    assert incoming.offset(name_of(OLD, bytes(DATA))) == 25
    assert incoming.offset(name_of(OLD, DATA + b"x")) == 0


def test_a_damaged_snapshot_is_forgotten():
    """A flipped bit shows in the digest; the transfer begins again, and a longer one never ends."""
    incoming, name = Incoming(), name_of(OLD, DATA)
    incoming.add(name, 0, b"\xff" + DATA[1:])
    with pytest.raises(Corrupt, match="damaged"):
        incoming.take(name)
    assert incoming.offset(name) == 0
    assert incoming.add(name, 0, DATA + b"too long") == 0
    assert incoming.add(name, 0, DATA) == 40
    assert incoming.take(name) == DATA


def test_an_empty_snapshot_is_whole_at_once():
    """Nothing has to arrive of it but its name."""
    name = name_of(OLD, b"")
    assert isinstance(name, SnapshotName)
    incoming = Incoming()
    incoming.add(name, 0, b"")
    assert incoming.take(name) == b""
