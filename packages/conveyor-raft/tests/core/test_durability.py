import pytest

from conveyor_raft.core.durability import WriteLedger
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.types import HardState
from conveyor_raft.errors import InvariantViolation


def test_nothing_pending_is_no_write():
    """Nothing waits for a disk that has nothing to do."""
    ledger = WriteLedger(3)
    assert ledger.take_write(3) is None
    assert ledger.barrier() == ledger.term_barrier() == 0
    assert ledger.durable_index == 3


def test_changes_gather_in_one_write(frame):
    """The newest vote, all frames; a promise waits for the write that holds it, then no more."""
    ledger = WriteLedger(0)
    ledger.set_hard_state(HardState(2, None))
    ledger.append(frame(1, 2))
    ledger.set_hard_state(HardState(3, 1))
    assert (ledger.barrier(), ledger.term_barrier()) == (1, 1)
    write = ledger.take_write(1)
    assert write == (1, HardState(3, 1), None, None, (frame(1, 2),))
    assert ledger.barrier() == 1
    ledger.append(frame(2, 3))
    assert (ledger.barrier(), ledger.term_barrier()) == (2, 1)
    ledger.written(1)
    assert (ledger.durable_index, ledger.barrier(), ledger.term_barrier()) == (1, 2, 0)


def test_a_late_completion_speaks_of_its_own_entries(frame):
    """The ABA rule: what replaced a cut entry is not durable because the cut one was written."""
    ledger = WriteLedger(10)
    ledger.append(frame(11, 1, "a", "b"))
    ledger.take_write(12)
    ledger.truncate_from(12)
    ledger.append(frame(12, 2, "other"))
    second = ledger.take_write(12)
    ledger.written(1)
    assert ledger.durable_index == 11
    assert second.truncate_from == 12
    ledger.written(2)
    assert ledger.durable_index == 12


def test_completions_may_skip_and_repeat(frame):
    """A newer completion covers the older ones; an older one that comes later changes nothing."""
    ledger = WriteLedger(0)
    for index in (1, 2, 3):
        ledger.append(frame(index, 1))
        ledger.take_write(index)
    ledger.written(2)
    assert ledger.durable_index == 2
    ledger.written(1)
    assert ledger.durable_index == 2
    assert not ledger.is_durable(3)
    ledger.written(3)
    assert ledger.durable_index == 3
    with pytest.raises(InvariantViolation, match="write 4"):
        ledger.written(4)


def test_what_never_reached_the_disk_needs_no_deletion(frame):
    """Pending frames are cut in memory; the disk is told only of what it may hold."""
    ledger = WriteLedger(5)
    ledger.append(frame(6, 1, "a", "b", "c"))
    ledger.truncate_from(8)
    assert ledger.take_write(7) == (1, None, None, None, (frame(6, 1, "a", "b"),))
    ledger.append(frame(8, 1))
    ledger.truncate_from(7)
    ledger.truncate_from(6)
    ledger.append(frame(6, 2))
    assert ledger.take_write(6) == (2, None, None, 6, (frame(6, 2),))


def test_an_installed_snapshot_drops_the_log(frame, membership):
    """One write holds the snapshot and the deletion of all that it replaces."""
    meta = SnapshotMeta(9, 3, 0, membership(3))
    ledger = WriteLedger(4)
    ledger.append(frame(5, 1))
    ledger.install(meta)
    assert ledger.durable_index == 0
    assert ledger.take_write(9) == (1, None, meta, 1, ())
    ledger.written(1)
    assert ledger.durable_index == 9
