"""A process that serves: port, health, reflection, `Describe`, signals.

`run()` is the last line of a program: it serves every service that was declared, until SIGTERM or
SIGINT. Then health says NOT_SERVING, streams of sources are left (their sidecars resume elsewhere
or later; nothing that was sent is lost), calls in flight are finished, within the drain time, and
the process ends with status 0. A second signal ends it at once.

It binds loopback unless it is told otherwise: the sidecar is in the same pod. `grpc.so_reuseport`
is off, since with it two processes would share a port in silence.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from conveyor_sdk.definition import Service, declared_services
from conveyor_sdk.errors import ServeError
from conveyor_sdk.ports import candidate_ports, is_free
from conveyor_sdk.servicers import Handlers, InfoServicer, generic_handlers
from conveyor_sdk.wire import info_pb2, info_pb2_grpc
from conveyor_sdk.workers import Workers

DRAIN_S = 25.0
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
CONCURRENT_RPCS_MAX = 1024
LOOPBACK = "127.0.0.1"

_log = logging.getLogger(__name__)

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class Server:
    """Serves services; an async context manager.

    Args:
        services: What to serve; at least one, no two of the same kind and name.
        host: Address to listen on.
        ports: Ports to try in order; 0 is any free one.
        drain: Seconds that calls in flight have when it closes.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        host: str = LOOPBACK,
        ports: Sequence[int] = (0,),
        drain: float = DRAIN_S,
    ) -> None:
        _check(services)
        self.host = host
        self.port = 0
        self._services = list(services)
        self._ports = list(ports)
        self._drain = drain
        self.workers = Workers(self._services)

    async def __aenter__(self) -> Server:
        """Listen and serve.

        Raises:
            ServeError: No port is free.
        """
        self._server = grpc.aio.server(
            options=_OPTIONS, maximum_concurrent_rpcs=CONCURRENT_RPCS_MAX
        )
        self._handlers = Handlers(self._services, self.workers)
        implemented = generic_handlers(self._handlers)
        self._server.add_generic_rpc_handlers(tuple(implemented.values()))
        info_pb2_grpc.add_ServiceInfoServicer_to_server(InfoServicer(self._services), self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        info = info_pb2.DESCRIPTOR.services_by_name["ServiceInfo"].full_name
        names = (*implemented, info, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        for name in ("", info, *implemented):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self.port = self._bind()
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain and close."""
        await self.close(self._drain)

    async def close(self, drain: float) -> None:
        """Let calls in flight end within `drain` seconds, then close."""
        await self._health.enter_graceful_shutdown()
        self._handlers.stopping.set()
        await self._server.stop(drain)
        self.workers.close()

    def _bind(self) -> int:
        host = f"[{self.host}]" if ":" in self.host else self.host
        for port in self._ports:
            if port and not is_free(self.host, port):
                continue
            try:
                return self._server.add_insecure_port(f"{host}:{port}")
            except RuntimeError as error:
                _log.info("port %s was taken between probe and bind: %s", port, error)
        if len(self._ports) == 1:
            raise ServeError(
                f"port {self._ports[0]} of {self.host} is taken by another process; stop it or "
                "set PORT to a free one"
            )
        raise ServeError(
            f"all ports from {self._ports[0]} to {self._ports[-1]} of {self.host} are taken; "
            "stop a process, set PORT, or widen DISCOVERY_START_PORT to DISCOVERY_END_PORT for "
            "service and sidecar"
        )


def _check(services: Sequence[Service]) -> None:
    if not services:
        raise ServeError("there is nothing to serve: declare a @source, @transform or @sink first")
    seen: dict[tuple[type[Service], str], Service] = {}
    for service in services:
        first = seen.setdefault((type(service), service.name), service)
        if first is not service:
            raise ServeError(
                f"two {service.word}s are named {service.name!r}: {_place(first)} and "
                f"{_place(service)}; give one of them another name"
            )


def _place(service: Service) -> str:
    return f"{getattr(service, '__module__', '')}.{getattr(service, '__qualname__', service.name)}"


async def serve(
    *services: Service,
    host: str = LOOPBACK,
    port: int | None = None,
    drain: float = DRAIN_S,
    environ: Mapping[str, str] | None = None,
) -> Server:
    """Serve until SIGTERM or SIGINT; return the closed server.

    Args:
        *services: What to serve; by default all that were declared.
        host: Address to listen on.
        port: Port to listen on; by default `PORT`, or the first free one of the discovery range.
        drain: Seconds that calls in flight have at the end.
        environ: Environment; by default the process's.

    Raises:
        ServeError: No port is free, or there is nothing to serve.
    """
    ports = candidate_ports(os.environ if environ is None else environ) if port is None else [port]
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    again = asyncio.Event()

    def signalled() -> None:
        (again if stop.is_set() else stop).set()

    server = Server(services or declared_services(), host=host, ports=ports, drain=drain)
    async with server:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled)
        try:
            names = ", ".join(f"{s.word} {s.name}" for s in server._services)
            _log.info("serving %s on %s:%s", names, server.host, server.port)
            await stop.wait()
            _log.info("draining; at most %s s", drain)
            closing = asyncio.create_task(server.close(drain))
            impatient = asyncio.create_task(again.wait())
            await asyncio.wait({closing, impatient}, return_when=asyncio.FIRST_COMPLETED)
            if not closing.done():
                await server.close(0)
            await closing
            impatient.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
    return server


def run(
    *services: Service, host: str = LOOPBACK, port: int | None = None, drain: float = DRAIN_S
) -> None:
    """Serve until SIGTERM or SIGINT: the last line of a program. See `serve` for the arguments.

    Ends the process with status 1 and one line if it cannot serve.
    """
    if not logging.getLogger().handlers:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
    try:
        server = asyncio.run(serve(*services, host=host, port=port, drain=drain))
    except ServeError as error:
        sys.exit(f"error: {error}")
    if server.workers.busy:
        _log.warning("%s handlers have not returned; leaving without them", server.workers.busy)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(1)
