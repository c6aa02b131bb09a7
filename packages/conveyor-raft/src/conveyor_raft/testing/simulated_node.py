"""A node without an event loop: the real core, a simulated disk and a simulated state machine.

It obeys the order that `Output` describes and nothing else; when each step happens is up to the
caller (the simulator draws it, a script says it). Whatever the state machine is (`hosted`), two
nodes that applied the same number of entries must agree on its digest, one integer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.incoming import Incoming
from conveyor_raft.core.loading import LoadedState
from conveyor_raft.core.messages import InstallSnapshot, Message, SnapshotMeta
from conveyor_raft.core.options import CoreOptions
from conveyor_raft.core.output import Output
from conveyor_raft.core.raft_core import RaftCore
from conveyor_raft.core.types import Identity, LogIndex, RandomSource
from conveyor_raft.testing.disk import SimulatedDisk, StoredSnapshot
from conveyor_raft.testing.hosted import RunningChecksum, SimulatedMachine


class SimulatedNode:
    """One member. `core` is replaced at each restart; `life` counts the restarts."""

    __slots__ = (
        "applying",
        "core",
        "disk",
        "down",
        "held",
        "identity",
        "incoming",
        "installing",
        "life",
        "machine",
        "new_machine",
        "node_id",
        "options",
        "pipelined",
        "random",
        "staged",
        "state_index",
    )

    def __init__(
        self,
        identity: Identity,
        options: CoreOptions,
        random: RandomSource,
        loaded: LoadedState,
        *,
        pipelined: bool = False,
        new_machine: Callable[[], SimulatedMachine] = RunningChecksum,
    ) -> None:
        """Prepare a disk and start on it at time 0."""
        self.identity = identity
        self.node_id: int = identity.node_id
        self.options = options
        self.random = random
        self.pipelined = pipelined
        self.new_machine = new_machine
        self.disk = SimulatedDisk(loaded)
        self.life = 0
        self.start(0)

    @property
    def state(self) -> int:
        """What the state machine stands at, in one number."""
        return self.machine.digest

    def start(self, now_ms: int) -> None:
        """Begin a life with what the disk has."""
        self.life += 1
        self.down = False
        stored = self.disk.snapshot
        self.machine = self.new_machine()
        if stored is not None:
            self.machine.restore(stored.state)
        self.state_index: int = 0 if stored is None else stored.meta.index
        self.held: deque[tuple[int, Message]] = deque()  # wait for a write
        self.applying: deque[list[Frame]] = deque()
        self.installing: SnapshotMeta | None = None
        self.staged: dict[SnapshotMeta, Any] = {}
        self.incoming = Incoming()
        self.core = RaftCore(self.identity, self.options, self.random, self.disk.load(), now_ms)

    def crash(self, kept_writes: int) -> None:
        """Lose everything but the disk; some writes on their way still reach it."""
        self.disk.crash(kept_writes)
        self.down = True

    def take(self) -> Output:
        """Take the core's output and do what needs no time; `messages` is what may leave now."""
        disk = self.disk
        out = self.core.take(write=self.pipelined or not disk.pending)
        write = out.write
        if write is not None:
            disk.submit(write, 0 if write.snapshot is None else self.staged[write.snapshot])
        self.held.extend(out.messages_after)
        if out.apply is not None:
            self.applying.append(self.core.frames(*out.apply))
        if out.install is not None:
            self.installing = out.install
        if out.recovered:
            disk.suspect = False
        if out.compact_through is not None:
            disk.compact(out.compact_through)
        return out

    def complete_write(self) -> list[Message]:
        """Let the oldest write become durable; return the messages that waited for it."""
        completed = self.disk.complete()
        released = []
        while self.held and self.held[0][0] <= completed:
            released.append(self.held.popleft()[1])
        self.core.on_written(completed)
        return released

    def fail_write(self) -> None:
        """Let the oldest write fail."""
        self.core.on_write_failed(self.disk.pending[0][0].write_id)

    def apply_next(self) -> list[Frame]:
        """Apply the oldest range, or restore what was installed; return what was applied."""
        if self.installing is not None:
            meta, self.installing = self.installing, None
            self.applying.clear()
            self.machine.restore(self.staged[meta])
            self.state_index = meta.index
            self.staged = {
                other: state for other, state in self.staged.items() if other.index > meta.index
            }
            self.core.on_snapshot_installed(meta)
            return []
        if not self.applying:
            return []
        frames = self.applying.popleft()
        self.machine.apply(frames)
        self.state_index = frames[-1].last_index
        self.core.on_applied(LogIndex(self.state_index))
        return frames

    def capture_snapshot(self) -> StoredSnapshot:
        """Return the state as it is."""
        meta = self.core.describe_snapshot(LogIndex(self.state_index))
        return StoredSnapshot(meta, self.machine.capture())

    def store_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Make a captured snapshot durable."""
        self.disk.save_snapshot(snapshot)
        self.core.on_snapshot_created(snapshot.meta)

    def receive_snapshot(self, message: Message, state: Any) -> bool:
        """Take a whole snapshot from the leader; tell whether the core accepted it."""
        install = message.body
        assert isinstance(install, InstallSnapshot)
        accepted_before = self.core.snapshot
        self.staged[install.meta] = state
        self.core.step(message)
        accepted = self.core.snapshot == install.meta and accepted_before != install.meta
        if not accepted and install.meta != accepted_before:
            del self.staged[install.meta]
        return accepted
