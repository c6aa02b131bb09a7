"""Prometheus metrics and readiness on one small HTTP port.

``/metrics`` reads the engine's and the shell's own statistics at the moment of the scrape; nothing
is counted twice and nothing is counted for Prometheus alone. ``/healthz`` answers while the event
loop turns. ``/readyz`` is 200 once the sidecar has a table and until it begins to drain.

The server is plain asyncio: three fixed paths, one request per connection, bounded in size, time
and number, so that it can neither block the data plane nor be used against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from conveyor_sidecar.core.statistics import EngineStatistics
from conveyor_sidecar.errors import BindError

logger = logging.getLogger(__name__)

_REQUEST_BYTES_MAX = 8 * 1024
_REQUEST_TIMEOUT_S = 5.0
_CONNECTIONS_MAX = 32

_STAGE_COUNTERS = {
    "read": "Records read from the source.",
    "received": "Records received on lanes, repeated frames not counted.",
    "called": "Records handed to the service, retries included.",
    "emitted": "Records given to out-edges.",
    "written": "Records accepted by the sink.",
    "filtered": "Records that a transform ended without an output.",
    "dead": "Records stored as dead letters.",
    "unrouted": "Outputs that no out-edge took.",
    "retried": "Deliveries that were put off.",
    "duplicates": "Records recognised as already written or under way.",
    "superseded": "Records of an older owner of their partition.",
    "calls_failed": "Calls without a usable answer.",
}
_GAUGES = {
    "records": "Un-ended records held, those ended above a low mark included.",
    "bytes": "Bytes of frames retained.",
    "calls": "Calls to services under way.",
    "waiting_records": "Received records that wait for a service.",
    "uncommitted": "Ended records whose position is not committed.",
    "dead_letters_pending": "Dead letters on their way to the disk.",
    "table_revision": "Revision of the table in force.",
}


class EngineCollector(Collector):
    """Turns statistics into metrics when somebody scrapes."""

    def __init__(
        self,
        engine: Callable[[], EngineStatistics | None],
        shell: Callable[[], dict[str, float]],
    ) -> None:
        self._engine = engine
        self._shell = shell

    def collect(self) -> Iterable[Metric]:
        """The metrics of this moment."""
        for name, value in self._shell().items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            plain = name.removesuffix("_total").replace("_", " ")
            yield kind(f"conveyor_sidecar_{name}", f"The sidecar's {plain}.", value=value)
        statistics = self._engine()
        if statistics is None:
            return
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(
                f"conveyor_sidecar_{name}", text, value=float(getattr(statistics, name))
            )
        for name, text in _STAGE_COUNTERS.items():
            family = CounterMetricFamily(
                f"conveyor_stage_records_{name}", text, labels=("pipeline", "stage")
            )
            for (pipeline, stage), counters in statistics.stages.items():
                family.add_metric((pipeline, stage), float(getattr(counters, name)))
            yield family
        lanes = GaugeMetricFamily(
            "conveyor_lane_retained_bytes",
            "Bytes of frames on an outgoing lane that are not done.",
            labels=("pipeline", "edge", "consumer", "peer"),
        )
        for lane in statistics.lanes:
            lanes.add_metric(
                (lane.pipeline, lane.edge, str(lane.consumer), lane.peer), lane.retained_bytes
            )
        yield lanes


class MetricsServer:
    """Serves ``/metrics``, ``/healthz`` and ``/readyz``."""

    def __init__(self, registry: CollectorRegistry, ready: Callable[[], bool]) -> None:
        self._registry = registry
        self._ready = ready
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self, host: str, port: int) -> int:
        """Bind and serve; returns the port.

        Raises:
            BindError: the address is taken or not ours.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, host, port, limit=_REQUEST_BYTES_MAX
            )
        except OSError as error:
            raise BindError(
                f"metrics cannot be served on {host}:{port}: {error.strerror}; set METRICS_PORT "
                "to a free port"
            ) from error
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= _CONNECTIONS_MAX:
                async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (
            OSError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ) as error:
            logger.debug("a request for metrics was dropped: %r", error)
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"only GET\n")
        if path == b"/metrics":
            return _response("200 OK", generate_latest(self._registry), CONTENT_TYPE_LATEST)
        if path == b"/healthz":
            return _response("200 OK", b"ok\n")
        if path == b"/readyz":
            if self._ready():
                return _response("200 OK", b"ready\n")
            return _response("503 Service Unavailable", b"no table yet, or draining\n")
        return _response("404 Not Found", b"/metrics, /healthz and /readyz are here\n")


def _response(status: str, body: bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
