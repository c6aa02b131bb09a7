"""From the engine's dead letters to the store: one entry per record, then the answer.

The engine names a letter by number and hands over the frame that failed; here it is taken apart
(this is the one place where records are handled one by one, and it is the road of the few), stored
with fsync, and confirmed. A store that refuses is a ``DeadLetterFailed``: the engine says so, keeps
the records and comes again.

A service that is broken makes a dead letter of every record; the log then gets a line in some
seconds, with their number and the latest reason. Each letter has its own reason on disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from conveyor_sdk.carrier import LINEAGE_BYTES
from conveyor_sdk.wire import closed_pb2
from conveyor_sidecar.core.effects import StoreDeadLetter
from conveyor_sidecar.core.events import DeadLetterFailed, DeadLetterStored, Event
from conveyor_sidecar.dead_letters import DeadLetter, DeadLetterStore
from conveyor_sidecar.errors import DeadLetterError
from conveyor_sidecar.owned_tasks import OwnedTasks
from conveyor_sidecar.routing.routing_table import RoutingTable

logger = logging.getLogger(__name__)

REPORT_INTERVAL_S = 5.0


class DeadLetterWriter:
    """Performs ``StoreDeadLetter``."""

    def __init__(
        self, store: DeadLetterStore, table: RoutingTable, post: Callable[[Event], None]
    ) -> None:
        self._store = store
        self._table = table
        self._post = post
        self._tasks = OwnedTasks()
        self._report = _Report()

    def start(self, effect: StoreDeadLetter) -> None:
        """Begin to store; ``DeadLetterStored`` or ``DeadLetterFailed`` follows."""
        self._tasks.start(self._run(effect), f"dead letter {effect.letter_id}")

    async def close(self) -> None:
        """Stop; what is being written is finished, what waits is not."""
        await self._tasks.close()
        self._report.finish()

    async def _run(self, effect: StoreDeadLetter) -> None:
        now_ms = time.time_ns() // 1_000_000
        pipeline = effect.instance.pipeline
        limits = self._table.routes.dead_letters.get(pipeline)
        letters = letters_of(effect, now_ms)
        try:
            await self._store.append(pipeline, letters, now_ms=now_ms, limits=limits)
        except DeadLetterError as error:
            self._post(DeadLetterFailed(effect.letter_id, str(error)))
            return
        self._report.add(pipeline, effect.instance.stage, letters)
        self._post(DeadLetterStored(effect.letter_id))


class _Report:
    """Says what was given up, at once and then with pauses."""

    def __init__(self) -> None:
        self._unsaid: dict[tuple[str, str], int] = {}
        self._said_s: dict[tuple[str, str], float] = {}

    def add(self, pipeline: str, stage: str, letters: Sequence[DeadLetter]) -> None:
        """Count letters of a stage, and say so unless that was done a moment ago."""
        place = (pipeline, stage)
        count = self._unsaid.pop(place, 0) + len(letters)
        now_s = time.monotonic()
        if now_s - self._said_s.get(place, -REPORT_INTERVAL_S) < REPORT_INTERVAL_S:
            self._unsaid[place] = count
            return
        self._said_s[place] = now_s
        reason = letters[-1].reason if letters else "no reason is known"
        _warn(place, count, f"the latest because: {reason}" if count > 1 else reason)

    def finish(self) -> None:
        """Say what was not said yet."""
        for place, count in self._unsaid.items():
            _warn(place, count, "see the dead letters for the reasons")
        self._unsaid.clear()


def _warn(place: tuple[str, str], count: int, why: str) -> None:
    noun = "record is a dead letter" if count == 1 else "records are dead letters"
    logger.warning("%d %s at stage %s of %s: %s", count, noun, place[1], place[0], why)


def letters_of(effect: StoreDeadLetter, now_ms: int) -> list[DeadLetter]:
    """One letter per record of the effect's frame; one without a record for a tombstone."""
    frame = effect.frame
    records = closed_pb2.ClosedRequest.FromString(frame.body).records
    lineage = frame.lineage()
    failures = {failure.index: failure for failure in effect.failures}
    indexes, offsets, paths = frame.origin_indexes, frame.offsets, frame.paths
    letters: list[DeadLetter] = []
    for place in range(max(frame.count, 1 if effect.tombstone is not None else 0)):
        failure = failures.get(place) or (effect.failures[0] if effect.failures else None)
        known = place < frame.count
        origin = None
        if frame.origins:
            origin = frame.origins[indexes[place] if known else 0]
        tombstone = effect.tombstone
        letters.append(
            DeadLetter(
                pipeline=effect.instance.pipeline,
                stage=effect.instance.stage,
                reason=failure.reason if failure else "no reason is known",
                at_ms=now_ms,
                kind="oversize" if tombstone else failure.kind.value if failure else "reject",
                detail=failure.detail if failure else "",
                attempts=effect.attempts,
                source_stage=origin.stage if origin else "",
                partition=origin.partition if origin else "",
                replay_id=origin.replay_id if origin else 0,
                origin_term=origin.term if origin else 0,
                ordinal=offsets[place] if known else 0,
                path=paths[place] if known else 0,
                lineage=lineage[place * LINEAGE_BYTES : (place + 1) * LINEAGE_BYTES].hex(),
                size=tombstone.size if tombstone else len(records[place]) if known else 0,
                sha256=tombstone.sha256.hex() if tombstone else "",
                service=effect.service_id,
                traceparent=frame.traceparent,
                record=bytes(records[place]) if known and not tombstone else b"",
            )
        )
    return letters
