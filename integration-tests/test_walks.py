"""The two walks of ARCHITECTURE.md, as traces show them, compared with checked-in transcripts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from harness.deployment import deployed
from harness.traces import Span, TraceReceiver, walk

from conveyor_cli.processes import wait_until

pytestmark = pytest.mark.asyncio

HERE = Path(__file__).parent
SERVICES = {
    "numbers": "numbers_source.py",
    "label": "label_transform.py",
    "append": "append_sink.py",
}
PIPELINE = """
apiVersion: conveyor/v1
kind: Pipeline
metadata: {name: numbers}
spec: {source: numbers, steps: [label], sink: append}
"""


def find(receiver: TraceReceiver, *names: str) -> list[Span]:
    """Return the first trace in which all these spans occur, or nothing."""
    for spans in receiver.traces().values():
        if set(names) <= {span.name for span in spans}:
            return spans
    return []


def compare(name: str, lines: list[str], rewrite: bool) -> None:
    """Compare a walk with its transcript, or write the transcript."""
    path = HERE / "transcripts" / f"{name}.txt"
    text = "\n".join(lines) + "\n"
    if rewrite:
        path.write_text(text)
    assert text == path.read_text(), f"{path} tells another walk; rewrite it with --rewrite"


async def test_one_trace_tells_each_walk(tmp_path: Path, rewrite: bool) -> None:
    """A batch from source to sink and a command to its assignment are one trace each."""
    async with TraceReceiver() as receiver:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "NUMBERS_COUNT": "200",
            "APPEND_OUTPUT": str(tmp_path / "delivered.txt"),
            "HEARTBEAT_INTERVAL_SECS": "1",
        }
        async with deployed(tmp_path, environment=environment) as running:
            for name, script in SERVICES.items():
                running.cluster.add_service(name, [sys.executable, str(HERE / "apps" / script)])
            running.cluster.start()
            await running.wait_for_services(len(SERVICES))
            await running.apply(PIPELINE)
            await running.wait_for_phase("numbers", "Completed")
            await wait_until(
                lambda: bool(find(receiver, "conveyor.write", "conveyor.read")), "the batch's trace"
            )
            await wait_until(
                lambda: bool(find(receiver, "conveyor apply", "conveyor.router/plan")),
                "the command's trace",
            )
        # Everything was stopped, so everything was exported.
        batch = find(receiver, "conveyor.write", "conveyor.read")
        command = find(receiver, "conveyor apply", "conveyor.router/plan")
    compare("batch", walk(batch), rewrite)
    compare("command", walk(command), rewrite)
