"""What runs beside this sidecar, kept current: scan, compare, tell.

The scanner says what is there; here it is remembered what was there, so that a change is told once,
together with the processes that went or were replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from conveyor_sidecar.discovery.port_scan import PortScanner
from conveyor_sidecar.discovery.reflection import FoundProcess

Processes = tuple[FoundProcess, ...]


class Surroundings:
    """The processes of ours beside this sidecar."""

    def __init__(
        self,
        scanner: PortScanner,
        *,
        interval_s: float,
        changed: Callable[[Processes], None],
        after_round: Callable[[], Awaitable[None]],
    ) -> None:
        """Prepare; nothing is scanned yet.

        Args:
            scanner: Looks at the ports.
            interval_s: Pause between rounds.
            changed: Called after the first round and after each one that found something else,
                with the processes that are gone or replaced.
            after_round: Awaited after each round.
        """
        self._scanner = scanner
        self._interval_s = interval_s
        self._changed = changed
        self._after_round = after_round
        self.processes: Processes = ()

    async def watch(self) -> None:
        """Scan at once and then each interval, until cancelled."""
        first = True
        while True:
            found = await self._scanner.scan()
            if first or found != self.processes:
                present = set(found)
                gone = tuple(process for process in self.processes if process not in present)
                self.processes, first = found, False
                self._changed(gone)
            await self._after_round()
            await asyncio.sleep(self._interval_s)
