"""State machines in a simulated node: a number, or a user's own behind the session layer.

What for: a simulated node applies frames to a `SimulatedMachine`. Scripts and unit tests use
`RunningChecksum`, in which equal numbers mean equal commands. The simulator uses `HostedMachine`:
a workload's machine as a real node would run it, with everything that it does on the account of the
`Account`, which is shared by all nodes and all their lives.

Rules kept: the account never asks a machine whether it is right; it compares what one of them did
with what any other did at the same index.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.types import EntryKind
from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.base import Entry, StateMachine
from conveyor_raft.machines.results import PlainResults, ResultCodec
from conveyor_raft.machines.sessions import SessionLayer
from conveyor_raft.testing.histories import refused
from conveyor_raft.testing.violated import Violated
from conveyor_raft.testing.workload import Workload

_STAMP = struct.Struct("<QIH")


class SimulatedMachine(Protocol):
    """What a simulated node applies entries to."""

    @property
    def digest(self) -> int:
        """A number that is equal where the same commands were applied."""
        ...

    def apply(self, frames: Sequence[Frame]) -> None:
        """Apply all entries of the frames."""
        ...

    def capture(self) -> Any:
        """Return the state as it is."""
        ...

    def restore(self, captured: Any) -> None:
        """Return to a state that was captured, here or elsewhere."""
        ...


class RunningChecksum:
    """The CRC of all commands so far."""

    __slots__ = ("digest",)

    def __init__(self) -> None:
        self.digest = 0

    def apply(self, frames: Sequence[Frame]) -> None:
        """Add all commands."""
        digest = self.digest
        for frame in frames:
            if frame.kind is EntryKind.COMMAND:
                for payload in frame.payloads():
                    digest = zlib.crc32(payload, digest)
        self.digest = digest

    def capture(self) -> Any:
        """Return the number."""
        return self.digest

    def restore(self, captured: Any) -> None:
        """Set the number."""
        self.digest = captured


class Stamped(NamedTuple):
    """A command with the number of the call that it belongs to; each attempt has other bytes."""

    call: int
    attempt: int
    filler: int
    command: Any


class Account:
    """What all machines of one run have done."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.executed: dict[int, int] = {}
        self.results: dict[int, Any] = {}
        self._snapshots: dict[int, bytes] = {}
        self.decoded: dict[bytes, Any] = {}

    def decode(self, payload: bytes, layer: SessionLayer[Any, Any, Any]) -> Any:
        """Return the command of the bytes; one that is immutable is decoded once for all nodes."""
        command = layer.decode_command(payload)
        try:
            hash(command)
        except TypeError:
            return command
        self.decoded[payload] = command
        return command

    def executed_twice(self, call: int, index: int) -> Violated:
        """Exactly once: a call takes effect at one index, on all nodes and after all restarts."""
        first = self.executed[call]
        return Violated("exactly once", f"call {call} took effect at {first} and at {index}")

    def differ(self, index: int, result: Any) -> Violated:
        """State machine safety: equal entries, equal results."""
        first = self.results[index]
        return Violated(
            "state machine safety", f"entry {index} had the results {first!r} and {result!r}"
        )

    def on_snapshot(self, index: int, data: bytes) -> None:
        """State machine safety: equal entries, equal snapshots."""
        if self._snapshots.setdefault(index, data) != data:
            raise Violated("state machine safety", f"two different snapshots at index {index}")


class HostedMachine:
    """A workload's state machine with sessions, applied to as the apply lane does."""

    __slots__ = ("_account", "_index", "_layer", "digest")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._layer: SessionLayer[Any, Any, Any] = session_layer(account)
        self._index = 0
        self.digest = 0

    @property
    def state(self) -> Any:
        """The state of the workload's machine, for readers."""
        return self._layer.state

    def apply(self, frames: Sequence[Frame]) -> None:
        """Apply all commands, and have results and state checked."""
        account, layer, digest = self._account, self._layer, self.digest
        decoded, results, apply = account.decoded.get, account.results, layer.apply
        for frame in frames:
            if frame.kind is not EntryKind.COMMAND:
                continue
            term, timestamp_ms = frame.term, frame.timestamp_ms
            for index, payload in enumerate(frame.payloads(), frame.first_index):
                digest = zlib.crc32(payload, digest)
                command = decoded(payload) or account.decode(payload, layer)
                try:
                    result = apply(Entry(index, term, timestamp_ms, command))
                except CommandRejected as refusal:
                    result = refused(refusal)
                first = results.setdefault(index, result)
                if first is not result and first != result:
                    raise account.differ(index, result)
        self.digest = digest
        self._index = frames[-1].last_index
        try:
            account.workload.check(layer.state)
        except AssertionError as error:
            raise Violated(
                "the workload's own check",
                f"at index {self._index}, {error or layer.state!r}",
            ) from error

    def capture(self) -> Any:
        """Take a snapshot; two at one index must be equal."""
        data = self._layer.snapshot()
        self._account.on_snapshot(self._index, data)
        return self._index, self.digest, data

    def restore(self, captured: Any) -> None:
        """Restore a snapshot; one of what was restored must be the same."""
        self._index, self.digest, data = captured
        self._layer.restore(data)
        if self._layer.snapshot() != data:
            raise Violated(
                "state machine safety", f"the snapshot at {self._index} does not restore its state"
            )


def session_layer(account: Account) -> SessionLayer[Any, Any, Any]:
    """Return a new machine of the account's workload, with stamps and sessions."""
    return SessionLayer(_Recorder(account))


class _Recorder:
    """A state machine whose commands are stamped, and that accounts for each it applies."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._executed = account.executed
        self._inner: StateMachine[Any, Any, Any] = account.workload.machine()
        inner = self._inner
        codec = inner if isinstance(inner, ResultCodec) else PlainResults()
        self.encode_result, self.decode_result = codec.encode_result, codec.decode_result
        self.snapshot, self.restore = inner.snapshot, inner.restore

    @property
    def state(self) -> Any:
        return self._inner.state

    def apply(self, entry: Entry[Any]) -> Any:
        call, _, _, command = entry.command
        if self._executed.setdefault(call, entry.index) != entry.index:
            raise self._account.executed_twice(call, entry.index)
        entry.command = command  # The entry is nobody else's.
        try:
            return self._inner.apply(entry)
        except (CommandRejected, Violated):
            raise
        except Exception as error:
            raise Violated(
                "a state machine applies every command",
                f"entry {entry.index}, {command!r}: {type(error).__name__}: {error}",
            ) from error

    def encode_command(self, command: Stamped) -> bytes:
        call, attempt, filler, inner = command
        return (
            _STAMP.pack(call, attempt, filler) + bytes(filler) + self._inner.encode_command(inner)
        )

    def decode_command(self, data: bytes) -> Stamped:
        call, attempt, filler = _STAMP.unpack_from(data)
        inner = self._inner.decode_command(data[_STAMP.size + filler :])
        return Stamped(call, attempt, filler, inner)
