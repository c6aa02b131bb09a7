"""Calls to a local service: what waits for it, what it has, and what comes of its failures.

One of these stands between an instance and its service. Fresh records are merged up to the limits
of a call; records that failed before travel alone, so that their attempts mean something and one
bad record cannot spoil others again. At most `concurrency_max` calls are under way; each has a
deadline of the engine's own, because a service that never answers must not hold records for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from conveyor_sdk.carrier.frame import Frame
from conveyor_sidecar.core.context import Context
from conveyor_sidecar.core.delivery import Piece, merge_pieces, split_piece
from conveyor_sidecar.core.effects import CallService, CancelCall
from conveyor_sidecar.core.events import CallFailureKind, Failure, FailureKind, ServiceUp
from conveyor_sidecar.core.letters import DeadLetters
from conveyor_sidecar.core.retry import COUNTED, backoff_ms, parts_after_failure
from conveyor_sidecar.core.routes import InstanceKey, Stage
from conveyor_sidecar.core.timers import Timer


class CallOwner(Protocol):
    """Whose calls these are (`runner.Runner`)."""

    key: InstanceKey
    term: int
    service_id: str
    stage: Stage

    def settle(self) -> None:
        """See `context.Part`."""
        ...

    def discard(self, piece: Piece) -> bool:
        """Whether these records need not be carried on."""
        ...


@dataclass(slots=True)
class _Call:
    piece: Piece
    deadline: Timer


class Calls:
    """What waits for a service and what it has.

    Args:
        context: The engine's.
        letters: Where records go that are given up.
        owner: The instance.
    """

    def __init__(self, context: Context, letters: DeadLetters, owner: CallOwner) -> None:
        self._context = context
        self._letters = letters
        self._owner = owner
        self._fresh: deque[Piece] = deque()
        self._again: deque[Piece] = deque()
        self._delayed: dict[Timer, Piece] = {}
        self._open: dict[int, _Call] = {}
        self.records = 0

    @property
    def open(self) -> int:
        """Calls under way."""
        return len(self._open)

    @property
    def empty(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not (self._fresh or self._again or self._delayed or self._open)

    def knows(self, call_id: int) -> bool:
        """Whether this call is under way."""
        return call_id in self._open

    def add(self, piece: Piece) -> None:
        """Let these records wait for their first delivery."""
        self._count(piece.frame.count, len(piece.frame.body))
        self._fresh.append(piece)
        self._context.touch(self._owner)

    def start(self, service: ServiceUp) -> None:
        """Start as many calls as the service takes."""
        batch = self._owner.stage.batch
        records_max = min(batch.records, service.batch_records_max or batch.records)
        bytes_max = min(batch.bytes, service.batch_bytes_max or batch.bytes)
        while len(self._open) < max(1, service.concurrency_max):
            piece = self._next(records_max, bytes_max)
            if piece is None:
                return
            self._call(piece)

    def take(self, call_id: int) -> Piece | None:
        """A call has ended: take its records, or None if nobody waits for it."""
        call = self._open.pop(call_id, None)
        if call is None:
            return None
        call.deadline.cancel()
        self._context.touch(self._owner)
        return call.piece

    def worked_off(self, piece: Piece) -> None:
        """The records of a call need no further delivery to this service."""
        self._count(-piece.frame.count, -len(piece.frame.body))
        piece.release()

    def failed(
        self, piece: Piece, kind: CallFailureKind, reason: str, detail: str, wish_ms: int
    ) -> None:
        """A whole call has no usable answer."""
        self._context.counters(self._owner.key).calls_failed += 1
        frame = piece.frame
        policy = self._owner.stage.retry
        if not COUNTED[kind]:
            self._refused(piece, wish_ms)
            return
        if piece.attempt >= policy.attempts and frame.count == 1:
            failure = Failure(0, FailureKind.RETRY, reason, detail)
            self._bury(piece, piece.frame, (failure,))
            self.worked_off(piece)
            return
        self._context.counters(self._owner.key).retried += frame.count
        parts = parts_after_failure(frame.count, piece.attempt)
        size = -(-frame.count // parts)
        attempt = min(piece.attempt + 1, policy.attempts)
        wait = backoff_ms(policy, piece.attempt, wish_ms, self._context.chance)
        for part in split_piece(piece, frame.split(size, len(frame.body)), attempt, 0):
            self._delay(part, wait)

    def failed_records(self, piece: Piece, failures: Sequence[Failure]) -> None:
        """Single records of an answered call failed; `piece` itself is then worked off."""
        attempts = self._owner.stage.retry.attempts
        groups: dict[FailureKind, list[Failure]] = {kind: [] for kind in FailureKind}
        for failure in sorted(failures, key=lambda failure: failure.index):
            kind = failure.kind
            if kind is FailureKind.RETRY and piece.attempt >= attempts:
                kind = FailureKind.REJECT
            groups[kind].append(failure)
        dead = groups[FailureKind.REJECT]
        if dead:
            frame = piece.frame.select([failure.index for failure in dead])
            reasons = tuple([replace(f, index=place) for place, f in enumerate(dead)])
            self._bury(piece, frame, reasons)
        for kind in (FailureKind.RETRY, FailureKind.BUSY):
            if groups[kind]:
                self._put_off(piece, groups[kind], busy=kind is FailureKind.BUSY)

    def close(self) -> None:
        """The instance is gone."""
        for call_id, call in self._open.items():
            call.deadline.cancel()
            self._context.emit(CancelCall(call_id))
        for timer in self._delayed:
            timer.cancel()
        pieces = [*self._fresh, *self._again, *self._delayed.values()]
        for piece in [*pieces, *(call.piece for call in self._open.values())]:
            self._count(-piece.frame.count, -len(piece.frame.body))
        self._fresh.clear()
        self._again.clear()
        self._delayed.clear()
        self._open.clear()

    def _count(self, records: int, size: int) -> None:
        self.records += records
        self._context.budget.bytes += size

    def _next(self, records_max: int, bytes_max: int) -> Piece | None:
        """Take what the next call carries."""
        while self._again:
            piece = self._again.popleft()
            if not self._owner.discard(piece):
                return self._cut(self._again, piece, records_max, bytes_max)
            self.worked_off(piece)
        pieces: list[Piece] = []
        records = size = 0
        while self._fresh:
            frame = self._fresh[0].frame
            full = records + frame.count > records_max or size + len(frame.body) > bytes_max
            if pieces and full:
                break
            piece = self._fresh.popleft()
            if self._owner.discard(piece):
                self.worked_off(piece)
                continue
            if full:
                return self._cut(self._fresh, piece, records_max, bytes_max)
            pieces.append(piece)
            records += frame.count
            size += len(frame.body)
        return merge_pieces(pieces) if pieces else None

    def _cut(self, queue: deque[Piece], piece: Piece, records_max: int, bytes_max: int) -> Piece:
        """Cut a piece that is too large for one call; the rest goes back to its queue."""
        frames = piece.frame.split(records_max, bytes_max)
        if len(frames) == 1:
            return piece
        parts = split_piece(piece, frames, piece.attempt, piece.refusals)
        queue.extendleft(reversed(parts[1:]))
        return parts[0]

    def _call(self, piece: Piece) -> None:
        owner = self._owner
        context = self._context
        call_id = next(context.numbers)
        timeout = owner.stage.timeout_ms
        deadline = context.timers.at(
            context.now_ms + timeout + context.options.call_grace_ms,
            lambda: self._too_late(call_id),
        )
        self._open[call_id] = _Call(piece, deadline)
        context.counters(owner.key).called += piece.frame.count
        context.emit(
            CallService(
                call_id,
                owner.key,
                owner.term,
                owner.service_id,
                owner.stage.kind,
                piece.frame,
                piece.attempt,
                timeout,
                owner.stage.config,
            )
        )

    def _too_late(self, call_id: int) -> None:
        piece = self.take(call_id)
        if piece is not None:
            self._context.emit(CancelCall(call_id))
            reason = f"no answer within {self._owner.stage.timeout_ms} ms"
            self.failed(piece, CallFailureKind.DEADLINE, reason, "", 0)

    def _refused(self, piece: Piece, wish_ms: int) -> None:
        """The same records later again; the refusal does not count."""
        self._context.counters(self._owner.key).retried += piece.frame.count
        piece.refusals += 1
        policy = self._owner.stage.retry
        self._delay(piece, backoff_ms(policy, piece.refusals, wish_ms, self._context.chance))

    def _put_off(self, piece: Piece, failures: list[Failure], busy: bool) -> None:
        """Deliver single records of a call again."""
        frame = piece.frame.select([failure.index for failure in failures])
        if busy:
            again = piece.fork(frame, piece.attempt, piece.refusals + 1)
            tries = again.refusals
        else:
            again = piece.fork(frame, piece.attempt + 1)
            tries = piece.attempt
        wish = max([failure.retry_after_ms for failure in failures])
        self._count(frame.count, len(frame.body))
        self._context.counters(self._owner.key).retried += frame.count
        self._delay(again, backoff_ms(self._owner.stage.retry, tries, wish, self._context.chance))

    def _delay(self, piece: Piece, wait_ms: int) -> None:
        def due() -> None:
            del self._delayed[timer]
            self._again.append(piece)
            self._context.touch(self._owner)

        timer = self._context.timers.at(self._context.now_ms + wait_ms, due)
        self._delayed[timer] = piece

    def _bury(self, piece: Piece, frame: Frame, failures: tuple[Failure, ...]) -> None:
        owner = self._owner
        letter = piece.fork(frame, piece.attempt)
        self._letters.bury(owner, letter, failures)
