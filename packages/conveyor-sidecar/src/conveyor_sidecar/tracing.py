"""Trace context on the data plane: one span per batch, never one per record.

Frames carry a W3C ``traceparent`` and so do calls to services. A span begins with the context that
came with the batch and hands on its own. Only the OpenTelemetry API is used: until the process
configures the SDK, nothing is recorded, and a context that came in goes out as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("conveyor.sidecar")
_ROOT = Context()


@contextmanager
def batch_span(
    name: str,
    traceparent: str,
    kind: SpanKind,
    attributes: Mapping[str, str | int],
) -> Iterator[Span]:
    """A span of one batch, child of the context in ``traceparent``, or a new trace without one."""
    parent = _propagator.extract({"traceparent": traceparent}, _ROOT) if traceparent else _ROOT
    with _tracer.start_as_current_span(
        name, context=parent, kind=kind, attributes=attributes, record_exception=False
    ) as span:
        yield span


@contextmanager
def table_span(revision: int) -> Iterator[Span]:
    """A span of a table being put in force."""
    with _tracer.start_as_current_span(
        "conveyor.table", kind=SpanKind.CONSUMER, attributes={"conveyor.revision": revision}
    ) as span:
        yield span


def traceparent_of(span: Span) -> str:
    """The header that stands for the span; empty where there is no trace."""
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def mark_failed(span: Span, reason: str) -> None:
    """Let the span end as an error."""
    span.set_status(Status(StatusCode.ERROR, reason[:256]))
