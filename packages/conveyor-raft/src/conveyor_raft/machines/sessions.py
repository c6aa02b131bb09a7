"""Sessions: a command takes effect once, however often it was proposed.

What for: whoever gets `UnknownOutcome` does not know whether the command took effect. Within a
session it proposes the command again, with the same number, and gets the result of the one time
that it was applied.

`SessionLayer` wraps any `StateMachine` and is one itself, so all of this happens in the apply lane,
in the order of the log, and equally on all nodes. A `RaftNode` wraps its state machine by itself.

Rules kept:

* A session is opened by an entry of the log, whose index is its id: ids are never used twice.
* Each command says its session, its number, and the number up to which the client has all answers;
  results above that are kept, those below it are forgotten. A number that was answered and
  forgotten is refused, never applied again.
* A refusal of the state machine is a result like any other.
* Sessions end by the time of the log alone (`entry.timestamp_ms`), so they end at the same entry on
  every node. A command of a session that has ended is refused with `SessionExpired`.
* The table is part of every snapshot, and equal tables have equal bytes.
* The number of sessions, and of results kept for each, is bounded; beyond it is a refusal.

Theory: Ongaro, "Consensus: Bridging Theory and Practice" (2014), §6.3; dragonboat's sessions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from conveyor_raft.errors import CommandRejected, SessionExpired
from conveyor_raft.machines.base import Entry, StateMachine
from conveyor_raft.machines.results import PlainResults, ResultCodec

C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S")

SESSIONS_MAX = 10_000
UNANSWERED_MAX = 1_000
"""Results kept for one session; its client must not have more commands without an answer."""
TTL_MIN_MS = 100
TTL_MAX_MS = 24 * 3_600_000

_VERSION = 1
_HEAD = struct.Struct("<HQI")
_SESSION = struct.Struct("<QQQQI")
_RESULT = struct.Struct("<QBI")
_OPEN = struct.Struct("<BI")
_ID = struct.Struct("<BQ")
_IN_SESSION = struct.Struct("<BQQQ")
_PLAIN = b"\x00"
_PLAIN_TAG, _OPEN_TAG, _KEEP_TAG, _CLOSE_TAG, _IN_TAG = range(5)
SESSION_OVERHEAD_BYTES = _IN_SESSION.size
"""What the envelope adds to a command at most."""
_VALUE, _REFUSAL, _NOT_KEPT = range(3)


class OpenSession(NamedTuple):
    """Open a session that ends when nothing was proposed in it for so long. Result: its id."""

    ttl_ms: int


class KeepSession(NamedTuple):
    """Begin a session's time anew. Result: None."""

    session_id: int


class CloseSession(NamedTuple):
    """End a session. Result: None, also if it has ended before."""

    session_id: int


class InSession(NamedTuple):
    """A command of a session; the client has the answers to all numbers up to the last field."""

    session_id: int
    number: int
    answered_through: int
    command: Any


SessionCommand = OpenSession | KeepSession | CloseSession | InSession
_OWN = frozenset((OpenSession, KeepSession, CloseSession, InSession))


@dataclass(slots=True)
class _Session:
    ttl_ms: int
    expires_ms: int
    answered_through: int = 0
    results: dict[int, tuple[int, bytes]] = field(default_factory=dict)


