"""What the router and the sidecar do as processes: telemetry, logs, signals.

Needs the extra `process`. Libraries use the OpenTelemetry API and stdlib logging and configure
neither; this module is where a process configures both, once, before its event loop starts.

- Spans leave over OTLP if an endpoint is set (argument, or `OTEL_EXPORTER_OTLP_ENDPOINT`);
  otherwise tracing stays switched off and costs nothing. All `OTEL_*` variables of the SDK work.
- Logs are one JSON object a line on stderr, from structlog and stdlib loggers alike, with the
  trace and span id of the moment; or plain lines, for a person at a terminal.
- The first SIGTERM or SIGINT asks for a clean stop, the second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import orjson
import structlog
from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

FLUSH_TIMEOUT_S = 3.0
_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Telemetry:
    """A configured tracer provider, or none; shut it down last, or the newest spans are lost."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider

    @property
    def enabled(self) -> bool:
        """Whether spans are exported."""
        return self._provider is not None

    def shutdown(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Send what is left, for at most `timeout_s`: an absent collector must not hold
        up the end.
        """
        provider, self._provider = self._provider, None
        if provider is None:
            return
        flusher = threading.Thread(target=provider.shutdown, name="telemetry-flush", daemon=True)
        flusher.start()
        flusher.join(timeout_s)


def configure_telemetry(
    service_name: str,
    *,
    version: str,
    instance_id: str,
    endpoint: str | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Telemetry:
    """Export spans over OTLP/gRPC if an endpoint is given here or by the environment.

    Args:
        service_name: `service.name` of all spans, such as "conveyor-router".
        version: `service.version`.
        instance_id: `service.instance.id`; the node or sidecar id.
        endpoint: `http://host:port` (plaintext) or `https://host:port`.
        attributes: further resource attributes.
    """
    if not endpoint and not any(os.environ.get(name) for name in _ENDPOINT_VARIABLES):
        return Telemetry(None)
    # Imported only here: most processes export nothing, and this takes a third of their start.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create(
        {
            "service.name": service_name,
            "service.version": version,
            "service.instance.id": instance_id,
            **(attributes or {}),
        }
    )
    exporter = OTLPSpanExporter(endpoint=endpoint) if endpoint else OTLPSpanExporter()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return Telemetry(provider)


def _with_trace(logger: Any, method: str, event: Any) -> Any:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _renderers(form: Literal["json", "text"]) -> list[Any]:
    if form == "text":
        return [structlog.dev.ConsoleRenderer(colors=False)]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_json),
    ]


def configure_logging(
    *,
    level: str = "info",
    form: Literal["json", "text"] = "json",
    fields: Mapping[str, Any] | None = None,
    stream: Any = None,
) -> None:
    """Send all logs, structlog's and stdlib's, to `stream` (default: stderr), a line each.

    Args:
        level: lowest level that is written: debug, info, warning, error.
        form: JSON objects, or text to be read by a person.
        fields: put on every line, such as the node id.
        stream: a text stream.
    """
    fixed = dict(fields or {})

    def with_fields(logger: Any, method: str, event: Any) -> Any:
        return {**fixed, **event}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace,
        with_fields,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(form),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


@asynccontextmanager
async def stop_signals() -> AsyncIterator[asyncio.Event]:
    """Yield an event that the first SIGTERM or SIGINT sets; the second one ends the process."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        logging.getLogger(__name__).info("%s received, stopping", number.name)
        stopping.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stopping
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
