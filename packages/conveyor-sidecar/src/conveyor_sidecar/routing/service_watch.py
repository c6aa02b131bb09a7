"""Whether a local service answers: seen by its connection, not by asking.

For every service that the table assigns work to, its channel is kept connected. A connection that
stands means up; one that breaks means down, at once, and it is mended in the background with a
bounded back-off, so a service that comes back is used again without waiting for the next scan.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import grpc

from conveyor_sidecar.core.events import Event, ServiceDown, ServiceUp
from conveyor_sidecar.routing.client_pool import ClientPool
from conveyor_sidecar.routing.routing_table import LocalService

logger = logging.getLogger(__name__)

Post = Callable[[Event], None]


class ServiceWatch:
    """Reports ``ServiceUp`` and ``ServiceDown`` for the services it is given."""

    def __init__(self, pool: ClientPool, post: Post) -> None:
        self._pool = pool
        self._post = post
        self._watched: dict[str, tuple[LocalService, asyncio.Task[None]]] = {}
        self._withdrawn: dict[str, LocalService] = {}
        self._up: set[str] = set()

    def update(self, services: Mapping[str, LocalService]) -> None:
        """Watch exactly these from now on; those that changed are reported anew."""
        for service_id, (known, _) in list(self._watched.items()):
            if services.get(service_id) != known:
                self._drop(service_id, "the table no longer names it so")
        for service_id, service in services.items():
            if service_id not in self._watched and self._withdrawn.get(service_id) != service:
                self._withdrawn.pop(service_id, None)
                task = asyncio.create_task(self._watch(service), name=f"watch {service_id}")
                self._watched[service_id] = (service, task)

    def withdraw(self, service_id: str, reason: str) -> None:
        """Count a service as down until the table says something else of it."""
        entry = self._watched.get(service_id)
        if entry is not None:
            self._withdrawn[service_id] = entry[0]
            self._drop(service_id, reason)

    def restore(self, service_id: str) -> None:
        """Give a withdrawn service another chance: its process was replaced."""
        service = self._withdrawn.pop(service_id, None)
        if service is not None:
            task = asyncio.create_task(self._watch(service), name=f"watch {service_id}")
            self._watched[service_id] = (service, task)

    async def close(self) -> None:
        """Stop watching, without events."""
        tasks = [task for _, task in self._watched.values()]
        self._watched.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def up(self) -> frozenset[str]:
        """Services that answer now."""
        return frozenset(self._up)

    def _drop(self, service_id: str, reason: str) -> None:
        _, task = self._watched.pop(service_id)
        task.cancel()
        self._report(service_id, reason)

    def _report(self, service_id: str, reason: str) -> None:
        if service_id in self._up:
            self._up.discard(service_id)
            self._post(ServiceDown(service_id, reason))

    async def _watch(self, service: LocalService) -> None:
        channel = self._pool.channel(service.endpoint)
        while True:
            state = channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                # The pool closed it under us: take the one it opens instead.
                await asyncio.sleep(0)
                channel = self._pool.channel(service.endpoint)
                continue
            if state is grpc.ChannelConnectivity.READY:
                if service.service_id not in self._up:
                    self._up.add(service.service_id)
                    logger.info("service %s at %s is up", service.name, service.endpoint)
                    self._post(
                        ServiceUp(
                            service.service_id,
                            concurrency_max=service.concurrency_max,
                            batch_records_max=service.batch_records_max,
                            batch_bytes_max=service.batch_bytes_max,
                        )
                    )
            elif service.service_id in self._up:
                logger.warning("service %s at %s is down", service.name, service.endpoint)
                self._report(service.service_id, "its connection broke")
            await channel.wait_for_state_change(state)
