"""An OTLP receiver: processes export their spans to it over gRPC, tests ask it what happened."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

SPANS_MAX = 200_000


@dataclass(frozen=True)
class Span:
    """One received span."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    instance: str
    start_ns: int

    @property
    def place(self) -> str:
        """Where it happened: the sidecar's id, or what kind of process it was.

        Which router leads differs from run to run, which sidecar does what does not.
        """
        return self.instance if self.service == "conveyor-sidecar" else self.service


@dataclass
class TraceReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Collects spans; an async context manager that listens on a free loopback port.

    Attributes:
        endpoint: What `OTEL_EXPORTER_OTLP_ENDPOINT` must say.
        spans: Everything received, in order of arrival.
    """

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    _server: grpc.aio.Server | None = None

    async def __aenter__(self) -> TraceReceiver:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        await self._server.stop(0)

    async def Export(
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: object,
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take one batch of spans."""
        for resource in request.resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    if len(self.spans) >= SPANS_MAX:
                        break
                    self.spans.append(
                        Span(
                            trace_id=span.trace_id.hex(),
                            span_id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                            name=span.name,
                            service=about.get("service.name", ""),
                            instance=about.get("service.instance.id", ""),
                            start_ns=span.start_time_unix_nano,
                        )
                    )
        return trace_service_pb2.ExportTraceServiceResponse()

    def traces(self) -> dict[str, list[Span]]:
        """Return the spans by trace, each trace in order of start."""
        found: dict[str, list[Span]] = {}
        for span in self.spans:
            found.setdefault(span.trace_id, []).append(span)
        for spans in found.values():
            spans.sort(key=lambda span: span.start_ns)
        return found


def walk(spans: list[Span]) -> list[str]:
    """Return a trace as indented lines `place: name`, children below their parents.

    Equal siblings (a batch that went to two instances, say) are one line, so that the walk tells
    the path and not the load.
    """
    children: dict[str, list[Span]] = {}
    known = {span.span_id for span in spans}
    for span in spans:
        parent = span.parent_id if span.parent_id in known else ""
        children.setdefault(parent, []).append(span)

    def lines(parents: list[str], depth: int) -> list[str]:
        groups: dict[str, list[str]] = {}
        for parent in parents:
            for span in children.get(parent, []):
                groups.setdefault(f"{span.place}: {span.name}", []).append(span.span_id)
        result: list[str] = []
        for title, identifiers in groups.items():
            result.append("  " * depth + title)
            result.extend(lines(identifiers, depth + 1))
        return result

    return lines([""], 0)
