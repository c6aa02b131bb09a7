import pytest

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.loading import LoadedState, retained_log
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.output import Write
from conveyor_raft.core.types import EntryKind, HardState, Member
from conveyor_raft.testing.disk import SimulatedDisk, StoredSnapshot


def frame(first: int, term: int, count: int = 1) -> Frame:
    return Frame.build(first, term, 0, EntryKind.COMMAND, [b"x"] * count)


def write(number: int, *frames: Frame, vote=None, snapshot=None, cut=None) -> Write:
    return Write(number, vote, snapshot, cut, frames)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(LoadedState(HardState(1, None), None, (frame(1, 1),)))


def test_a_crash_keeps_a_prefix_of_what_was_on_its_way(disk):
    """Each write whole; nothing behind the first lost one."""
    for number in (1, 2, 3):
        disk.submit(write(number, frame(number + 1, 1), vote=HardState(number, None)), 0)
    assert disk.complete() == 1
    disk.crash(1)
    assert disk.last_index == 3
    assert disk.load().hard_state == (2, None)
    assert not disk.pending
    assert retained_log(disk.load()).last_id == (3, 1)


def test_truncation_replaces_the_end(disk):
    """In the middle of a frame, in one write with what follows."""
    disk.submit(write(1, frame(2, 1, 4)), 0)
    disk.submit(write(2, frame(4, 2), cut=4), 0)
    disk.complete()
    assert disk.has(5, 1)
    disk.complete()
    assert (disk.has(3, 1), disk.has(4, 1), disk.has(4, 2), disk.has(5, 1)) == (
        (True, False, True, False)
    )
    assert [f.last_index for f in disk.load().frames] == [1, 3, 4]


def test_a_snapshot_covers_what_it_replaces(disk):
    """Received with the deletion of the log, or built here and followed by compaction."""
    meta = SnapshotMeta(9, 3, 0, Membership((Member(1, "a"),)))
    disk.submit(write(1, frame(10, 3), snapshot=meta, cut=1), 77)
    disk.complete()
    assert disk.snapshot == StoredSnapshot(meta, 77)
    assert (disk.has(9, 3), disk.has(10, 3), disk.has(11, 3)) == (True, True, False)
    disk.save_snapshot(StoredSnapshot(SnapshotMeta(4, 3, 0, meta.membership), 5))
    assert disk.snapshot.state == 77
    newer = StoredSnapshot(SnapshotMeta(10, 3, 0, meta.membership), 78)
    disk.save_snapshot(newer)
    disk.compact(10)
    assert disk.frames == []
    assert disk.has(10, 3)
    assert disk.load().snapshot == newer.meta


def test_a_hole_is_noticed(disk):
    """A core that skips an entry is a core with a bug."""
    disk.submit(write(1, frame(5, 1)), 0)
    with pytest.raises(AssertionError, match="leaves a hole"):
        disk.complete()
