"""A partition's low mark, its commits, and its identities."""

import pytest

from conveyor_sidecar.core.positions import LeftOff, Partition, Reading
from conveyor_sidecar.core.routes import PartitionKey, SourcePartition

ASSIGNED = SourcePartition("src", 0, "0", 7, resume=b"start", from_start=False, next_ordinal=10)


def partition(stable: bool = False) -> Partition:
    return Partition(PartitionKey("p", "src", "0"), ASSIGNED, stable, lambda *_: None)


def three(of: Partition) -> list[Reading]:
    return [of.read(5, 50, 15 + 5 * n, f"pos{n}".encode()) for n in range(3)]


def test_the_low_mark_moves_over_gap_free_runs_only() -> None:
    """R2: a position is never ahead of the first record that has not ended."""
    source = partition()
    first, second, third = three(source)
    second.release()
    assert not source.due
    assert source.commit().ordinal == 10
    first.release()
    assert source.commit().ordinal == 20
    assert source.commit().position == b"pos1"
    third.release()
    assert source.commit().ordinal == 25
    assert source.held == 0


def test_the_end_is_committed_after_the_last_record() -> None:
    """Finished means that everything in it has ended."""
    source = partition()
    readings = three(source)
    source.read_out = True
    assert not source.commit().finished
    for reading in readings:
        reading.release()
    assert source.commit().finished


def test_an_empty_partition_commits_its_end() -> None:
    """A bounded partition without records is completed, too."""
    source = partition()
    source.read_out = True
    assert source.due
    assert source.commit().finished


def test_identity_has_the_term_unless_offsets_are_stable() -> None:
    """With stable offsets identity survives a take-over."""
    assert partition().origin.term == 7
    assert partition(stable=True).origin.term == 0


def test_a_dropped_partition_commits_nothing() -> None:
    """A fenced owner stops, whatever still ends."""
    source = partition()
    readings = three(source)
    assert source.drop() == 15
    readings[0].release()
    assert not source.due
    assert readings[1].abandoned


@pytest.mark.parametrize(("stable", "ordinal"), [(False, 90), (True, 60)])
def test_the_same_term_goes_on_where_this_process_left_off(stable: bool, ordinal: int) -> None:
    """Ordinals are never given twice under a term; stable offsets name the same records again."""
    left = LeftOff(7, next_ordinal=90, low_ordinal=60, low_position=b"low")
    again = left.resume(ASSIGNED, stable)
    assert (again.next_ordinal, again.resume) == (ordinal, b"low")


def test_another_term_begins_at_the_committed_position() -> None:
    """A newer assignment owes nothing to what this process remembers."""
    assert LeftOff(6, 90, 60, b"low").resume(ASSIGNED, False) == ASSIGNED
