"""Is there one order of all operations that explains what every client saw?

What for: a history of concurrent calls is linearizable if each call can be given one moment between
its begin and its end so that a system without concurrency, doing the calls in that order, would
have answered the same. This is the promise of a Raft cluster to its clients, and it can be checked
from the outside alone.

    verdict = check(KeyValueModel(), operations)
    assert verdict, verdict.explain()

Three layers, cheap before strong:

1. **Witness**: where the system says at which log index each call took effect, that order is tried
   first, in one pass. Times and results are compared with what the clients saw, so a system that
   lies about its indexes gains nothing; success is a proof, failure is none.
2. **Search** (Wing and Gong, with Lowe's memory of configurations), for each key by itself: take
   any call that may come next and whose result fits; step back at a dead end; never try the same
   set of calls with the same state twice. A call that fits and, having had this result, changes
   nothing in any state (a read) is taken at once and for good: an order in which it comes later
   has an equal one in which it comes now.
3. What exceeds its number of steps is `UNDECIDED`, which is not a success.

Unknown outcomes (`returned` is None) may be taken at any time after their begin, or never.

Theory: Wing and Gong, "Testing and verifying concurrent objects" (1993); Lowe, "Testing for
linearizability" (2017); Athalye's Porcupine; etcd's robustness tests for the witness.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from conveyor_raft.testing.histories import Model, Operation

STEPS_MAX = 5_000_000
_SHOWN = 12


class Answer(enum.Enum):
    """What a check has found."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "not linearizable"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Verdict:
    """True in a condition if an order was found.

    Otherwise `prefix` is the longest order that fits, `stuck` the call that must come next and
    cannot, and `state` what it would have met. `steps` counts how many the model has done.
    """

    answer: Answer
    steps: int
    key: Hashable = None
    prefix: Sequence[Operation] = ()
    stuck: Operation | None = None
    state: Any = None

    def __bool__(self) -> bool:
        return self.answer is Answer.LINEARIZABLE

    def explain(self) -> str:
        """Say what was found, in lines."""
        lines = [f"{self.answer.value} after {self.steps:,} steps"]
        if self.answer is not Answer.LINEARIZABLE:
            lines[0] += f", key {self.key!r}"
            hidden = len(self.prefix) - _SHOWN
            if hidden > 0:
                lines.append(f"  {hidden} operations that fit, then")
            lines += [f"  fits      {one}" for one in self.prefix[-_SHOWN:]]
            lines.append(f"  state     {self.state!r}")
        if self.stuck is not None:
            lines.append(f"  does not  {self.stuck}")
        return "\n".join(lines)


def check(model: Model, operations: Iterable[Operation], *, steps_max: int = STEPS_MAX) -> Verdict:
    """Check a history: by its witness if it has one that holds, else by search, key by key."""
    history = list(operations)
    witness = check_witness(model, history)
    if witness is not None and witness:
        return witness
    return check_by_search(model, history, steps_max=steps_max)


def check_witness(model: Model, operations: Sequence[Operation]) -> Verdict | None:
    """Try the order of the indexes; None if a call that returned has none.

    Unknown outcomes without an index are taken to have had no effect. A failure only says that this
    order does not explain the history.
    """
    ordered = [one for one in operations if one.index is not None]
    if any(one.returned is not None and one.index is None for one in operations):
        return None
    ordered.sort(key=_place)
    states: dict[Hashable, Any] = {}
    newest = 0  # the latest begin so far
    for steps, one in enumerate(ordered, 1):
        key = one.key
        state = states[key] if key in states else model.initial()
        after, result = model.step(state, one.command)
        newest = max(newest, one.invoked) if steps > 1 else one.invoked
        if one.returned is not None and (one.returned < newest or result != one.result):
            before = [other for other in ordered[: steps - 1] if other.key == key]
            return Verdict(Answer.VIOLATED, steps, key, before, one, state)
        states[key] = after
    return Verdict(Answer.LINEARIZABLE, len(ordered))


def check_by_search(
    model: Model, operations: Iterable[Operation], *, steps_max: int = STEPS_MAX
) -> Verdict:
    """Search for an order, for each key by itself; the first key without one ends the search."""
    by_key: dict[Hashable, list[Operation]] = {}
    for one in operations:
        by_key.setdefault(one.key, []).append(one)
    steps = 0
    for key, history in by_key.items():
        verdict = _Search(model, key, history, steps_max - steps).run()
        steps += verdict.steps
        if not verdict:
            return verdict
    return Verdict(Answer.LINEARIZABLE, steps)


def _place(one: Operation) -> tuple[int, bool, int]:
    assert one.index is not None
    return one.index, one.reads, one.invoked


