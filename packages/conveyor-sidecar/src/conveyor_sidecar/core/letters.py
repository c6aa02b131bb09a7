"""Dead letters on their way to the disk: the records are ended only when they are stored.

A letter that could not be stored is tried again for as long as it takes; its records stay un-ended
meanwhile, which at last stops the source. Blocking is the right answer to a full disk: dropping is
never done.
"""

from __future__ import annotations

from typing import Protocol

from conveyor_sidecar.core.context import Context
from conveyor_sidecar.core.delivery import Piece
from conveyor_sidecar.core.effects import StoreDeadLetter
from conveyor_sidecar.core.events import Failure, Oversize
from conveyor_sidecar.core.routes import InstanceKey


class Undertaker(Protocol):
    """An instance that gives records up."""

    key: InstanceKey
    term: int
    service_id: str


class DeadLetters:
    """Dead letters of all instances that are not on disk yet."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._letters: dict[int, tuple[StoreDeadLetter, Piece]] = {}

    def __len__(self) -> int:
        return len(self._letters)

    def bury(
        self,
        owner: Undertaker,
        piece: Piece,
        failures: tuple[Failure, ...],
        tombstone: Oversize | None = None,
    ) -> None:
        """Store the records of `piece`, which `owner` gives up, and only then end them."""
        letter = StoreDeadLetter(
            next(self._context.numbers),
            owner.key,
            owner.term,
            owner.service_id,
            piece.frame,
            failures,
            piece.attempt,
            tombstone,
        )
        self._letters[letter.letter_id] = (letter, piece)
        self._context.budget.bytes += len(piece.frame.body)
        self._context.emit(letter)

    def on_stored(self, letter_id: int) -> None:
        """A letter is on disk."""
        found = self._letters.pop(letter_id, None)
        if found is None:
            return
        letter, piece = found
        records = piece.frame.count if letter.tombstone is None else 1
        self._context.counters(letter.instance).dead += records
        self._context.budget.bytes -= len(piece.frame.body)
        piece.release()

    def on_failed(self, letter_id: int, reason: str) -> None:
        """A letter could not be stored: later again."""
        found = self._letters.get(letter_id)
        if found is None:
            return
        self._context.note(
            "a dead letter cannot be stored; its records stay open until it can",
            stage=found[0].instance.stage,
            pipeline=found[0].instance.pipeline,
            reason=reason,
        )
        due = self._context.now_ms + self._context.options.dead_letter_retry_ms
        self._context.timers.at(due, lambda: self._again(letter_id))

    def forget(self, instance: InstanceKey) -> None:
        """The instance is gone; whoever has custody upstream delivers its records again."""
        for letter_id, (letter, piece) in list(self._letters.items()):
            if letter.instance == instance:
                del self._letters[letter_id]
                self._context.budget.bytes -= len(piece.frame.body)

    def _again(self, letter_id: int) -> None:
        found = self._letters.get(letter_id)
        if found is not None:
            self._context.emit(found[0])
