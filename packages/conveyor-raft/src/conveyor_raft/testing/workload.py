"""What the clients of a simulation do, and what must be true of it: a user's part of the simulator.

    class Transfers(Workload):
        def machine(self) -> Accounts:
            return Accounts()

        def command(self, rng: random.Random, number: int) -> tuple[str, int]:
            return rng.choice(("ann", "bob")), rng.randint(-5, 5)

        def check(self, state: dict[str, int]) -> None:
            assert min(state.values(), default=0) >= 0

    simulate(Transfers(), seeds=range(20))

Rules kept: a workload has no state of its own and takes chance from `rng` alone, so a seed is a
run. Results can be compared with `==`, because all nodes must give the same one.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from importlib import import_module
from typing import Any

from conveyor_raft.machines.base import StateMachine
from conveyor_raft.machines.key_value import KeyValueCommand, KeyValueResult, KeyValueStateMachine
from conveyor_raft.testing.histories import KeyValueModel, Model, StateMachineModel

_KEYS = "abcde"


class Workload(ABC):
    """A state machine, and the commands that clients propose to it."""

    @abstractmethod
    def machine(self) -> StateMachine[Any, Any, Any]:
        """Return a new state machine: one for each node and each of its lives."""

    @abstractmethod
    def command(self, rng: random.Random, number: int) -> Any:
        """Draw a command; `number` is different for each call of a run."""

    def question(self, rng: random.Random) -> Any:
        """Draw a command that changes nothing, for linearizable reads; None: there are no reads."""
        return None

    def answer(self, state: Any, question: Any) -> Any:
        """Return what the question would have as its result if it were applied to the state."""
        raise NotImplementedError("a workload with questions answers them")

    def key(self, command: Any) -> Hashable:
        """Return what part of the state the command is about; the parts are checked apart.

        Only a command that neither sees nor changes another part may have a key of its own.
        """
        return None

    def model(self) -> Model:
        """Return the sequential specification of one key; by default the state machine itself."""
        return StateMachineModel(self.machine)

    def check(self, state: Any) -> None:  # noqa: B027 - nothing is wrong by default
        """Raise `AssertionError` if a node's state is one that must never be."""


class KeyValueWorkload(Workload):
    """Puts, deletes, compare-and-sets and reads of five keys: what the simulator runs by itself.

    A read is a compare-and-set of nothing to nothing, which tells what is there. Some go through
    the log, the others are asked of a node that has confirmed what it must know.
    """

    def machine(self) -> StateMachine[Any, Any, Any]:
        """Return a `KeyValueStateMachine`."""
        return KeyValueStateMachine()

    def command(self, rng: random.Random, number: int) -> KeyValueCommand:
        """Draw a command whose value nobody else writes."""
        luck = rng.random()
        key = _KEYS[int(luck * 1_000) % len(_KEYS)]
        if luck < 0.4:
            return KeyValueCommand.compare_and_set(key, None, None)
        value = b"%d" % number
        if luck < 0.7:
            return KeyValueCommand.put(key, value)
        if luck < 0.75:
            return KeyValueCommand.delete(key)
        expected = b"%d" % (number - rng.randint(1, 2 * len(_KEYS))) if luck < 0.95 else None
        return KeyValueCommand.compare_and_set(key, expected, value)

    def question(self, rng: random.Random) -> KeyValueCommand:
        """Draw a key to ask for."""
        return KeyValueCommand.compare_and_set(rng.choice(_KEYS), None, None)

    def answer(self, state: Mapping[str, bytes], question: KeyValueCommand) -> KeyValueResult:
        """Return what is there."""
        return KeyValueResult(changed=False, previous=state.get(question.key))

    def key(self, command: KeyValueCommand) -> Hashable:
        """Return the key."""
        return command.key

    def model(self) -> Model:
        """Return a text of the same meaning that shares no line with the state machine."""
        return KeyValueModel()


def load_workload(name: str) -> Workload:
    """Return a new workload of the class `module:Class`.

    Raises:
        ValueError: there is none of this name.
    """
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        workload = found()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"no workload {name!r} (module:Class): {error}") from error
    if not isinstance(workload, Workload):
        raise ValueError(f"{name} is no Workload")
    return workload


def workload_name(workload: Workload) -> str:
    """Return the name by which `load_workload` finds the class again."""
    return f"{type(workload).__module__}:{type(workload).__qualname__}"
