"""What a handler may know about the call that it is in: its parameter `ctx`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conveyor_sdk.wire import record_pb2

_log = logging.getLogger("conveyor_sdk.user")


@dataclass(frozen=True, slots=True)
class Context:
    """Facts about a call.

    Attributes:
        pipeline: Name of the pipeline.
        stage: Id of the stage that the service runs for.
        attempt: 1 for the first delivery of these records to this stage.
        config: From the manifest: the document's, overridden by the stage's.
        sidecar: Id of the sidecar that calls.
        assignment_term: The owner number of the stage; grows when it moves.
        lineages: For each record of the call 16 bytes that are the same whenever it is delivered
            again: the key by which a sink can be idempotent. Empty for sources.
        traceparent: W3C trace context of the call, or empty.
    """

    pipeline: str
    stage: str
    attempt: int
    config: Mapping[str, str]
    sidecar: str
    assignment_term: int
    lineages: Sequence[bytes] = ()
    traceparent: str = ""

    @property
    def lineage(self) -> bytes:
        """The lineage of the record, for handlers of single records.

        Raises:
            AttributeError: The handler takes batches, or is a source.
        """
        if len(self.lineages) != 1:
            raise AttributeError(
                f"ctx.lineage is that of one record; this call has {len(self.lineages)}: use "
                "ctx.lineages"
            )
        return self.lineages[0]

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry pipeline, stage and trace id."""
        trace = self.traceparent.split("-")
        extra = {
            "pipeline": self.pipeline,
            "stage": self.stage,
            "trace_id": trace[1] if len(trace) > 1 else "",
        }
        return logging.LoggerAdapter(_log, extra)


def context_of(
    call: record_pb2.Call, lineages: Sequence[bytes] = (), traceparent: str = ""
) -> Context:
    """Return the context of a call."""
    return Context(
        pipeline=call.pipeline,
        stage=call.stage,
        attempt=call.attempt or 1,
        config=dict(call.config),
        sidecar=call.sidecar,
        assignment_term=call.assignment_term,
        lineages=lineages,
        traceparent=traceparent,
    )
