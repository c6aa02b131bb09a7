"""`RaftCore`: the algorithm as one object without I/O (signatures first; the body follows)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.messages import Message, SnapshotMeta
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.output import Output
from conveyor_raft.core.types import (
    HardState,
    Identity,
    LogId,
    LogIndex,
    NodeId,
    ProposeResult,
    RaftRole,
    RandomSource,
    Term,
)


@dataclass(frozen=True, slots=True)
class LoadedState:
    """What was on the disk. The state machine must already be restored from `snapshot`.

    `frames` may begin at or below the snapshot's index; they must not leave a gap behind it.
    """

    hard_state: HardState = HardState(Term(0), None)
    snapshot: SnapshotMeta | None = None
    frames: tuple[Frame, ...] = ()


def first_state(membership: Membership) -> LoadedState:
    """Return what every member of a new cluster writes to its empty disk before it starts.

    The bytes are equal on all nodes: one CONFIG entry at index 1, term 1.
    """
    raise AssertionError


class RaftCore:
    """One node. All inputs are synchronous and do no I/O; `take` returns what they caused.

    Feed any number of inputs, then call `take` once: what happened between two calls shares one
    write, and one message for each peer. Call `tick` with the current time before each batch.
    """

    def __init__(
        self,
        identity: Identity,
        options: CoreOptions,
        random: RandomSource,
        loaded: LoadedState,
        now_ms: int,
    ) -> None:
        """Start as a follower with what the disk remembers."""

    def tick(self, now_ms: int) -> None:
        """Set the clock. Timers that are due fire in the next `take`, after all other inputs."""

    def step(self, message: Message) -> None:
        """Take a message of another node; one that is not for this node and cluster is dropped."""

    def propose(self, payloads: Sequence[bytes], *, wall_ms: int, token: int) -> ProposeResult:
        """Append commands if this node leads, all of them in one frame where they fit.

        `Proposed`: the entries have consecutive indexes, and `Output.finished` will name the token
        exactly once. `Refused`: nothing happened, and the token will not be named.

        Raises:
            PayloadTooLarge: a payload exceeds `max_payload_bytes`; nothing was appended.
        """
        raise AssertionError

    def on_written(self, write_id: int) -> None:
        """Everything up to and including this write is durable."""

    def on_write_failed(self, write_id: int) -> None:
        """The write is not durable and never will be; the node stops taking part for good.

        Open tokens end as `Unknown`, proposals are refused, no message leaves any more.
        """

    def on_applied(self, index: LogIndex) -> None:
        """The state machine has applied everything up to the index."""

    def describe_snapshot(self, index: LogIndex) -> SnapshotMeta:
        """Return the meta of a snapshot of the state machine at an applied, retained index."""
        raise AssertionError

    def on_snapshot_created(self, meta: SnapshotMeta) -> None:
        """A snapshot of this node's own state is durable; the log behind it may go."""

    def on_snapshot_installed(self, meta: SnapshotMeta) -> None:
        """The state machine has been restored from the snapshot named by `Output.install`."""

    def on_snapshot_sent(self, peer: NodeId, session: int, delivered: bool) -> None:
        """A stream of `Output.send_snapshot` has ended; `delivered`: the peer's core has it."""

    def on_peer(self, peer: NodeId, up: bool) -> None:
        """The connection to a peer came up or went down; a hint, never a fact."""

    def take(self, *, write: bool = True) -> Output:
        """Fire due timers and return everything that is to be done.

        With `write=False` a pending write stays here and grows: call it so while a flush is in
        flight, and everything that arrives meanwhile becomes one group commit. `messages_after`
        may then name a write that has not been handed out yet.
        """
        raise AssertionError

    def frames(self, first: LogIndex, last: LogIndex) -> list[Frame]:
        """Return the retained entries of the range, frame by frame; the ends are cut to fit."""
        raise AssertionError

    def term_at(self, index: LogIndex) -> Term | None:
        """Return the term of a retained entry, of the one before it, or None."""
        raise AssertionError

    next_deadline: int | None
    """When the clock must be set next if nothing else happens; None: never."""
    role: RaftRole
    term: Term
    leader_id: NodeId | None
    commit_index: LogIndex
    applied_index: LogIndex
    durable_index: LogIndex
    """Up to here the log is durable on this node."""
    last_id: LogId
    membership: Membership | None
    """The configuration in force; None on an empty node."""
    snapshot: SnapshotMeta | None
    """The newest snapshot. After stepping an `InstallSnapshot`: its own meta if it was accepted."""
    snapshot_due: bool
    """Whether the log has grown enough for a new snapshot of the applied state."""
    failed: bool

    def statistics(self) -> Mapping[str, int]:
        """Counters since the start."""
        raise AssertionError
