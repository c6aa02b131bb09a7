"""What the core wants done: plain data, with an explicit order between disk and network.

The driver performs one `Output` like this:

1. `messages` leave at once.
2. `write` goes to the storage lane; when it is durable, `RaftCore.on_written(write_id)`.
3. each `(write_id, message)` of `messages_after` leaves when that write is durable, not earlier;
   the ids need not ascend, and one may belong to a write that is handed out later.
4. `install` (restore the state machine from the snapshot that became durable) and `apply` go to
   the apply lane, in order; then `on_snapshot_installed`, `on_applied`. The entries of `apply` are
   fetched with `RaftCore.frames` before the next input: a snapshot may replace the log later.
5. `send_snapshot` starts streams; each ends with `on_snapshot_sent`.
6. `finished`, `reads` and `transfers` resolve callers (a read that is ready runs on the state as it
   is then); `soft` tells watchers; `compact_through` frees disk space, at
   leisure but never before the snapshot that allows it is durable.

`recovered`: the node has again what it may have lost; its disk need not be suspected any more.

A driver that obeys these rules cannot get the order of durability wrong: it is in the data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.messages import Message, SnapshotMeta
from conveyor_raft.core.types import (
    HardState,
    LogIndex,
    NodeId,
    Outcome,
    RaftRole,
    ReadOutcome,
    Term,
    TransferOutcome,
)


class Write(NamedTuple):
    """One atomic, ordered change of the disk; write ids count up by one.

    Within one write: `snapshot` becomes the durable snapshot, entries from `truncate_from` on are
    deleted, then `frames` are appended. After a crash a prefix of all writes remains, each whole.
    `snapshot` is one that the driver received and handed over as `InstallSnapshot`; its bytes must
    be durable together with this write.
    """

    write_id: int
    hard_state: HardState | None
    snapshot: SnapshotMeta | None
    truncate_from: LogIndex | None
    frames: tuple[Frame, ...]


class SnapshotSend(NamedTuple):
    """Send the node's own snapshot to a peer.

    When the peer holds all of it, its driver hands `message` (an `InstallSnapshot`) to its core. If
    the snapshot has been replaced by a newer one meanwhile, report the stream as not delivered; the
    core asks again with the newer one.
    """

    peer: NodeId
    meta: SnapshotMeta
    session: int
    message: Message


class SoftState(NamedTuple):
    """What a node believes at the moment; nothing of it is durable."""

    role: RaftRole
    leader_id: NodeId | None
    term: Term


@dataclass(slots=True)
class Output:
    """Everything that the inputs since the last `take` have caused."""

    write: Write | None = None
    messages: list[Message] = field(default_factory=list)
    messages_after: list[tuple[int, Message]] = field(default_factory=list)
    install: SnapshotMeta | None = None
    apply: tuple[LogIndex, LogIndex] | None = None
    send_snapshot: list[SnapshotSend] = field(default_factory=list)
    finished: list[tuple[int, Outcome]] = field(default_factory=list)
    reads: list[tuple[int, ReadOutcome]] = field(default_factory=list)
    transfers: list[tuple[int, TransferOutcome]] = field(default_factory=list)
    recovered: bool = False
    soft: SoftState | None = None
    compact_through: LogIndex | None = None