class SessionLayer(Generic[C, R, S]):
    """A `StateMachine` around another one. The limits must be the same on every node."""

    def __init__(
        self,
        inner: StateMachine[C, R, S],
        *,
        sessions_max: int = SESSIONS_MAX,
        unanswered_max: int = UNANSWERED_MAX,
    ) -> None:
        self.inner = inner
        self._codec: ResultCodec = inner if isinstance(inner, ResultCodec) else PlainResults()
        self._sessions_max = sessions_max
        self._unanswered_max = unanswered_max
        self._sessions: dict[int, _Session] = {}
        self._sweep_at = 16
        self._now_ms = 0

    def __len__(self) -> int:
        """Return the number of sessions that have not ended."""
        return sum(one.expires_ms > self._now_ms for one in self._sessions.values())

    @property
    def state(self) -> S:
        """The state of the wrapped machine."""
        return self.inner.state

    # ------------------------------------------------------------------ commands

    def apply(self, entry: Entry[Any]) -> Any:
        """Apply a command, or a session's command unless it was applied before."""
        self._now_ms = entry.timestamp_ms
        command = entry.command
        if command.__class__ not in _OWN:
            return self.inner.apply(entry)
        if isinstance(command, InSession):
            return self._apply_once(entry, command)
        if isinstance(command, OpenSession):
            return self._open(entry.index, command.ttl_ms)
        if isinstance(command, KeepSession):
            session = self._session(command.session_id)
            session.expires_ms = self._now_ms + session.ttl_ms
            return None
        assert isinstance(command, CloseSession)
        self._sessions.pop(command.session_id, None)
        return None

    def _open(self, index: int, ttl_ms: int) -> int:
        if not TTL_MIN_MS <= ttl_ms <= TTL_MAX_MS:
            raise CommandRejected(
                "session_ttl",
                f"a session of {ttl_ms} ms; from {TTL_MIN_MS} to {TTL_MAX_MS} ms are possible",
            )
        if len(self._sessions) >= min(self._sweep_at, self._sessions_max):
            self._sweep()
        if len(self._sessions) >= self._sessions_max:
            raise CommandRejected(
                "too_many_sessions",
                f"{self._sessions_max} sessions are open; close some, or wait until they expire",
            )
        self._sessions[index] = _Session(ttl_ms, self._now_ms + ttl_ms)
        return index

    def _session(self, session_id: int) -> _Session:
        session = self._sessions.get(session_id)
        if session is None or session.expires_ms <= self._now_ms:
            raise SessionExpired(session_id)
        return session

    def _apply_once(self, entry: Entry[Any], command: InSession) -> Any:
        session = self._session(command.session_id)
        session.expires_ms = self._now_ms + session.ttl_ms
        number, results = command.number, session.results
        if command.answered_through > session.answered_through:
            session.answered_through = command.answered_through
            for old in [one for one in results if one <= command.answered_through]:
                del results[old]
        if number <= session.answered_through:
            raise CommandRejected(
                "session_answered",
                f"command {number} of session {command.session_id} was answered before, and its"
                " client has said so; it is not applied again",
            )
        kept = results.get(number)
        if kept is not None:
            return self._answer_again(command, *kept)
        if len(results) >= self._unanswered_max:
            raise CommandRejected(
                "session_full",
                f"session {command.session_id} has {len(results)} results that its client has not"
                " acknowledged; it must say how far it has the answers",
            )
        inner = Entry(entry.index, entry.term, entry.timestamp_ms, command.command)
        try:
            result = self.inner.apply(inner)
        except CommandRejected as refusal:
            words = PlainResults().encode_result((refusal.code, refusal.message))
            results[number] = _REFUSAL, words
            raise
        try:
            results[number] = _VALUE, self._codec.encode_result(result)
        except TypeError:
            results[number] = _NOT_KEPT, b""
        return result

    def _answer_again(self, command: InSession, kind: int, data: bytes) -> Any:
        if kind == _VALUE:
            return self._codec.decode_result(data)
        if kind == _REFUSAL:
            raise CommandRejected(*PlainResults().decode_result(data))
        raise CommandRejected(
            "result_not_kept",
            f"command {command.number} of session {command.session_id} was applied once; its result"
            " is no plain value and was not kept. Give the state machine encode_result and"
            " decode_result",
        )

    def _sweep(self) -> None:
        """Forget what has ended; nobody can tell, because nothing that has ended is used."""
        now_ms = self._now_ms
        self._sessions = {
            session_id: one for session_id, one in self._sessions.items() if one.expires_ms > now_ms
        }
        self._sweep_at = 2 * len(self._sessions) + 16

    # ------------------------------------------------------------------ snapshots

    def snapshot(self) -> bytes:
        """Return all sessions, sorted by id, and the snapshot of the wrapped machine."""
        self._sweep()
        parts = [_HEAD.pack(_VERSION, self._now_ms, len(self._sessions))]
        for session_id, one in sorted(self._sessions.items()):
            parts.append(
                _SESSION.pack(
                    session_id, one.ttl_ms, one.expires_ms, one.answered_through, len(one.results)
                )
            )
            for number, (kind, data) in sorted(one.results.items()):
                parts += (_RESULT.pack(number, kind, len(data)), data)
        parts.append(self.inner.snapshot())
        return b"".join(parts)

    def restore(self, data: bytes) -> None:
        """Replace all sessions and the state of the wrapped machine."""
        version = int.from_bytes(data[:2], "little")
        if version != _VERSION or len(data) < _HEAD.size:
            raise ValueError(
                f"sessions of version {version}, this release knows {_VERSION};"
                " run the release that wrote them"
            )
        _, now_ms, count = _HEAD.unpack_from(data)
        position = _HEAD.size
        sessions = {}
        for _ in range(count):
            session_id, ttl_ms, expires_ms, answered, kept = _SESSION.unpack_from(data, position)
            position += _SESSION.size
            results = {}
            for _ in range(kept):
                number, kind, length = _RESULT.unpack_from(data, position)
                position += _RESULT.size
                results[number] = kind, data[position : position + length]
                position += length
            sessions[session_id] = _Session(ttl_ms, expires_ms, answered, results)
        self.inner.restore(data[position:])
        self._sessions, self._now_ms = sessions, now_ms

    # ------------------------------------------------------------------ bytes

    def encode_command(self, command: Any) -> bytes:
        """Return a command, of a session or not, as bytes."""
        if command.__class__ not in _OWN:
            return _PLAIN + self.inner.encode_command(command)
        if isinstance(command, InSession):
            head = _IN_SESSION.pack(
                _IN_TAG, command.session_id, command.number, command.answered_through
            )
            return head + self.inner.encode_command(command.command)
        if isinstance(command, OpenSession):
            return _OPEN.pack(_OPEN_TAG, command.ttl_ms)
        if isinstance(command, KeepSession):
            return _ID.pack(_KEEP_TAG, command.session_id)
        assert isinstance(command, CloseSession)
        return _ID.pack(_CLOSE_TAG, command.session_id)

    def decode_command(self, data: bytes) -> Any:
        """Return the command of the bytes."""
        tag = data[0] if data else -1
        if tag == _PLAIN_TAG:
            return self.inner.decode_command(data[1:])
        if tag == _IN_TAG:
            _, session_id, number, answered_through = _IN_SESSION.unpack_from(data)
            command = self.inner.decode_command(data[_IN_SESSION.size :])
            return InSession(session_id, number, answered_through, command)
        if tag == _OPEN_TAG:
            return OpenSession(_OPEN.unpack(data)[1])
        if tag in {_KEEP_TAG, _CLOSE_TAG}:
            session_id = _ID.unpack(data)[1]
            return KeepSession(session_id) if tag == _KEEP_TAG else CloseSession(session_id)
        raise ValueError(
            f"a command of the unknown kind {tag}; run the release that wrote it"
            if data
            else "an empty command"
        )
