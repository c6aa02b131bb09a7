"""The root span of a command, when traces are collected.

Set ``OTEL_EXPORTER_OTLP_ENDPOINT`` and one trace shows the command from here through the leader to
the assignment that it led to. Without it nothing of OpenTelemetry's SDK is even imported.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextmanager
def command_span(name: str) -> Iterator[None]:
    """Trace what happens inside as one command; spans are sent before it returns."""
    if not any(os.environ.get(variable) for variable in _VARIABLES):
        yield
        return
    from opentelemetry import trace  # noqa: PLC0415 - costs time that most runs need not spend

    from conveyor_grpc.process import configure_telemetry  # noqa: PLC0415

    telemetry = configure_telemetry(
        "conveyor-cli",
        version=version("conveyor-cli"),
        instance_id=f"{socket.gethostname()}:{os.getpid()}",
    )
    try:
        with trace.get_tracer("conveyor_cli").start_as_current_span(name):
            yield
    finally:
        telemetry.shutdown()
