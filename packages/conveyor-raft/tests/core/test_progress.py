from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_raft.core.messages import AppendConflict
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.progress import Probe, Progress, Replicate, Snapshot
from conveyor_raft.errors import InvariantViolation


def test_the_first_proof_ends_the_search():
    """From probing to streaming, right behind what was proved."""
    progress = Progress(1, 8)
    assert progress.acknowledge(5)
    assert isinstance(progress.state, Replicate)
    assert (progress.match, progress.next) == (5, 6)
    assert not progress.acknowledge(5)
    assert not progress.acknowledge(3)
    assert progress.match == 5


def test_a_rejection_leads_back_by_terms():
    """Without entries of the follower's term: before all of it; with them: behind one's own."""
    progress = Progress(1, 100)
    assert progress.backtrack(AppendConflict(1, 99, 4, 50), None)
    assert progress.next == 50
    assert progress.backtrack(AppendConflict(1, 49, 3, 20), 30)
    assert progress.next == 31
    assert progress.backtrack(AppendConflict(1, 30, 0, 10), None)
    assert progress.next == 10


def test_a_rejection_always_leads_back_but_never_below_a_proof():
    """Each one moves the search, so it ends; what was proved stays proved."""
    progress = Progress(1, 100)
    progress.match = 20
    assert progress.backtrack(AppendConflict(1, 99, 4, 200), 150)
    assert progress.next == 99
    assert progress.backtrack(AppendConflict(1, 98, 4, 5), None)
    assert progress.next == 21


def test_stale_rejections_change_nothing():
    """Of a position already proved; of another probe than the one out; during a snapshot."""
    progress = Progress(1, 10)
    assert not progress.backtrack(AppendConflict(1, 7, 0, 3), None)
    progress.acknowledge(9)
    assert not progress.backtrack(AppendConflict(1, 9, 0, 3), None)
    assert isinstance(progress.state, Replicate)
    progress.state = Snapshot(30)
    assert not progress.backtrack(AppendConflict(1, 20, 0, 3), None)


def test_a_snapshot_ends_with_the_proof_of_its_index():
    """A proof below it is welcome, but the follower still lacks what is gone."""
    progress = Progress(1, 3)
    progress.state = Snapshot(20)
    assert progress.acknowledge(10)
    assert isinstance(progress.state, Snapshot)
    assert progress.acknowledge(20)
    assert isinstance(progress.state, Replicate)
    assert progress.next == 21


def test_searching_again_goes_no_lower_than_the_proof():
    """After a broken connection the search begins behind what is known."""
    progress = Progress(1, 3)
    progress.acknowledge(10)
    progress.search(4, waiting=True)
    assert isinstance(progress.state, Probe)
    assert progress.state.waiting
    assert progress.next == 11


def test_a_contradiction_stops_the_node():
    """`match < next <= last + 1`, whatever happens."""
    progress = Progress(1, 5)
    progress.check(4)
    with pytest.raises(InvariantViolation, match="next 5"):
        progress.check(3)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30), st.integers(0, 40)), max_size=60))
def test_the_window_is_a_list(steps):
    """Against a plain list: what is unanswered, how many bytes, and when it is full."""
    options = CoreOptions(max_inflight_messages=3, max_inflight_bytes=50)
    replicate, model, last = Replicate(), deque(), 0
    for add, size, match in steps:
        if add and not replicate.full(options):
            last += 1
            replicate.add(last, size)
            model.append((last, size))
        else:
            replicate.free(match)
            model = deque(item for item in model if item[0] > match)
        assert list(replicate.window) == list(model)
        assert replicate.inflight_bytes == sum(size for _, size in model)
        assert replicate.full(options) == (len(model) >= 3 or sum(size for _, size in model) >= 50)
