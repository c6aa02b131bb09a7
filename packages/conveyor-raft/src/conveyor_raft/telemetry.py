"""One trace from a proposal to every node that applies it, through the OpenTelemetry API alone.

What for: the caller's span goes on in `raft.propose`; the entry carries its W3C trace parent to the
followers, whose `raft.append` and whose `raft.apply` (as the leader's) become its children.

Rules kept: a span for each command, never more; nothing is recorded, kept or sent for a proposal
outside a recorded trace, so that an untraced proposal pays for one look-up; what is remembered is
bounded, and a forgotten mark costs a span, not correctness.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, TraceFlags

from conveyor_raft.core.frames import Frame
from conveyor_raft.core.types import LogIndex, NodeId
from conveyor_raft.transport.base import EntryTrace

_MARKS_MAX = 4_096
_VERSION = "00"

tracer = trace.get_tracer("conveyor_raft")


def propose_span(node_id: NodeId) -> Span | None:
    """Begin the span of one proposal as a child of the caller's; None outside of a recorded one."""
    if not trace.get_current_span().is_recording():
        return None
    return tracer.start_span("raft.propose", attributes={"raft.node_id": node_id})


def traceparent_of(span: Span) -> str:
    """Return what the entry carries."""
    return _traceparent(span.get_span_context())


class TraceMarks:
    """Which entries belong to a trace, until they are applied."""

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self._marks: dict[LogIndex, str] = {}
        self._appending: dict[LogIndex, int] = {}

    def add(self, traces: Iterable[EntryTrace], *, appending: bool) -> None:
        """Remember the traces of entries; beyond the bound the oldest are forgotten.

        `appending`: they came from a leader and are on their way to this node's disk.
        """
        now = time.time_ns()
        for index, traceparent in traces:
            self._marks[index] = traceparent
            if appending:
                self._appending[index] = now
        while len(self._marks) > _MARKS_MAX:
            oldest = next(iter(self._marks))
            del self._marks[oldest]
            self._appending.pop(oldest, None)

    def of(self, frames: Sequence[Frame]) -> list[EntryTrace]:
        """Return the traces of the entries in the frames."""
        if not self._marks or not frames:
            return []
        first, last = frames[0].first_index, frames[-1].last_index
        return [
            EntryTrace(index, traceparent)
            for index, traceparent in self._marks.items()
            if first <= index <= last
        ]

    def appended(self, last: LogIndex) -> None:
        """Record `raft.append` for each marked entry that has just become durable."""
        for index in [index for index in self._appending if index <= last]:
            self._record("raft.append", index, self._marks[index], self._appending.pop(index))

    def applied(self, first: LogIndex, last: LogIndex, since: int) -> None:
        """Record `raft.apply` for each marked entry of the range, and forget them."""
        for index in [index for index in self._marks if index <= last]:
            traceparent = self._marks.pop(index)
            self._appending.pop(index, None)
            if index >= first:
                self._record("raft.apply", index, traceparent, since)

    def __bool__(self) -> bool:
        return bool(self._marks)

    def _record(self, name: str, index: LogIndex, traceparent: str, since: int) -> None:
        parent = _span_context(traceparent)
        if parent is None:
            return
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        attributes = {"raft.index": index, "raft.node_id": self._node_id}
        tracer.start_span(name, context, start_time=since, attributes=attributes).end()


def _traceparent(context: SpanContext) -> str:
    return (
        f"{_VERSION}-{trace.format_trace_id(context.trace_id)}"
        f"-{trace.format_span_id(context.span_id)}-{context.trace_flags:02x}"
    )


def _span_context(traceparent: str) -> SpanContext | None:
    parts = traceparent.split("-")
    if len(parts) != 4:
        return None
    try:
        trace_id, span_id, flags = (int(part, 16) for part in parts[1:])
    except ValueError:
        return None
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None
