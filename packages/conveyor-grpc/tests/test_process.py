"""What a process configures."""

import asyncio
import io
import json
import logging
import os
import signal
import time
from collections.abc import Iterator

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from conveyor_grpc import process


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    process.configure_logging(level="info", fields={"node_id": 3}, stream=stream)
    yield stream
    root.handlers[:], root.level = before[0], before[1]
    structlog.reset_defaults()


def test_logs_of_both_libraries_are_json_with_trace_ids(log: io.StringIO) -> None:
    """One line, one object, whoever logs; the trace id joins it to its span."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        logging.getLogger("library").warning("lost %d records", 2)
    structlog.get_logger("ours").info("started", address="127.0.0.1:1")
    first, second = (json.loads(line) for line in log.getvalue().splitlines())
    assert first["event"] == "lost 2 records"
    assert first["level"] == "warning"
    assert first["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert (second["event"], second["address"]) == ("started", "127.0.0.1:1")
    assert "trace_id" not in second
    assert first["node_id"] == second["node_id"] == 3


def test_an_exception_is_part_of_its_line(log: io.StringIO) -> None:
    """A traceback does not break the form of the log."""
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("library").exception("failed")
    (line,) = log.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["exception"]


def test_text_is_for_people(log: io.StringIO) -> None:
    """The other form has the same fields, and no JSON and no colours."""
    process.configure_logging(form="text", fields={"node_id": 3}, stream=log)
    logging.getLogger("library").warning("the disk is %s", "full")
    line = log.getvalue()
    assert "the disk is full" in line
    assert "warning" in line
    assert "node_id=3" in line
    assert "{" not in line
    assert "\x1b" not in line


def test_below_the_level_nothing_is_written(log: io.StringIO) -> None:
    """Debug lines cost nothing in production."""
    logging.getLogger("library").debug("details")
    structlog.get_logger("ours").debug("details")
    assert log.getvalue() == ""


def test_without_an_endpoint_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing is off until it is asked for."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    telemetry = process.configure_telemetry("test", version="0", instance_id="1")
    assert not telemetry.enabled
    telemetry.shutdown()


def test_an_absent_collector_does_not_hold_up_the_end() -> None:
    """Shutting down is bounded, whatever the collector does."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.shutdown = lambda: time.sleep(30)  # type: ignore[method-assign]
    began = time.monotonic()
    process.Telemetry(provider).shutdown(timeout_s=0.05)
    assert time.monotonic() - began < 5


@pytest.mark.asyncio
async def test_sigterm_asks_for_a_clean_stop() -> None:
    """The first signal sets the event, and the handlers are gone afterwards."""
    async with process.stop_signals() as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stopping.wait(), 5)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
