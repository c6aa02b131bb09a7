"""The clients of a world: they propose, mostly to whom they take for the leader, and write down
what they were told.

Some calls are made once and forgotten if there is no answer; those of a few clients are made in
sessions, and again until there is one. Every payload is unique, so that what comes back can be told
apart; the wall clock that is handed over with a proposal may jump by an hour either way, because
nothing may depend on it.

When the run is over, all calls together must be linearizable, in the order of the log (the witness)
or in some other. A call without an answer took effect at the index where it stands in the log, or
never.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conveyor_raft.core.types import Applied, Outcome, Proposed, RaftRole, ReadOutcome, ReadReady
from conveyor_raft.machines.sessions import InSession, OpenSession
from conveyor_raft.testing.histories import Operation
from conveyor_raft.testing.hosted import Account, HostedMachine, Stamped, session_layer
from conveyor_raft.testing.linearizability import Answer, check, check_by_search
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.violated import Violated
from conveyor_raft.testing.world import World

_WALL_START_MS = 1_700_000_000_000
_WALL_JUMP_MS = 3_600_000
_IN_SESSION = 0.3
_TTLS_MS = (300, 1_000_000, 10_000_000)  # With a number below a million added, all are different.
_EXPIRED = ("refused", "session_expired")
_NEVER = {("refused", "session_answered"), ("refused", "session_full")}
_SEARCH_EVERY_SEEDS = 10
_SEARCH_STEPS_MAX = 20_000


@dataclass(slots=True)
class Call:
    """One call; `returned` is None while there is no answer, `read_at` the index a read saw."""

    number: int
    command: Any
    invoked: int
    result: Any = None
    returned: int | None = None
    attempts: int = 0
    caller: SessionClient | None = None
    read_at: int | None = None


class SessionClient:
    """Makes one call after the other, each until it is answered."""

    __slots__ = ("busy", "call", "number", "session_id")

    def __init__(self) -> None:
        self.session_id: int | None = None
        self.number = 1
        self.call: Call | None = None
        self.busy = False

    def answered(self, call: Call, result: Any, now: int) -> None:
        """Take the answer to an attempt: of the session itself, or of its call."""
        self.busy = False
        if call is not self.call:
            self.session_id, self.number = result, 1
        elif result == _EXPIRED:  # Whether the call took effect before is not known.
            self.session_id, self.call = None, None
        else:
            if result in _NEVER:
                raise Violated("exactly once", f"call {call.number} was answered {result[1]}")
            call.result, call.returned = result, now
            self.number, self.call = self.number + 1, None


class Clients:
    """They go on until the world's knobs say that nobody proposes any more."""

    def __init__(self, world: World) -> None:
        """Begin at once."""
        self._world = world
        self._account: Account = world.account
        self._codec = session_layer(world.account)
        self._sessions = [SessionClient() for _ in range(world.knobs.session_clients)]
        self._calls: list[Call] = []
        self._asked: dict[int, Call] = {}
        self._open: dict[int, tuple[int, int, Sequence[Call]]] = {}
        self._token = 0
        self._number = 0
        self._moment = 0
        self._pauses = world.chance("propose")
        self._seed = self._pauses.getrandbits(64)
        self._chance = random.Random(0)
        world.clients = self
        self._propose()

    def _propose(self) -> None:
        world = self._world
        knobs = world.knobs
        if not knobs.client_every_ms:
            return
        world.at(1 + int(self._pauses.random() * 2 * knobs.client_every_ms), self._propose)
        self._token += 1
        if not world.begins("propose", self._token):
            return
        rng = self._chance  # Of its own for each proposal, so that none depends on another.
        rng.seed(self._seed + self._token)
        target = self._likely_leader(rng)
        if target.down or target.node_id in world.paused:
            return
        calls, payloads = self._draw(1 if rng.random() < 0.7 else rng.randint(2, 8), rng)
        wall_ms = _WALL_START_MS + world.now
        if knobs.wall_jumps:
            wall_ms += rng.randint(-_WALL_JUMP_MS, _WALL_JUMP_MS)
        target.core.tick(world.local(target))
        result = target.core.propose(payloads, wall_ms=wall_ms, token=self._token)
        if isinstance(result, Proposed):
            world.counts["proposed"] += 1
            world.invariants.on_proposed(target, self._token, result, payloads)
            self._open[self._token] = target.node_id, result.first_index, calls
            self._calls += [call for call in calls if call.caller is None]
        else:
            world.counts["refused"] += 1
            world.invariants.on_refused(payloads)
            _release(calls)
        world.events += 1
        world.after_input(target)
        world.invariants.after_event(target)

    def _draw(self, count: int, rng: random.Random) -> tuple[list[Call], list[bytes]]:
        calls, payloads = [], []
        for _ in range(count):
            self._moment += 1
            caller = None
            if self._sessions and rng.random() < _IN_SESSION:
                caller = rng.choice(self._sessions)
            if caller is None or caller.busy:
                call = self._new_call(rng)
                payload = self._stamp(call)
            else:
                caller.busy = True
                call, payload = self._attempt(caller, rng)
            calls.append(call)
            payloads.append(self._codec.encode_command(payload))
        return calls, payloads

    def _attempt(self, caller: SessionClient, rng: random.Random) -> tuple[Call, Any]:
        if caller.session_id is None:
            self._number += 1
            call = Call(self._number, None, self._moment, caller=caller)
            return call, OpenSession(rng.choice(_TTLS_MS) + self._number)
        if caller.call is None:
            caller.call = self._new_call(rng)
            caller.call.caller = caller
            self._calls.append(caller.call)
        elif caller.call.attempts:
            self._world.counts["session_retries"] += 1
        number = caller.number
        return caller.call, InSession(
            caller.session_id, number, number - 1, self._stamp(caller.call)
        )

    def _new_call(self, rng: random.Random) -> Call:
        self._number += 1
        return Call(self._number, self._account.workload.command(rng, self._number), self._moment)

    def _stamp(self, call: Call) -> Stamped:
        call.attempts += 1
        return Stamped(call.number, call.attempts, self._world.knobs.payload_bytes, call.command)

    def _likely_leader(self, rng: random.Random) -> SimulatedNode:
        nodes = self._world.nodes.values()
        chosen = self._world.nodes[rng.choice(self._world.ids)]
        if rng.random() < 0.1:
            return chosen
        leaders = [node for node in nodes if node.core.role is RaftRole.LEADER and not node.down]
        return max(leaders, key=_term_of) if leaders else chosen

    # ------------------------------------------------------------------ answers

    def on_finished(self, token: int, outcome: Outcome) -> None:
        """Take the end of a proposal."""
        if token not in self._open:
            return
        _, first, calls = self._open.pop(token)
        if not isinstance(outcome, Applied):
            _release(calls)
            return
        self._moment += 1
        for index, call in enumerate(calls, first):
            result = self._account.results[index]
            if call.caller is not None:
                if result == _EXPIRED:
                    self._world.counts["sessions_expired"] += 1
                call.caller.answered(call, result, self._moment)
            else:
                call.result, call.returned = result, self._moment

    def on_asked(self, token: int, rng: random.Random) -> None:
        """A node was asked when a read may run."""
        question = self._account.workload.question(rng)
        if question is not None:
            self._number += 1
            self._moment += 1
            self._asked[token] = Call(self._number, question, self._moment)

    def on_read(self, node: SimulatedNode, token: int, outcome: ReadOutcome) -> None:
        """A read may run now, or never."""
        call = self._asked.pop(token, None)
        if call is not None and isinstance(outcome, ReadReady):
            assert isinstance(node.machine, HostedMachine)
            self._moment += 1
            call.result = self._account.workload.answer(node.machine.state, call.command)
            call.returned, call.read_at = self._moment, node.state_index
            self._calls.append(call)

    def on_crash(self, node: SimulatedNode) -> None:
        """Whoever waits for this node waits in vain."""
        for token in [one for one, (owner, *_) in self._open.items() if owner == node.node_id]:
            _release(self._open.pop(token)[2])

    def at_the_end(self) -> None:
        """Every call fits into one order."""
        workload, executed = self._account.workload, self._account.executed
        history = [
            Operation(
                call.number,
                call.command,
                call.result,
                call.invoked,
                call.returned,
                workload.key(call.command),
                executed.get(call.number) if call.read_at is None else call.read_at,
                reads=call.read_at is not None,
            )
            for call in self._calls
        ]
        verdict = check(workload.model(), history)
        if not verdict:
            raise Violated("linearizability", verdict.explain())
        self._world.counts["calls"] += len(history)
        if self._world.seed % _SEARCH_EVERY_SEEDS == 0:
            verdict = check_by_search(workload.model(), history, steps_max=_SEARCH_STEPS_MAX)
            if verdict.answer is Answer.VIOLATED:
                raise Violated("witness and search agree", verdict.explain())
            self._world.counts["searched"] += verdict.answer is Answer.LINEARIZABLE


def _release(calls: Sequence[Call]) -> None:
    for call in calls:
        if call.caller is not None:
            call.caller.busy = False


def _term_of(node: SimulatedNode) -> int:
    return node.core.term
