"""What clients saw, and the sequential specification that it must agree with.

A history is a list of `Operation`s on one clock. A `Model` says what a system without concurrency
would answer. Both are what `linearizability` compares.

Rules kept: a model is deterministic and its states are hashable values; an operation whose outcome
is unknown has no result and no end, because it may take effect at any later time, or never.

Theory: Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects" (1990).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.base import Entry, StateMachine
from conveyor_raft.machines.key_value import KeyValueCommand, KeyValueOperation, KeyValueResult


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a client. Times are of one clock; equal times do not order anything.

    `returned` is None for an operation with an unknown outcome; its `result` means nothing.
    `index` is the log index at which the system says that it took effect (for a read: the index
    that it saw), and None if the system does not say; it is a hint, never believed.
    """

    client: int
    command: Any
    result: Any
    invoked: int
    returned: int | None
    key: Hashable = None
    index: int | None = None
    reads: bool = False

    def __str__(self) -> str:
        until = "unknown" if self.returned is None else str(self.returned)
        what = "" if self.returned is None else f" -> {self.result!r}"
        where = "" if self.index is None else f" at index {self.index}"
        return f"client {self.client} [{self.invoked}..{until}]{where}: {self.command!r}{what}"


class Model(ABC):
    """A sequential specification of one key. States are hashable and never changed."""

    @abstractmethod
    def initial(self) -> Hashable:
        """Return the state before any operation."""

    @abstractmethod
    def step(self, state: Any, command: Any) -> tuple[Any, Any]:
        """Return the state after the command, and the result that it must have had."""

    def only_reads(self, command: Any, result: Any) -> bool:
        """Whether a command that had this result changes nothing in any state that allows it.

        A write of what is there already does change something elsewhere. The default says no.
        """
        return False

    def without_idle(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """Leave out unknown operations that cannot explain anything; the default keeps all.

        Sound only if the answer stays the same with and without them.
        """
        return operations


class RegisterModel(Model):
    """One register: `("read",)`, `("write", value)`, `("cas", expected, value)`.

    A read returns the value, a write None, a compare-and-set the value that it found.
    """

    def initial(self) -> Hashable:
        """Return None: nothing was written."""
        return None

    def step(self, state: Any, command: Any) -> tuple[Any, Any]:
        """Perform one command."""
        match command:
            case ("read",):
                return state, state
            case ("write", value):
                return value, None
            case ("cas", expected, value):
                return (value if state == expected else state), state
        raise ValueError(f"{command!r} is no command of a register")

    def only_reads(self, command: Any, result: Any) -> bool:
        """Whether it is a read, or a compare-and-set that found something else."""
        return bool(command[0] == "read" or (command[0] == "cas" and result != command[1]))

    def without_idle(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """Leave out unknown reads, and unknown writes of what nobody ever saw or expected."""
        return _without_unseen(operations, _register_writes, _register_sees)


class KeyValueModel(Model):
    """One key of a `KeyValueStateMachine`, written independently of it; absent is None."""

    def initial(self) -> Hashable:
        """Return None: the key is absent."""
        return None

    def step(self, state: Any, command: KeyValueCommand) -> tuple[Any, Any]:
        """Perform one command."""
        after = command.value
        if command.operation is KeyValueOperation.COMPARE_AND_SET and state != command.expected:
            after = state
        return after, KeyValueResult(after != state, state)

    def only_reads(self, command: Any, result: Any) -> bool:
        """Whether nothing was changed; the result says so, and in which state."""
        return not bool(result.changed)

    def without_idle(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """Leave out unknown writes of what nobody ever saw or expected."""
        return _without_unseen(operations, _key_value_writes, _key_value_sees)


class StateMachineModel(Model):
    """Any deterministic state machine as its own specification; a state is a snapshot.

    A refusal is a result like any other: `("refused", code)`. The entry that the machine sees has
    no meaningful index, term and time, so a machine that answers with them needs a model of its
    own.
    """

    def __init__(self, factory: Callable[[], StateMachine[Any, Any, Any]]) -> None:
        """Use machines that the factory makes."""
        self._machine = factory()
        self._initial = self._machine.snapshot()
        self._state = self._initial

    def initial(self) -> Hashable:
        """Return the snapshot of a new machine."""
        return self._initial

    def step(self, state: Any, command: Any) -> tuple[Any, Any]:
        """Put a machine into the state, and let it apply the command."""
        machine = self._machine
        if state != self._state:
            machine.restore(state)
        try:
            result = machine.apply(Entry(1, 1, 0, command))
        except CommandRejected as refusal:
            result = refused(refusal)
        self._state = machine.snapshot()
        return self._state, result


def refused(refusal: CommandRejected) -> tuple[str, str]:
    """Return a state machine's refusal as a result that can be compared."""
    return "refused", refusal.code


_NOTHING = object()


def _without_unseen(
    operations: Sequence[Operation],
    writes: Callable[[Any], Any],
    sees: Callable[[Operation], Iterable[Any]],
) -> Sequence[Operation]:
    """Leave out unknown operations whose value no kept operation saw or expected.

    Sound for models in which whatever reads the state says what it found, and blind writes do not
    care: taking such an operation out of an explanation changes no answer in it.
    """
    kept = [operation for operation in operations if operation.returned is not None]
    left = [operation for operation in operations if operation.returned is None]
    seen = {value for operation in kept for value in sees(operation)}
    while True:
        useful = [one for one in left if writes(one.command) in seen]
        if not useful:
            return kept
        left = [one for one in left if writes(one.command) not in seen]
        kept += useful
        seen.update(value for one in useful for value in sees(one))


def _register_writes(command: Any) -> Any:
    return _NOTHING if command[0] == "read" else command[-1]


def _register_sees(operation: Operation) -> Iterable[Any]:
    command = operation.command
    if command[0] == "cas":
        yield command[1]
    if operation.returned is not None and command[0] != "write":
        yield operation.result


def _key_value_writes(command: KeyValueCommand) -> Any:
    return command.value


def _key_value_sees(operation: Operation) -> Iterable[Any]:
    if operation.command.operation is KeyValueOperation.COMPARE_AND_SET:
        yield operation.command.expected
    if operation.returned is not None:
        yield operation.result.previous
