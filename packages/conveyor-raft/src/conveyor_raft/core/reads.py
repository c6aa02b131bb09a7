"""Reads that see everything that was acknowledged before they began (Ongaro's thesis §6.4).

How it goes: the leader notes its commit index, proves by one round of heartbeats that it was still
the leader after that, and lets the read pass when everything up to the index is applied. One round
is under way at a time and all reads that come meanwhile share the next, so a thousand reads cost
what one does. A follower has its leader do this and waits for the index itself; it too sends one
batch at a time.

Rules kept:

* A new leader answers no read before an entry of its own term is committed: until then it may not
  know what is.
* The index is noted before the round begins, and only answers to this round or a later one of the
  same leader confirm it; a round, a batch or its answer is good for one use.
* Batches are numbered from a random start, so an answer to an earlier life of this node is none to
  this one.
* Reads that wait for a leader's round end with its office; those that wait for the own state
  machine need no leader any more.
"""

from __future__ import annotations

from typing import NamedTuple

from conveyor_raft.core.contact import Contact
from conveyor_raft.core.messages import ReadReply, ReadRequest
from conveyor_raft.core.replica import Replica
from conveyor_raft.core.types import LogIndex, NodeId, ReadFailed, ReadOutcome, ReadReady, Term

_BATCH_START_MAX = 2**53


class _Round(NamedTuple):
    beat: int
    index: LogIndex  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    tokens: list[int]
    batches: dict[NodeId, int]


class ReadRounds:
    """The reads that wait for a leader's proof that it leads. A peer has one batch at a time."""

    __slots__ = ("_batches", "_round", "_tokens")

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._tokens: list[int] = []
        self._batches: dict[NodeId, int] = {}
        self._round: _Round | None = None

    def __len__(self) -> int:
        return len(self._tokens) + (0 if self._round is None else len(self._round.tokens))

    def add(self, token: int) -> None:
        """Have a read of this node take part in the next round."""
        self._tokens.append(token)

    def add_batch(self, peer: NodeId, batch: int) -> None:
        """Have a follower's batch take part in the next round."""
        self._batches[peer] = batch

    def is_due(self) -> bool:
        """Whether a round should begin."""
        return self._round is None and bool(self._tokens or self._batches)

    def begin(self, beat: int, index: LogIndex) -> None:
        """The heartbeat `beat` leaves now; everybody who waits shares its round."""
        self._round = _Round(beat, index, self._tokens, self._batches)
        self._tokens, self._batches = [], {}

    def end(self, replica: Replica, contact: Contact) -> tuple[LogIndex, list[int]] | None:
        """End the round if it is confirmed: answer the peers, return the own tokens."""
        finished = self._round
        if finished is None or contact.confirmed(replica) < finished.beat:
            return None
        self._round = None
        for peer, batch in finished.batches.items():
            replica.send(peer, ReadReply(batch, finished.index))
        return finished.index, finished.tokens

    def give_up(self) -> list[int]:
        """Return the tokens of this node; followers ask the next leader by themselves."""
        tokens = ([] if self._round is None else self._round.tokens) + self._tokens
        self._tokens, self._round = [], None
        self._batches = {}
        return tokens


class ForwardedReads:
    """The reads of a follower, on their way to its leader and back."""

    __slots__ = ("_asked", "_asked_ms", "_batch", "_leader", "_next_batch", "_tokens")

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._tokens: list[int] = []
        self._asked: list[int] = []
        self._batch: int | None = None
        self._leader: tuple[NodeId, Term] | None = None
        self._asked_ms = 0
        self._next_batch: int | None = None

    def __len__(self) -> int:
        return len(self._tokens) + len(self._asked)

    def add(self, token: int) -> None:
        """Have a read take part in the next batch."""
        self._tokens.append(token)

    def ask(self, replica: Replica, leader_id: NodeId) -> None:
        """Send the next batch if none is out; the last one again, or anew to another leader."""
        leader = leader_id, replica.term
        if leader != self._leader:
            self._leader = leader
            self._tokens, self._asked, self._batch = self._asked + self._tokens, [], None
        if self._batch is None:
            if not self._tokens:
                return
            self._batch = self.next_batch(replica)
            self._asked, self._tokens = self._tokens, []
        elif replica.now_ms < self._asked_ms + replica.options.heartbeat_interval_ms:
            return
        self._asked_ms = replica.now_ms
        replica.reveal_term(leader_id, ReadRequest(self._batch))

    def on_reply(self, reply: ReadReply) -> list[int]:
        """Return the tokens of the batch, if it is the one that is out."""
        if reply.batch != self._batch:
            return []
        tokens, self._asked, self._batch = self._asked, [], None
        return tokens

    def give_up(self) -> list[int]:
        """Return all tokens."""
        tokens = self._asked + self._tokens
        self._asked, self._tokens, self._batch = [], [], None
        return tokens

    def next_batch(self, replica: Replica) -> int:
        """Return a number that no life of this node has used."""
        if self._next_batch is None:
            self._next_batch = replica.random.randint(0, _BATCH_START_MAX)
        self._next_batch += 1
        return self._next_batch


class Reads:
    """All reads of one node. `finished` gathers how tokens ended."""

    __slots__ = ("_passing", "finished", "forwarded")

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._passing: list[tuple[LogIndex, int]] = []
        self.forwarded = ForwardedReads()
        self.finished: list[tuple[int, ReadOutcome]] = []

    def __len__(self) -> int:
        return len(self._passing) + len(self.forwarded)

    def let_pass(self, index: LogIndex, tokens: list[int]) -> None:
        """These reads may run as soon as the state machine has reached the index."""
        self._passing += [(index, token) for token in tokens]

    def applied(self, applied: LogIndex) -> None:
        """Let the reads run that the state machine has caught up with."""
        if not self._passing:
            return
        self.finished += [
            (token, ReadReady(index)) for index, token in self._passing if index <= applied
        ]
        self._passing = [(index, token) for index, token in self._passing if index > applied]

    def fail(self, tokens: list[int], reason: str) -> None:
        """End reads that nobody can confirm any more."""
        self.finished += [(token, ReadFailed(reason)) for token in tokens]

    def fail_all(self, reason: str) -> None:
        """End every read of this node that is not in a leader's hands."""
        self.fail(self.forwarded.give_up() + [token for _, token in self._passing], reason)
        self._passing = []
