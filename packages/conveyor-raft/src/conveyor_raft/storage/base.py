"""The port to the disk: what a node needs from the place where its log lives.

Rules kept: one `write` at a time, whole or not at all, durable on return; a write that fails is
final, because after a failed flush nobody knows what is on the disk, so every later call fails as
well; what `open` returns is what was acknowledged, or `open` raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.output import Write
from conveyor_raft.core.types import ClusterId, Incarnation, LogIndex
from conveyor_raft.snapshots import SnapshotStore


@dataclass(frozen=True, slots=True)
class Stored:
    """What a data directory says at start; without a cluster id the node is empty."""

    incarnation: Incarnation
    cluster_id: ClusterId | None
    loaded: LoadedState


class LogStorage(Protocol):
    """Where the log, the vote, the identity and the snapshots of one node live."""

    @property
    def snapshots(self) -> SnapshotStore:
        """The bytes of the snapshots; a `Write` says which of them counts."""
        ...

    async def open(self, node_id: int) -> Stored:
        """Take possession, make the directory if there is none, and return what it remembers.

        Raises:
            Locked: another process has it.
            WrongIdentity: it belongs to another node.
            Corrupt: it holds less than was acknowledged, or something else.
        """
        ...

    async def form(self, cluster_id: ClusterId, first: LoadedState) -> None:
        """Make an empty node a member: write the cluster id and the first state in one step."""
        ...

    async def write(self, write: Write) -> None:
        """Perform one write of the core, in the order in which the core numbers them.

        A write that names a snapshot makes it the node's snapshot; a log that ends before it, or
        disagrees with it, is dropped. Its bytes must have been put before.

        Raises:
            Failed: nothing is known about the write, and the storage is of no more use.
        """
        ...

    async def compact(self, through: LogIndex) -> None:
        """Free what lies at or below the index, as far as that is cheap."""
        ...

    async def maintain(self, *, idle: bool) -> None:
        """Do what is best done between writes; `idle`: no write is expected soon."""
        ...

    async def close(self) -> None:
        """Let go of it. Safe to call twice, and after a failure."""
        ...
