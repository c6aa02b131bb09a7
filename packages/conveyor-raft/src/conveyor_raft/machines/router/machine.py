"""`RouterStateMachine`: the routers' state behind conveyor-raft's state machine protocol.

What for: `RaftNode(config, RouterStateMachine(), peers)` is a router's memory. Commands become
canonical bytes in the log and come back through `apply_command`; snapshots are the state's own
canonical bytes.
"""

from __future__ import annotations

from conveyor_raft.machines.base import Entry
from conveyor_raft.machines.router.apply import apply_command
from conveyor_raft.machines.router.commands import RouterCommand
from conveyor_raft.machines.router.outcome import Moment, Outcome
from conveyor_raft.machines.router.state import RouterState


class RouterStateMachine:
    """`StateMachine[RouterCommand, Outcome, RouterState]`."""

    def __init__(self) -> None:
        self._state = RouterState()

    @classmethod
    def new(cls) -> RouterStateMachine:
        """An empty one."""
        return cls()

    @property
    def state(self) -> RouterState:
        """The agreed facts; valid until the next await, not to be changed."""
        return self._state

    def apply(self, entry: Entry[RouterCommand]) -> Outcome:
        """Apply one entry; `CommandRejected` leaves the state as it was."""
        return apply_command(self._state, entry.command, Moment(entry.index, entry.timestamp_ms))

    def snapshot(self) -> bytes:
        """The whole state, canonically: equal states have equal bytes."""
        return self._state.to_bytes()

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's; a refused one leaves it as it was."""
        self._state = RouterState.from_bytes(data)

    def encode_command(self, command: RouterCommand) -> bytes:
        """The bytes for the log."""
        if not isinstance(command, RouterCommand) or type(command) is RouterCommand:
            raise ValueError(f"{command!r} is no router command")
        return command.encode()

    def decode_command(self, data: bytes) -> RouterCommand:
        """The command of the log's bytes; an unknown one raises."""
        return RouterCommand.decode(data)
