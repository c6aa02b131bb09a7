"""What a node finds on its disk when it starts, and what the disk of a new member holds.

Rules kept: frames may begin before the snapshot's end, because disks free space late; a gap between
the snapshot and the frames behind it is corruption and is refused, and so is a log that ends before
the snapshot, because it once reached at least that far. The members of a new cluster all
write the same first state themselves, so nobody has to be the first.
"""

from __future__ import annotations

from dataclasses import dataclass

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.log import RaftLog
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import SnapshotMeta
from conveyor_raft.core.types import ZERO_ID, EntryKind, HardState, LogId, LogIndex, Term
from conveyor_raft.errors import Corrupt

_BLANK = HardState(Term(0), None)
_FIRST_INDEX = LogIndex(1)
_FIRST_TERM = Term(1)


@dataclass(frozen=True, slots=True)
class LoadedState:
    """The disk's content. The state machine must already be restored from `snapshot`.

    `suspect`: entries, or a vote, that this node has promised may be lost; its term is not.
    """

    hard_state: HardState = _BLANK
    snapshot: SnapshotMeta | None = None
    frames: tuple[Frame, ...] = ()
    suspect: bool = False


def first_state(membership: Membership) -> LoadedState:
    """Return what every member of a new cluster writes to its empty disk: one CONFIG entry."""
    frame = Frame.build(_FIRST_INDEX, _FIRST_TERM, 0, EntryKind.CONFIG, [membership.encode()])
    return LoadedState(HardState(_FIRST_TERM, None), None, (frame,))


def retained_log(loaded: LoadedState) -> RaftLog:
    """Return the log that continues the snapshot.

    Raises:
        Corrupt: entries are missing, or stand in an order that no leader gave them.
    """
    end = ZERO_ID if loaded.snapshot is None else loaded.snapshot.last_id
    frames = loaded.frames
    if not frames:
        return RaftLog(end)
    if frames[-1].last_index < end.index:
        raise Corrupt(
            f"the log ends at index {frames[-1].last_index}, below the snapshot at {end.index}: its"
            " end was lost, and with it perhaps more; restore this node from the other members"
        )
    first = frames[0]
    if first.first_index > end.index + 1:
        raise Corrupt(
            f"the log begins at index {first.first_index}, but the snapshot ends at {end.index}:"
            " entries are missing; restore this node from the other members"
        )
    if first.first_index == end.index + 1:
        log = RaftLog(end)
    elif first.first_index == _FIRST_INDEX:
        log = RaftLog(ZERO_ID)
    else:  # the term before the first frame is not known, so its first entry serves as the base
        log = RaftLog(LogId(first.first_index, first.term))
        rest = LogIndex(first.first_index + 1)
        frames = frames[1:]
        if first.count > 1:
            frames = (first.slice(rest, first.last_index), *frames)
    for frame in frames:
        if frame.first_index != log.last_index + 1 or frame.term < log.last_id.term:
            raise Corrupt(f"{frame!r} does not continue a log that is {log}")
        log.append(frame)
    if not log.contains(end):
        raise Corrupt(
            f"at index {end.index} the log has term {log.term_at(end.index)}, but the snapshot"
            f" {end.term}"
        )
    if loaded.hard_state.term < log.last_id.term:
        raise Corrupt(
            f"the log ends in term {log.last_id.term}, the vote knows only term"
            f" {loaded.hard_state.term}"
        )
    return log
