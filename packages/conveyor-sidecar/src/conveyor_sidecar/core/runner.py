"""One transform or sink instance at work.

Records come in on lanes (`intake`), wait for the service and are handed to it (`calls`), and what
it made of them leaves on edges (`outbox`); a sink's records end when it has written them. Between
intake and calls a sink asks its memory whether it has seen the records before (`dedup`).

The runner starts no call while its outboxes hold as much as the stage may: a transform that makes
more than its consumers take would otherwise fill the process.
"""

from __future__ import annotations

from collections.abc import Sequence

from conveyor_sdk.carrier.errors import MalformedFrame
from conveyor_sdk.carrier.frame import Frame, derive
from conveyor_sdk.carrier.lineage import Origin, output_paths
from conveyor_sidecar.core.answers import failures_problem, outputs_problem
from conveyor_sidecar.core.calls import Calls
from conveyor_sidecar.core.context import Context
from conveyor_sidecar.core.dedup import SeenRecords
from conveyor_sidecar.core.delivery import Piece
from conveyor_sidecar.core.events import (
    CallFailed,
    CallFailureKind,
    CallFinished,
    Outputs,
    ServiceUp,
)
from conveyor_sidecar.core.intake import Intake
from conveyor_sidecar.core.lane import LaneConsumer, Receipt
from conveyor_sidecar.core.letters import DeadLetters
from conveyor_sidecar.core.outbox import LaneCarrier
from conveyor_sidecar.core.outputs import Exits
from conveyor_sidecar.core.routes import Instance, InstanceKey, Pipeline, Stage, StageKind
from conveyor_sidecar.core.statistics import OpenRecords


class Runner:
    """A transform or sink instance that this sidecar runs.

    Args:
        context: The engine's.
        carrier: The links, for outgoing lanes.
        letters: Dead letters on their way to the disk.
        pipeline: Name and version of the pipeline, and its stages.
        instance: The assignment.
    """

    def __init__(
        self,
        context: Context,
        carrier: LaneCarrier,
        letters: DeadLetters,
        pipeline: Pipeline,
        instance: Instance,
    ) -> None:
        self.key = InstanceKey(pipeline.name, instance.stage, instance.index)
        self.term = instance.term
        self.service_id = instance.service_id
        self.stage: Stage = pipeline.stages[instance.stage]
        self.service: ServiceUp | None = None
        self._context = context
        self._letters = letters
        self._counters = context.counters(self.key)
        self.intake = Intake(context, self)
        self.calls = Calls(context, letters, self)
        self.exits = Exits(context, carrier, letters, self)
        self._seen = SeenRecords() if self.stage.kind is StageKind.SINK else None

    @property
    def empty(self) -> bool:
        """Nothing of anybody's is in custody here."""
        return not self.intake.records and self.calls.empty and self.exits.empty

    @property
    def open(self) -> OpenRecords:
        """What was received and has not ended."""
        return self.intake.open_records

    def update(self, pipeline: Pipeline, instance: Instance) -> None:
        """Take over what a newer table says about the same assignment."""
        self.stage = pipeline.stages[instance.stage]
        self.service_id = instance.service_id
        self.exits.update(pipeline)
        self.intake.update(pipeline)
        self._context.touch(self)

    def close(self, reason: str) -> None:
        """The assignment is over: drop everything; whoever sent it still has it."""
        self.calls.close()
        self.exits.close(reason)
        self._context.budget.records -= self.intake.records
        self.intake.close()
        self._letters.forget(self.key)

    def discard(self, piece: Piece) -> bool:
        """A transform need not work on what nobody waits for; a sink must end what it has seen."""
        return self._seen is None and piece.abandoned

    def receive(self, lane: LaneConsumer, frame: Frame) -> None:
        """Take a frame that came on a lane."""
        receipt = self.intake.accept(lane, frame)
        if receipt is None:
            return
        self._counters.received += frame.count
        if self._seen is not None:
            frame = self._unseen(self._seen, frame, receipt)
        if frame.count:
            self.calls.add(Piece(frame, (receipt,)))
        else:
            receipt.release()

    def raise_stable(self, origin: Origin, below: int) -> None:
        """Forget what is below the mark, and tell those downstream."""
        if self._seen is not None:
            self._seen.raise_stable(origin, below)
        self.exits.raise_stable(origin, below)

    def finished(self, event: CallFinished) -> None:
        """The service answered a call."""
        piece = self.calls.take(event.call_id)
        if piece is None:
            return
        count = piece.frame.count
        problem = failures_problem(count, event.failures)
        if not problem and self.stage.kind is StageKind.TRANSFORM:
            problem = outputs_problem(count, event.outputs, event.failures, self.exits.consumers)
            if not problem and event.outputs is not None:
                problem = self._pass_on(piece, event.outputs, len(event.failures))
        if problem:
            self._context.note(
                "a service broke the contract",
                pipeline=self.key.pipeline,
                stage=self.key.stage,
                service=self.service_id,
                reason=problem,
            )
            reason = f"the service broke the contract: {problem}"
            self.calls.failed(piece, CallFailureKind.GARBAGE, reason, "", 0)
            return
        if self.stage.kind is StageKind.SINK:
            self._counters.written += count - len(event.failures)
        if event.failures:
            self.calls.failed_records(piece, event.failures)
        self._worked_off(piece)

    def failed(self, event: CallFailed) -> None:
        """A call has no usable answer."""
        piece = self.calls.take(event.call_id)
        if piece is not None:
            self.calls.failed(piece, event.kind, event.reason, event.detail, event.retry_after_ms)

    def settle(self) -> None:
        """Send, call, grant and acknowledge what can be."""
        self.exits.pump()
        if self.service is not None and not self.exits.blocked:
            self.calls.start(self.service)
        self.intake.settle()

    def _unseen(self, seen: SeenRecords, frame: Frame, receipt: Receipt) -> Frame:
        """Leave of a sink's frame what it has not seen; wait for what is still open elsewhere."""
        sighting = seen.see(frame, receipt)
        self._counters.duplicates += sighting.duplicates
        self._counters.superseded += sighting.superseded
        for first in sighting.waits_on:
            receipt.wait_for(first)
        return frame if sighting.fresh is None else frame.select(sighting.fresh)

    def _pass_on(self, piece: Piece, outputs: Outputs, failures: int) -> str:
        """Put a transform's outputs on the out-edges; say what is wrong with them, if anything."""
        inputs = piece.frame
        paths = output_paths(outputs.parents, inputs.paths, self.stage.name)
        try:
            frame = derive(inputs, outputs.body, outputs.lengths, outputs.parents, paths)
        except MalformedFrame as error:
            return str(error)
        self._counters.filtered += inputs.count - failures - _distinct(outputs.parents)
        if frame.count:
            self.exits.send(piece, frame, outputs)
        return ""

    def _worked_off(self, piece: Piece) -> None:
        for holding in piece.holdings:
            if isinstance(holding, Receipt):
                self.intake.worked_off(holding)
        self.calls.worked_off(piece)


def _distinct(parents: Sequence[int]) -> int:
    return len(set(parents))
