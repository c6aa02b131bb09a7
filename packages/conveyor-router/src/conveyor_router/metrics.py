"""What an operator's tools read from a router over HTTP: `/metrics`, `/readyz`, `/healthz`.

Only processes know Prometheus: the libraries count in plain integers, and a collector reads them
when it is asked. `/readyz` says 200 when this router knows a leader (its own or another), which
is when it can serve; `/healthz` says 200 while the process can answer at all.

The server speaks just enough HTTP/1.1 for scrapers and probes, in the process's own event loop:
one request per connection, bounded in size, time and number.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from conveyor_grpc.errors import ListenError
from conveyor_grpc.interceptors import CallStatistics
from conveyor_grpc.services.control_plane import ControlPlane

REQUEST_BYTES_MAX = 8 * 1024
REQUEST_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 64
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class RouterCollector(Collector):
    """Reads a router's numbers at the moment of a scrape."""

    def __init__(self, plane: ControlPlane, calls: CallStatistics) -> None:
        self._plane = plane
        self._calls = calls

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        plane, status = self._plane, self._plane.node.status()
        gauges = {
            "conveyor_router_has_leader": ("Whether a leader is known", has_leader(plane)),
            "conveyor_router_is_leader": ("Whether this router leads", plane.leading),
            "conveyor_raft_term": ("Raft term", status.term),
            "conveyor_raft_last_log_index": ("Index of the last log entry", status.last_index),
            "conveyor_raft_commit_index": ("Index up to which is agreed", status.commit_index),
            "conveyor_raft_applied_index": ("Index up to which is applied", status.applied_index),
            "conveyor_raft_snapshot_index": ("Index of the snapshot", status.snapshot_index),
            "conveyor_raft_members": ("Members of the cluster", len(status.members)),
            "conveyor_router_revision": ("State revision", plane.feed.revision.value),
            "conveyor_router_held_expiries": (
                "Sidecar expiries held back by the guard",
                len(plane.liveness.held),
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=float(value))
        for name, count in sorted(plane.node.statistics().items()):
            yield CounterMetricFamily(f"conveyor_raft_{name}", f"Raft: {name}", value=float(count))
        yield from self._state_metrics()
        yield from self._call_metrics()

    def _state_metrics(self) -> Iterator[Metric]:
        state = self._plane.feed.state
        counted = {
            ("pipelines", "phase"): Counter(one.phase.value for one in state.pipelines.values()),
            ("sidecars", "health"): Counter(one.health.value for one in state.sidecars.values()),
            ("services", "health"): Counter(one.health.value for one in state.services.values()),
        }
        for (what, label), counts in counted.items():
            text = f"Recorded {what} by {label}"
            gauge = GaugeMetricFamily(f"conveyor_router_{what}", text, labels=[label])
            for value, count in sorted(counts.items()):
                gauge.add_metric([value], count)
            yield gauge

    def _call_metrics(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "conveyor_grpc_calls", "Calls answered, by method and code", labels=["method", "code"]
        )
        for (method, code), count in sorted(self._calls.calls.items()):
            calls.add_metric([method, code], count)
        yield calls
        seconds = CounterMetricFamily(
            "conveyor_grpc_call_seconds", "Time spent in unary calls", labels=["method"]
        )
        for method, spent in sorted(self._calls.seconds.items()):
            seconds.add_metric([method], spent)
        yield seconds


def has_leader(plane: ControlPlane) -> bool:
    """Tell whether this router can serve: it leads and has caught up, or knows who leads."""
    node = plane.node
    return plane.leading if node.is_leader else node.leader_id is not None


class StatusPages:
    """The HTTP server; use it as a context manager."""

    def __init__(self, listen_address: str, plane: ControlPlane, calls: CallStatistics) -> None:
        host, _, port = listen_address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._plane = plane
        self._registry = CollectorRegistry()
        self._registry.register(RouterCollector(plane, calls))
        ProcessCollector(registry=self._registry)
        self._open = 0
        self._server: asyncio.Server | None = None
        self._pages: dict[str, Callable[[], tuple[int, bytes]]] = {
            "/metrics": lambda: (200, generate_latest(self._registry)),
            "/readyz": self._ready,
            "/healthz": lambda: (200, b"ok\n"),
        }

    @property
    def address(self) -> str:
        """The bound address."""
        if self._server is None:
            return f"{self._host}:{self._port}"
        return f"{self._host}:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._port, limit=REQUEST_BYTES_MAX
            )
        except OSError as error:
            raise ListenError(
                f"cannot serve metrics on {self.address}: {error.strerror or error};"
                " choose another metrics.listen_addr"
            ) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()

    def _ready(self) -> tuple[int, bytes]:
        if has_leader(self._plane):
            return 200, b"ready\n"
        return 503, b"no leader is known\n"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    await self._answer(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that is slow, gone or garbled gets no answer
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            code, body = 405, b"only GET\n"
        elif path in self._pages:
            code, body = self._pages[path]()
        else:
            code, body = 404, ("try " + ", ".join(self._pages) + "\n").encode()
        writer.write(
            f"HTTP/1.1 {code} {_PHRASES[code]}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + (b"" if method == "HEAD" else body)
        )
        await writer.drain()


_PHRASES = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
