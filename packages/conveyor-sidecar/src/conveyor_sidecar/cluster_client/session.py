"""The standing conversation with the routers: register, watch the table, send heartbeats.

Three loops, none of which ever gives up, because the data plane goes on without routers and has
to be found again when they are back. Failures are logged when they begin and when they end, not
each time. What is to be done is decided by the one reducer (``Assignments``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from conveyor_grpc.clients import SidecarClient
from conveyor_grpc.errors import ControlError, NotFoundError
from conveyor_grpc.wire import sidecar_pb2 as wire
from conveyor_grpc.wire import table_pb2
from conveyor_sidecar.cluster_client.assignments import (
    Action,
    Assignments,
    Register,
    Rewatch,
    SwapTable,
)
from conveyor_sidecar.cluster_client.registration import Registrar, SidecarIdentity
from conveyor_sidecar.discovery import FoundProcess

logger = logging.getLogger(__name__)

_RETRY_MIN_S, _RETRY_MAX_S = 0.2, 3.0
_REGISTRATION_PAUSE_S = 0.2
_FORGOTTEN_MAX, _FORGOTTEN_S = 5, 60.0
_EXTRA_HEARTBEAT_S = (0.05, 0.25)


class ClusterSession:
    """Keeps this sidecar known to the routers and its table current."""

    def __init__(
        self,
        client: SidecarClient,
        identity: SidecarIdentity,
        registrar: Registrar,
        *,
        heartbeat_interval_s: float,
        endpoint: Callable[[], Awaitable[str]],
        processes: Callable[[], Iterable[FoundProcess]],
        heartbeat: Callable[[int], wire.SidecarHeartbeatRequest],
        on_registered: Callable[[wire.RegisterSidecarResponse], None],
        on_table: Callable[[table_pb2.SidecarTable], None],
    ) -> None:
        self._client = client
        self._identity = identity
        self._registrar = registrar
        self._heartbeat_interval_s = heartbeat_interval_s
        self._endpoint = endpoint
        self._processes = processes
        self._heartbeat = heartbeat
        self._on_registered = on_registered
        self._on_table = on_table
        self._wanted = asyncio.Event()
        self._registered = asyncio.Event()
        self._rewatch = asyncio.Event()
        self._counters_wanted = asyncio.Event()
        self._forget = False
        self._forgotten_s: deque[float] = deque(maxlen=_FORGOTTEN_MAX)
        self._troubles: dict[str, str] = {}
        self.assignments = Assignments(identity.sidecar_id, identity.boot_id)

    @property
    def is_registered(self) -> bool:
        """Whether a registration was ever accepted in this life."""
        return self._registered.is_set()

    def register_soon(self) -> None:
        """What runs beside the sidecar has changed: send the registration again."""
        self._wanted.set()

    def heartbeat_soon(self) -> None:
        """Something came to an end: let the routers have the counters without delay."""
        self._counters_wanted.set()

    async def run(self) -> None:
        """Talk to the routers until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._register_loop(), name="register")
            group.create_task(self._watch_loop(), name="watch table")
            group.create_task(self._heartbeat_loop(), name="heartbeat")

    async def leave(self, timeout_s: float) -> None:
        """Deregister, if the routers answer in time; otherwise the lease ends by itself."""
        identity = self._identity
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.deregister_sidecar(identity.sidecar_id, identity.boot_id)
        except (ControlError, TimeoutError) as error:
            logger.warning("could not deregister, the lease will end by itself: %s", error)

    async def announce_drain(self, timeout_s: float) -> None:
        """Ask the routers to take the assignments away, if they answer in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.drain_sidecar(self._identity.sidecar_id, "the sidecar stops")
        except (ControlError, TimeoutError) as error:
            logger.warning("could not announce the drain: %s", error)

    async def _register_loop(self) -> None:
        pause = _RETRY_MIN_S
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                response = await self._registrar.register(await self._endpoint(), self._processes())
            except (ControlError, OSError) as error:
                self._trouble("registration", error)
                self._wanted.set()
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
                pause = min(pause * 2, _RETRY_MAX_S)
                continue
            pause = _RETRY_MIN_S
            self._well("registration")
            self.assignments.on_registered(response.revision)
            self._on_registered(response)
            self._registered.set()
            await asyncio.sleep(_REGISTRATION_PAUSE_S)

    async def _watch_loop(self) -> None:
        await self._registered.wait()
        while True:
            self._rewatch.clear()
            known = 0 if self._forget else self.assignments.revision_applied
            self._forget = False
            watching = asyncio.create_task(self._watch(known))
            interrupted = asyncio.create_task(self._rewatch.wait())
            try:
                await asyncio.wait((watching, interrupted), return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    watching.result()
            finally:
                for task in (watching, interrupted):
                    task.cancel()
                await asyncio.wait((watching, interrupted))

    async def _watch(self, revision_known: int) -> None:
        identity = self._identity
        stream = self._client.watch_table(identity.sidecar_id, identity.boot_id, revision_known)
        try:
            async for update in stream:
                self._perform(self.assignments.on_update(update))
        finally:
            await stream.aclose()

    async def _heartbeat_loop(self) -> None:
        await self._registered.wait()
        while True:
            try:
                response = await self._client.heartbeat(
                    self._heartbeat(self.assignments.revision_applied)
                )
            except NotFoundError as error:
                self._perform([Register(str(error))])
            except ControlError as error:
                self._trouble("heartbeat", error)
            else:
                self._well("heartbeat")
                self._perform(self.assignments.on_heartbeat(response))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_interval_s):
                    await self._counters_wanted.wait()
                    # Not all sidecars of a cluster in the same moment, and not many in a row.
                    await asyncio.sleep(random.uniform(*_EXTRA_HEARTBEAT_S))
            self._counters_wanted.clear()

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case SwapTable(table):
                    self._on_table(table)
                    self.heartbeat_soon()
                case Register(reason):
                    logger.info("registering again: %s", reason)
                    self._note_forgotten()
                    self._wanted.set()
                case Rewatch(reason, forget):
                    logger.info("watching the table anew: %s", reason)
                    self._forget = self._forget or forget
                    self._rewatch.set()

    def _note_forgotten(self) -> None:
        """Being forgotten over and over means that somebody else registers under our id."""
        now = asyncio.get_running_loop().time()
        self._forgotten_s.append(now)
        if len(self._forgotten_s) == _FORGOTTEN_MAX and now - self._forgotten_s[0] < _FORGOTTEN_S:
            self._forgotten_s.clear()
            logger.warning(
                "the routers forgot sidecar %s %d times within a minute: another process seems to "
                "use the same id; give each sidecar its own SIDECAR_ID",
                self._identity.sidecar_id,
                _FORGOTTEN_MAX,
            )

    def _trouble(self, what: str, error: Exception) -> None:
        if what not in self._troubles:
            logger.warning("%s fails and is repeated: %s", what, error)
        self._troubles[what] = str(error)

    def _well(self, what: str) -> None:
        if self._troubles.pop(what, None) is not None:
            logger.info("%s works again", what)
