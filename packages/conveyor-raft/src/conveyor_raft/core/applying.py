"""What the state machine is given, one range at a time, and what it has done.

Rules kept: nothing is applied before it is committed and durable on this node, so a restart never
has applied more than it has stored; the next range is handed out when the one before was applied,
and none while a snapshot is being installed.
"""

from __future__ import annotations

from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import LogIndex
from conveyor_raft.errors import InvariantViolation


class Applying:
    """How far the state machine of one node is, and how far it may go."""

    __slots__ = ("_handed", "_replica")

    def __init__(self, replica: Replica) -> None:
        """Begin where the state machine is."""
        self._replica = replica
        self._handed = replica.applied_index

    def next_range(self) -> tuple[LogIndex, LogIndex] | None:
        """Hand out the next entries to apply, from the first to the last."""
        replica = self._replica
        if replica.installing is not None or self._handed > replica.applied_index:
            return None
        last = min(replica.commit_index, replica.ledger.durable_index)
        if last <= replica.applied_index:
            return None
        self._handed = last
        return LogIndex(replica.applied_index + 1), last

    def applied(self, index: LogIndex) -> bool:
        """The state machine has applied everything up to the index; tell whether that is news."""
        if index > self._handed:
            raise InvariantViolation(f"entry {index} was applied, but not handed out for it")
        if index <= self._replica.applied_index:
            return False
        self._replica.applied_index = index
        return True

    def restored(self, index: LogIndex) -> None:
        """The state machine is as a snapshot at this index left it."""
        self._handed = index

    def describe(self, index: LogIndex) -> SnapshotMeta:
        """Return the meta of a snapshot of the state machine as it is after the applied index."""
        replica = self._replica
        snapshot = replica.snapshot
        if snapshot is not None and index == snapshot.index:
            return snapshot
        if not replica.log.base.index < index <= replica.applied_index:
            raise ValueError(
                f"no snapshot at index {index}: applied up to {replica.applied_index}, log"
                f" {replica.log}"
            )
        (frame,) = replica.log.frames(index, index)
        membership = replica.configurations.at(index)
        return SnapshotMeta(index, frame.term, frame.timestamp_ms, membership)
