from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.log import RaftLog
from conveyor_raft.core.types import EntryKind, LogId
from conveyor_raft.errors import InvariantViolation


def build(terms: list[tuple[int, int]], base: LogId) -> tuple[RaftLog, dict[int, int]]:
    """A log of frames (term step, count), and the same as a plain index-to-term dict."""
    log, model = RaftLog(base), {}
    term = max(1, base.term)
    for step, count in terms:
        term += step
        first = log.last_index + 1
        payloads = [b"%d" % (first + offset) for offset in range(count)]
        log.append(Frame.build(first, term, 0, EntryKind.COMMAND, payloads))
        model.update(dict.fromkeys(range(first, first + count), term))
    return log, model


logs = st.builds(
    build,
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=8),
    st.sampled_from([LogId(0, 0), LogId(4, 2)]),
)


def check(log: RaftLog, model: dict[int, int]) -> None:
    base, last = log.base.index, log.last_index
    assert [log.term_at(i) for i in range(base + 1, last + 1)] == [
        model[i] for i in range(base + 1, last + 1)
    ]
    assert log.term_at(base) == log.base.term
    assert log.term_at(base - 1) is None
    assert log.term_at(last + 1) is None
    assert log.first_index == base + 1
    frames = log.frames(log.first_index, last)
    assert [entry.index for frame in frames for entry in frame.entries()] == list(
        range(base + 1, last + 1)
    )
    assert log.bytes_after(base) == sum(frame.size for frame in frames)
    for term in range(12):
        of_term = [i for i in range(base + 1, last + 1) if model[i] == term]
        assert log.last_of_term(term) == (of_term[-1] if of_term else None)
    for index in range(base + 1, last + 1):
        first = index
        while first - 1 > base and model[first - 1] == model[index]:
            first -= 1
        assert log.first_of_term_at(index) == first


@given(logs)
def test_the_log_is_a_list_of_entries(built):
    """Term runs and frames say the same as a plain list."""
    check(*built)


@given(logs, st.data())
def test_truncation_cuts_frames_and_runs_alike(built, data):
    """Whatever index it cuts at, the rest is what a plain list keeps, and the log goes on."""
    log, model = built
    if log.last_index == log.base.index:
        return
    index = data.draw(st.integers(log.first_index, log.last_index))
    log.truncate_from(index)
    assert log.last_index == index - 1
    check(log, model)
    log.append(Frame.build(index, 30, 0, EntryKind.COMMAND, [b"new"]))
    check(log, {**model, index: 30})


@given(logs, st.data())
def test_compaction_keeps_whole_frames(built, data):
    """Never more goes than was asked for; the entry before the first keeps its term."""
    log, model = built
    through = data.draw(st.integers(log.base.index, log.last_index + 1))
    ends = [log.base.index, *(f.last_index for f in log.frames(log.first_index, log.last_index))]
    log.compact(through)
    assert log.base.index == max(end for end in ends if end <= through)
    check(log, model)


@given(logs, logs)
def test_what_a_frame_adds_is_found_without_looking_at_entries(ours, theirs):
    """The first index that the log lacks or has in another term, against entry by entry."""
    log, model = ours
    other, _ = theirs
    for frame in other.frames(other.first_index, other.last_index):
        if frame.first_index <= log.base.index:
            continue
        indexes = range(frame.first_index, frame.last_index + 1)
        lacking = [index for index in indexes if model.get(index) != frame.term]
        expected = lacking[0] if lacking else frame.last_index + 1
        assert log.first_missing(frame) == expected


@given(logs, st.data())
def test_a_batch_keeps_to_its_bytes_but_is_never_empty(built, data):
    """`max_bytes` cuts behind a frame; a single larger one still comes."""
    log, _ = built
    if log.last_index == log.base.index:
        return
    first = data.draw(st.integers(log.first_index, log.last_index))
    limit = data.draw(st.integers(1, 400))
    frames = log.frames(first, log.last_index, limit)
    assert frames[0].first_index == first
    assert sum(frame.size for frame in frames) <= limit or len(frames) == 1
    assert all(b.first_index == a.last_index + 1 for a, b in pairwise(frames))


def test_the_log_refuses_what_does_not_continue_it():
    """A gap, an overlap or an older term is a broken rule, not an input."""
    log, _ = build([(1, 3)], LogId(0, 0))
    for first, term in ((3, 2), (5, 2), (4, 1)):
        with pytest.raises(InvariantViolation, match="does not continue"):
            log.append(Frame.build(first, term, 0, EntryKind.NOOP, [b""]))
    for index in (0, 4):
        with pytest.raises(InvariantViolation, match="cannot truncate"):
            log.truncate_from(index)
    with pytest.raises(InvariantViolation, match="no entries"):
        log.frames(2, 4)
    assert log.frames(4, 3) == []
    assert log.last_timestamp_ms == 0
    assert RaftLog().last_timestamp_ms is None
