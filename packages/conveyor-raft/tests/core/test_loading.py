import pytest

from conveyor_raft.core.loading import LoadedState, first_state, retained_log
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.types import HardState
from conveyor_raft.errors import Corrupt


@pytest.fixture
def snapshot(membership):
    return lambda index, term: SnapshotMeta(index, term, 0, membership(3))


def load(*frames, snapshot=None, term=9):
    return LoadedState(HardState(term, None), snapshot, frames)


def test_all_members_write_the_same_first_state(membership):
    """One CONFIG entry at index 1 of term 1, byte for byte."""
    one, other = first_state(membership(3)), first_state(membership(3))
    assert one == other
    assert one.hard_state == (1, None)
    assert retained_log(one).last_id == (1, 1)


def test_an_empty_disk_is_an_empty_log():
    """A node without configuration begins with nothing."""
    assert retained_log(LoadedState()).last_id == (0, 0)


def test_the_log_continues_the_snapshot(frame, snapshot):
    """Exactly behind it, or with a trail before it; the trail's first entry gives the base."""
    exact = retained_log(load(frame(6, 2, "a", "b"), snapshot=snapshot(5, 2)))
    assert (exact.base, exact.last_id) == ((5, 2), (7, 2))
    trail = retained_log(load(frame(3, 1, "a", "b"), frame(5, 2, "c"), snapshot=snapshot(5, 2)))
    assert (trail.base, trail.first_index, trail.last_id) == ((3, 1), 4, (5, 2))
    single = retained_log(load(frame(4, 1, "a"), frame(5, 2, "c"), snapshot=snapshot(5, 2)))
    assert (single.base, single.last_id) == ((4, 1), (5, 2))
    whole = retained_log(load(frame(1, 1, "a", "b", "c"), snapshot=snapshot(2, 1)))
    assert (whole.base, whole.last_id) == ((0, 0), (3, 1))


def test_a_snapshot_may_stand_alone(snapshot):
    """Everything was compacted, or the snapshot was received."""
    log = retained_log(load(snapshot=snapshot(5, 2)))
    assert (log.base, log.last_id) == ((5, 2), (5, 2))


def test_contradictions_are_corrupt(frame, snapshot):
    """A lost end, a gap, a hole, another entry under the snapshot, a vote older than the log."""
    for bad, words in (
        (load(frame(1, 1, "a", "b"), snapshot=snapshot(5, 2)), "its end was lost"),
        (load(frame(7, 2), snapshot=snapshot(5, 2)), "entries are missing"),
        (load(frame(2, 1)), "entries are missing"),
        (load(frame(1, 1), frame(3, 1)), "does not continue"),
        (load(frame(1, 2), frame(2, 1)), "does not continue"),
        (load(frame(5, 1), frame(6, 2), snapshot=snapshot(5, 2)), "at index 5"),
        (load(frame(1, 3), term=2), "the vote knows only term 2"),
    ):
        with pytest.raises(Corrupt, match=words):
            retained_log(bad)
