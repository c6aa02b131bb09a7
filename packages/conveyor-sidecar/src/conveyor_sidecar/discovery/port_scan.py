"""Which services live beside this sidecar: a scan of a range of local ports, every few seconds.

Services come, go and come back without telling anybody; the scan is the only source of that news.
Each round opens one TCP connection per port, all at once, and asks those that accept what they are.
The answer of a round is the whole truth as this sidecar sees it, never a difference.

Rules kept here:

* A refused connection means gone, at once. A process that accepts but does not answer in time may
  only be busy: it stays as it was for ``_MISSES_MAX`` rounds.
* Own ports (data plane, metrics) are skipped.
* A port that is not ours costs a few milliseconds per round; why it is ignored is said once, and
  again when the reason changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from conveyor_sidecar.discovery.reflection import FoundProcess, identify
from conveyor_sidecar.errors import ProbeError

logger = logging.getLogger(__name__)

_MISSES_MAX = 3
_PORTS_MAX = 1024
_AT_ONCE_MAX = 32
_HOSTS = ("127.0.0.1", "[::1]")

Identify = Callable[[str, int], Awaitable[FoundProcess]]


@dataclass(slots=True)
class _Port:
    """What is remembered of one port between rounds."""

    found: FoundProcess | None = None
    misses: int = 0
    ignored_for: str = ""


class PortScanner:
    """Scans ``start_port..end_port`` (both included) on loopback."""

    def __init__(
        self,
        start_port: int,
        end_port: int,
        *,
        skip_ports: Iterable[int] = (),
        probe_deadline_ms: int = 500,
        identify: Identify = identify,
    ) -> None:
        if end_port < start_port or end_port - start_port >= _PORTS_MAX:
            raise ValueError(
                f"DISCOVERY_START_PORT..DISCOVERY_END_PORT is {start_port}..{end_port}; "
                f"it must hold between 1 and {_PORTS_MAX} ports"
            )
        skipped = set(skip_ports)
        self._ports = {
            port: _Port() for port in range(start_port, end_port + 1) if port not in skipped
        }
        self._probe_deadline_ms = probe_deadline_ms
        self._identify = identify
        self._slots = asyncio.Semaphore(_AT_ONCE_MAX)
        self.rounds_total = 0

    async def scan(self) -> tuple[FoundProcess, ...]:
        """One round over all ports; returns every process of ours that is there, by port."""
        async with asyncio.TaskGroup() as group:
            for port, state in self._ports.items():
                group.create_task(self._probe(port, state))
        self.rounds_total += 1
        return tuple(state.found for state in self._ports.values() if state.found is not None)

    async def _probe(self, port: int, state: _Port) -> None:
        async with self._slots:
            try:
                host = await self._open_host(port)
                if host is None:
                    self._gone(port, state)
                    return
                found = await self._identify(f"{host}:{port}", self._probe_deadline_ms)
            except (ProbeError, TimeoutError) as error:
                self._missed(port, state, str(error) or "it accepts no connection in time")
                return
        if state.found is None:
            logger.info("found %s at %s", _names(found), found.endpoint)
        state.found, state.misses, state.ignored_for = found, 0, ""

    async def _open_host(self, port: int) -> str | None:
        """The loopback address on which somebody accepts; None when every one refuses."""
        for host in _HOSTS:
            try:
                async with asyncio.timeout(self._probe_deadline_ms / 1000):
                    _, writer = await asyncio.open_connection(host.strip("[]"), port)
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise
                continue
            writer.transport.abort()
            return host
        return None

    def _gone(self, port: int, state: _Port) -> None:
        if state.found is not None:
            logger.info("nothing listens on port %d any more", port)
        state.found, state.misses, state.ignored_for = None, 0, ""

    def _missed(self, port: int, state: _Port, reason: str) -> None:
        state.misses += 1
        if state.found is not None:
            if state.misses < _MISSES_MAX:
                return
            logger.warning("port %d is given up: %s", port, reason)
            state.found = None
        elif reason != state.ignored_for:
            logger.info("port %d is ignored: %s", port, reason)
        state.ignored_for = reason


def _names(found: FoundProcess) -> str:
    if found.services:
        return ", ".join(f"{service.kind} {service.name}" for service in found.services)
    return "a service without ServiceInfo (" + ", ".join(found.listed) + ")"