class _Search:
    """One key. Calls and returns stand in one doubly linked list, in the order of time.

    Nodes: 2n + 1 is the call and 2n + 2 the return of operation n, 0 the head. An operation that
    has been given its place is lifted out of the list. What must be placed next stands before the
    first return that is left. Unknown operations have no return and may stay in the list.
    """

    def __init__(
        self, model: Model, key: Hashable, history: Sequence[Operation], steps_max: int
    ) -> None:
        self._model = model
        self._key = key
        self._steps_max = steps_max
        self._operations = sorted(model.without_idle(history), key=_begin)
        self._left = sum(one.returned is not None for one in self._operations)
        self._only_reads = [
            one.returned is not None and model.only_reads(one.command, one.result)
            for one in self._operations
        ]
        # The bit of an operation in the set of those placed, for completed ones and unknown ones
        # apart: the first are placed nearly in order, so `_base` and a few bits name the set.
        self._bit: list[int] = []
        numbers = [0, 0]
        for one in self._operations:
            unknown = one.returned is None
            self._bit.append(numbers[unknown])
            numbers[unknown] += 1
        size = 2 * len(self._operations) + 1
        self._next = [0] * size
        self._previous = [0] * size
        self._link()
        self._state = model.initial()
        self._base = 0
        self._placed = 0
        self._unknown_placed = 0
        self._steps = 0
        self._order: list[int] = []
        self._best: tuple[list[int], Any, int] = ([], self._state, 0)

    def run(self) -> Verdict:
        """Search until an order is found, everything was tried, or there were too many steps."""
        nodes, operations = self._next, self._operations
        tried = set()
        # Of each placement by choice: how far the order was, where to go on, and what was placed.
        choices: list[tuple[int, int, bool, Any, tuple[int, int, int]]] = []
        self._settle()
        cursor, unknown = nodes[0], False  # completed calls are tried before unknown ones
        while self._left:
            if self._steps > self._steps_max:
                return self._verdict(Answer.UNDECIDED)
            if cursor & 1:
                number = cursor >> 1
                if (operations[number].returned is None) is unknown:
                    after = self._fit(number)
                    if after is not _NO_FIT:
                        depth, state, placed = len(self._order), self._state, self._set()
                        self._state = after
                        self._place(number)
                        self._settle()
                        configuration = (*self._set(), self._state)
                        if configuration not in tried:
                            tried.add(configuration)
                            choices.append((depth, cursor, unknown, state, placed))
                            cursor, unknown = nodes[0], False
                            continue
                        self._undo(depth, state, placed)
                cursor = nodes[cursor]
            elif not unknown:
                cursor, unknown = nodes[0], True
            else:  # No call before this return can come next.
                if not self._best[2] or len(self._order) > len(self._best[0]):
                    self._best = list(self._order), self._state, cursor
                if not choices:
                    return self._verdict(Answer.VIOLATED)
                depth, cursor, unknown, state, placed = choices.pop()
                self._undo(depth, state, placed)
                cursor = nodes[cursor]
        return Verdict(Answer.LINEARIZABLE, self._steps)

    def _link(self) -> None:
        events = []
        for number, one in enumerate(self._operations):
            events.append((one.invoked, 0, 2 * number + 1))
            if one.returned is not None:
                events.append((one.returned, 1, 2 * number + 2))
        last = 0
        for _, _, node in sorted(events):
            self._next[last] = node
            self._previous[node] = last
            last = node
        self._next[last] = 0
        self._previous[0] = last

    def _fit(self, number: int) -> Any:
        """Return the state after the operation, or `_NO_FIT`."""
        self._steps += 1
        one = self._operations[number]
        after, result = self._model.step(self._state, one.command)
        if one.returned is None:  # One that changes nothing explains nothing.
            return _NO_FIT if after == self._state else after
        return after if result == one.result else _NO_FIT

    def _settle(self) -> None:
        """Place every call that may come next, fits, and changes nothing in any state."""
        operations, step, state = self._operations, self._model.step, self._state
        nodes, only_reads = self._next, self._only_reads
        cursor = nodes[0]
        while cursor & 1:
            number = cursor >> 1
            following = nodes[cursor]
            if only_reads[number]:
                self._steps += 1
                one = operations[number]
                if step(state, one.command)[1] == one.result:
                    if following == cursor + 1:  # Its own return: what is behind may come next.
                        following = nodes[following]
                    self._place(number)
            cursor = following

    def _place(self, number: int) -> None:
        """Lift an operation out of the list and into the order."""
        nodes, previous = self._next, self._previous
        call = 2 * number + 1
        before, after = previous[call], nodes[call]
        nodes[before], previous[after] = after, before
        self._order.append(number)
        if self._operations[number].returned is None:
            self._unknown_placed |= 1 << self._bit[number]
            return
        before, after = previous[call + 1], nodes[call + 1]
        nodes[before], previous[after] = after, before
        self._left -= 1
        placed = self._placed | 1 << (self._bit[number] - self._base)
        while placed & 1:
            placed >>= 1
            self._base += 1
        self._placed = placed

    def _undo(self, depth: int, state: Any, placed: tuple[int, int, int]) -> None:
        """Put the operations behind the depth back into the list, the last one first."""
        nodes, previous = self._next, self._previous
        while len(self._order) > depth:
            number = self._order.pop()
            call = 2 * number + 1
            if self._operations[number].returned is not None:
                nodes[previous[call + 1]] = previous[nodes[call + 1]] = call + 1
                self._left += 1
            nodes[previous[call]] = previous[nodes[call]] = call
        self._state = state
        self._base, self._placed, self._unknown_placed = placed

    def _set(self) -> tuple[int, int, int]:
        return self._base, self._placed, self._unknown_placed

    def _verdict(self, answer: Answer) -> Verdict:
        order, state, node = self._best
        prefix = [self._operations[number] for number in order]
        stuck = self._operations[(node - 1) >> 1] if node else None
        return Verdict(answer, self._steps, self._key, prefix, stuck, state)


_NO_FIT = object()


def _begin(one: Operation) -> int:
    return one.invoked
