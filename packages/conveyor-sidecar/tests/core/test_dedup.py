"""What a sink has seen: exact, bounded by the stable mark, aware of owners."""

from dataclasses import replace

from conveyor_sdk.carrier.frame import Frame, merge_frames, write_u64
from conveyor_sidecar.core.dedup import SeenRecords
from conveyor_sidecar.core.delivery import Holding
from conveyor_sidecar.testing.harness import frame_of


class Open(Holding):
    """A frame that is under way."""

    def on_end(self) -> None:
        pass


def at(*offsets: int, path: int = 0, partition: str = "0", term: int = 1) -> Frame:
    names = [f"r{offset}" for offset in offsets]
    frame = frame_of(*names, offsets=offsets, partition=partition, term=term)
    return replace(frame, paths_column=write_u64([path] * len(offsets)) if path else b"")


def test_new_records_are_fresh_altogether() -> None:
    """The usual frame costs no selection."""
    sighting = SeenRecords().see(at(1, 2, 3), Open())
    assert sighting.fresh is None
    assert not sighting.waits_on


def test_a_record_that_is_open_elsewhere_is_waited_for() -> None:
    """R4: seen and not ended means wait, neither write again nor call it ended."""
    seen = SeenRecords()
    first = Open()
    seen.see(at(1, 2), first)
    sighting = seen.see(at(2, 3), Open())
    assert sighting.fresh == [1]
    assert list(sighting.waits_on) == [first]
    assert sighting.duplicates == 1


def test_a_record_that_has_ended_is_ended_again() -> None:
    """R5: what was written is not written again."""
    seen = SeenRecords()
    first = Open()
    seen.see(at(1, 2), first)
    first.release()
    sighting = seen.see(at(1, 2), Open())
    assert sighting.fresh == []
    assert not sighting.waits_on


def test_a_late_record_below_a_higher_one_is_new() -> None:
    """Highest seen would lose it."""
    seen = SeenRecords()
    seen.see(at(10, 11), Open())
    assert seen.see(at(5), Open()).fresh is None


def test_paths_tell_outputs_of_one_record_apart() -> None:
    """Two outputs of one source record are two records."""
    seen = SeenRecords()
    seen.see(at(1, path=7), Open())
    assert seen.see(at(1, path=8), Open()).fresh is None
    assert seen.see(at(1, path=7), Open()).fresh == []


def test_mixed_frames_are_looked_at_record_by_record() -> None:
    """A frame merged from two partitions and paths meets what uniform frames left."""
    seen = SeenRecords()
    seen.see(at(1, path=7), Open())
    seen.see(at(2, partition="1"), Open())
    mixed = merge_frames([at(1, 2, path=7), at(2, 3, partition="1")])
    assert seen.see(mixed, Open()).fresh == [1, 3]


def test_a_frame_that_brings_a_record_twice_writes_it_once() -> None:
    """A repetition inside one frame does not wait for itself."""
    sighting = SeenRecords().see(at(4, 4), Open())
    assert sighting.fresh == [0]
    assert not sighting.waits_on


def test_below_the_stable_mark_everything_has_ended() -> None:
    """The mark stands for all that was forgotten."""
    seen = SeenRecords()
    seen.raise_stable(at(0).origins[0], 10)
    assert seen.see(at(9, 10), Open()).fresh == [1]


def test_memory_is_bounded_by_the_stable_mark() -> None:
    """What is stable is forgotten: a long stream does not grow the memory."""
    seen = SeenRecords()
    for start in range(0, 100_000, 500):
        holding = Open()
        seen.see(at(*range(start, start + 500)), holding)
        holding.release()
        seen.raise_stable(at(0).origins[0], start)
    assert len(seen) < 5_000


def test_a_newer_owner_supersedes_the_older_one() -> None:
    """Records of a replaced owner end unwritten: the newer one reads them again."""
    seen = SeenRecords()
    seen.see(at(1, term=3), Open())
    seen.see(at(1, term=5), Open())
    sighting = seen.see(at(2, 3, term=3), Open())
    assert sighting.fresh == []
    assert sighting.superseded == 2
    seen.raise_stable(at(0, term=3).origins[0], 50)
    assert seen.see(at(4, term=5), Open()).fresh is None
