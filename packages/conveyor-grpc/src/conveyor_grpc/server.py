"""A gRPC server as Conveyor wants every one of its servers to be.

- `grpc.so_reuseport=0`: by default two processes may bind one port and Linux deals calls out
  between them; here the second process gets an error.
- Pending-request limits far above grpc's: at about a thousand not yet dispatched calls it cancels
  some of them at random. Ours are bounded by the interceptors, which answer that they are busy.
- Message size, keepalive and the pings that clients may send come from settings.
- Health (the whole process under "", which says alive; each service by its name, which says ready),
  reflection, and the interceptors are always there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from conveyor_grpc.errors import ListenError
from conveyor_grpc.interceptors import (
    CALLS_MAX,
    STREAMS_MAX,
    CallStatistics,
    server_interceptors,
)

PENDING_MAX = 65_536


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What settings decide about a server."""

    message_bytes_max: int = 16 * 1024 * 1024
    keepalive_interval_s: int = 30
    calls_max: int = CALLS_MAX
    streams_max: int = STREAMS_MAX
    credentials: grpc.ServerCredentials | None = field(default=None, repr=False)

    def arguments(self) -> list[tuple[str, int]]:
        """Return the channel arguments of grpc."""
        return [
            ("grpc.so_reuseport", 0),
            ("grpc.server.max_pending_requests", PENDING_MAX),
            ("grpc.server.max_pending_requests_hard_limit", PENDING_MAX),
            ("grpc.max_send_message_length", self.message_bytes_max),
            ("grpc.max_receive_message_length", self.message_bytes_max),
            ("grpc.keepalive_time_ms", self.keepalive_interval_s * 1000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.http2.max_ping_strikes", 0),
        ]


class Server:
    """A server with health and reflection: add services, start, say when it is ready, stop."""

    def __init__(
        self,
        listen_address: str,
        options: ServerOptions | None = None,
        *,
        extra_interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        """Prepare; nothing is bound yet.

        Args:
            listen_address: `host:port`; port 0 takes a free one.
            options: bounds and credentials.
            extra_interceptors: run inside of Conveyor's own.
        """
        self.options = options or ServerOptions()
        self._listen_address = listen_address
        self._extra = tuple(extra_interceptors)
        self._services: list[str] = []
        self.statistics = CallStatistics()
        self._health = health.aio.HealthServicer()
        self._port: int | None = None
        self._server: grpc.aio.Server | None = None

    def open(self) -> grpc.aio.Server:
        """Return the grpc server to which `add_..._to_server` functions add services."""
        if self._server is None:
            own = server_interceptors(
                self.statistics,
                calls_max=self.options.calls_max,
                streams_max=self.options.streams_max,
            )
            self._server = grpc.aio.server(
                interceptors=[*own, *self._extra], options=self.options.arguments()
            )
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        return self._server

    def offers(self, names: Iterable[str]) -> None:
        """Name the services that were added, for reflection and readiness."""
        self._services.extend(names)

    @property
    def address(self) -> str:
        """The bound address, `host:port`; before `bind` the one to bind."""
        if self._port is None:
            return self._listen_address
        return f"{self._listen_address.rpartition(':')[0]}:{self._port}"

    async def bind(self) -> str:
        """Take the port, so that others can be told the address before services are added.

        Raises:
            ListenError: the address is taken, or not one of this machine's.
        """
        server = self.open()
        try:
            if self.options.credentials is None:
                self._port = server.add_insecure_port(self._listen_address)
            else:
                self._port = server.add_secure_port(self._listen_address, self.options.credentials)
        except RuntimeError as error:
            await server.stop(None)
            raise ListenError(
                f"cannot listen on {self._listen_address}: the port is taken by another process,"
                " or the address is not one of this machine's; stop the other process or choose"
                " another address"
            ) from error
        return self.address

    async def start(self) -> None:
        """Serve, after `bind` if that was not done. Readiness starts as not serving."""
        if self._port is None:
            await self.bind()
        server = self.open()
        reflected = [*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(reflected, server)
        await self.set_ready(False)
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        await server.start()

    async def set_ready(self, ready: bool) -> None:
        """Say through health whether the services can do their work."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if ready
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in self._services:
            await self._health.set(name, status)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, give those under way `grace_s`, end. Safe to call twice."""
        if self._server is None:
            return
        server, self._server = self._server, None
        await self._health.enter_graceful_shutdown()
        await server.stop(grace_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
