"""The way to the services beside this sidecar: who is up, unary calls, source streams.

One face over three parts, because they share what a service is: ``ServiceWatch`` (is it there),
``ServiceCalls`` (transforms, sinks, lookups) and ``SourceStreams``. Here it is also decided what
happens to a kind that its process turns out not to implement: it is withdrawn, which means down for
the engine, and unhealthy in the next registration, until the process is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from conveyor_sdk.wire import source_pb2
from conveyor_sidecar.core import effects
from conveyor_sidecar.core.events import Event
from conveyor_sidecar.core.routes import InstanceKey
from conveyor_sidecar.routing.client_pool import ClientPool
from conveyor_sidecar.routing.routing_table import LocalService, RoutingTable
from conveyor_sidecar.routing.service_calls import ServiceCalls
from conveyor_sidecar.routing.service_watch import ServiceWatch
from conveyor_sidecar.routing.source_streams import SourceStreams

logger = logging.getLogger(__name__)


class LocalRouter:
    """Performs the engine's effects on local services."""

    def __init__(
        self,
        pool: ClientPool,
        table: RoutingTable,
        post: Callable[[Event], None],
        *,
        sidecar_id: str,
        on_withdrawn: Callable[[str, str], None],
    ) -> None:
        self._on_withdrawn = on_withdrawn
        self._watch = ServiceWatch(pool, post)
        self.calls = ServiceCalls(pool, table, post, sidecar_id=sidecar_id, withdraw=self._withdraw)
        self.sources = SourceStreams(
            pool,
            table,
            post,
            sidecar_id=sidecar_id,
            withdraw=self._withdraw,
            key_hashes=self.calls.key_hashes,
        )

    def update(self, services: Mapping[str, LocalService]) -> None:
        """Take over the services of a new table."""
        self._watch.update(services)

    def restore(self, service_id: str) -> None:
        """The process behind a withdrawn service was replaced."""
        self._watch.restore(service_id)

    def open_partition(self, effect: effects.OpenPartition) -> None:
        """Ask the source to read a partition."""
        opening = source_pb2.OpenPartition(
            partition=effect.partition,
            resume=effect.resume,
            assignment_term=effect.term,
            from_start=effect.from_start,
        )
        self._send(effect.source, effect.stream, source_pb2.ReadRequest(open=opening))

    def revoke_partition(self, effect: effects.RevokePartition) -> None:
        """Ask the source to stop reading a partition."""
        revoke = source_pb2.RevokePartition(partition=effect.partition)
        self._send(effect.source, effect.stream, source_pb2.ReadRequest(revoke=revoke))

    def grant_credit(self, effect: effects.GrantSourceCredit) -> None:
        """Let the source send up to these totals."""
        request = source_pb2.ReadRequest()
        request.credit.records_limit = effect.records_limit
        request.credit.bytes_limit = effect.bytes_limit
        self._send(effect.source, effect.stream, request)

    def ended_up_to(self, effect: effects.EndedUpTo) -> None:
        """Let the source forget what is committed."""
        ended = source_pb2.Ended(partition=effect.partition, position=effect.position)
        self._send(effect.source, effect.stream, source_pb2.ReadRequest(ended=ended))

    async def close(self) -> None:
        """End everything, without events."""
        await self._watch.close()
        await self.sources.close()
        await self.calls.close()

    @property
    def up(self) -> frozenset[str]:
        """Ids of the services that answer now."""
        return self._watch.up

    def _send(self, source: InstanceKey, stream: int, request: source_pb2.ReadRequest) -> None:
        self.sources.send(source, stream, request)

    def _withdraw(self, service_id: str, reason: str) -> None:
        logger.warning("service %s is withdrawn: %s", service_id, reason)
        self._watch.withdraw(service_id, reason)
        self._on_withdrawn(service_id, reason)
