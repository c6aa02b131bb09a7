"""Metrics and readiness over real HTTP, with bad requests among them."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from conveyor_sidecar.core.statistics import EngineStatistics, LaneStatistics, StageCounters
from conveyor_sidecar.errors import BindError
from conveyor_sidecar.metrics import EngineCollector, MetricsServer

STATISTICS = EngineStatistics(
    records=7,
    lanes=[LaneStatistics("default/p", "a>b", 0, 1, "peer", True, False, 2, 99)],
    stages={("default/p", "work"): StageCounters(called=12, dead=1)},
)


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.asyncio
async def test_metrics_health_and_readiness() -> None:
    """The engine's numbers, and ready only with a table."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: STATISTICS, lambda: {"links_in": 3, "x_total": 1}))
    ready = [False]
    server = MetricsServer(registry, lambda: ready[0])
    port = await server.start("127.0.0.1", 0)
    page = (await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")).decode()
    assert "conveyor_sidecar_records 7.0" in page
    assert "conveyor_sidecar_links_in 3.0" in page
    assert 'conveyor_stage_records_called_total{pipeline="default/p",stage="work"} 12.0' in page
    assert 'edge="a>b"' in page
    assert b"503" in await ask(port, b"GET /readyz HTTP/1.1\r\n\r\n")
    ready[0] = True
    assert b"200 OK" in await ask(port, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert b"200 OK" in await ask(port, b"GET /healthz?x=1 HTTP/1.1\r\n\r\n")
    assert b"404" in await ask(port, b"GET /secret HTTP/1.1\r\n\r\n")
    assert b"405" in await ask(port, b"POST /metrics HTTP/1.1\r\n\r\n")
    assert await ask(port, b"GET /" + b"x" * 20_000 + b"\r\n\r\n") == b""
    with pytest.raises(BindError, match="METRICS_PORT"):
        await MetricsServer(registry, lambda: True).start("127.0.0.1", port)
    await server.stop()


def test_without_an_engine_there_are_only_the_shells_numbers() -> None:
    """Before the first registration nothing is known of records."""
    collector = EngineCollector(lambda: None, lambda: {"registered": 0})
    assert [metric.name for metric in collector.collect()] == ["conveyor_sidecar_registered"]
