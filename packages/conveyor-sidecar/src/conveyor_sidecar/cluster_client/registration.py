"""Registration: telling the routers who this sidecar is and what runs beside it.

A registration is whole: it replaces the sidecar's services in one step, so it is sent again
whenever the scan found something else, and whenever the routers say that they do not know this
sidecar. What another living sidecar registered first is left out by them and named in the answer;
that is reported once per holder and does not hold up the rest.

Services are named ``<sidecar id>/<port>/<name>``, which stays the same over restarts of either
process. A process without ``ServiceInfo`` is registered once for each kind that it lists, named
``<kind>-<port>``, with what reflection showed, so that a document can bind it by ``match``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from conveyor_grpc.clients import SidecarClient
from conveyor_grpc.wire import registry_pb2, table_pb2
from conveyor_grpc.wire import sidecar_pb2 as wire
from conveyor_sdk.wire import info_pb2
from conveyor_sidecar.core.options import EngineOptions
from conveyor_sidecar.discovery import DescribedService, FoundProcess

logger = logging.getLogger(__name__)

_KIND = {
    "source": info_pb2.KIND_SOURCE,
    "transform": info_pb2.KIND_TRANSFORM,
    "sink": info_pb2.KIND_SINK,
    "lookup": info_pb2.KIND_LOOKUP,
}
_GRPC_SERVICES_MAX = 64
_GRPC_SERVICE_CHARACTERS_MAX = 253


@dataclass(frozen=True, slots=True)
class SidecarIdentity:
    """What a registration says of the sidecar itself."""

    sidecar_id: str
    boot_id: str
    pod_name: str = "unknown"
    namespace: str = "default"
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Registrar:
    """Registers, and remembers what was registered and what was refused."""

    def __init__(self, client: SidecarClient, identity: SidecarIdentity) -> None:
        self._client = client
        self._identity = identity
        self._withdrawn: dict[str, str] = {}
        self._registered_s = 0.0
        self.conflicts: dict[str, str] = {}
        self.registrations_total = 0

    def withdraw(self, service_id: str, reason: str) -> None:
        """From the next registration on, the service is unhealthy for this reason."""
        self._withdrawn[service_id] = reason

    def restore(self, service_id: str) -> bool:
        """The service's process was replaced; True if it had been withdrawn."""
        return self._withdrawn.pop(service_id, None) is not None

    @property
    def age_s(self) -> float:
        """Time since the latest registration."""
        return asyncio.get_running_loop().time() - self._registered_s

    async def register(
        self, endpoint: str, processes: Iterable[FoundProcess]
    ) -> wire.RegisterSidecarResponse:
        """Replace what the routers know of this sidecar.

        Raises:
            ControlError: it is not known to have happened; send it again.
        """
        identity = self._identity
        services = [
            service for found in processes for service in local_services(identity.sidecar_id, found)
        ]
        for service in services:
            reason = self._withdrawn.get(service.service_id)
            if reason is not None:
                service.health = registry_pb2.SERVICE_HEALTH_UNHEALTHY
                service.reason = reason[:256]
        response = await self._client.register_sidecar(
            wire.RegisterSidecarRequest(
                sidecar_id=identity.sidecar_id,
                boot_id=identity.boot_id,
                endpoint=endpoint,
                pod_name=identity.pod_name,
                namespace=identity.namespace,
                labels=identity.labels,
                version=identity.version,
                services=services,
            )
        )
        self.registrations_total += 1
        self._registered_s = asyncio.get_running_loop().time()
        logger.info(
            "registered at revision %d with %d services",
            response.revision,
            len(services) - len(response.conflicts),
        )
        self._note_conflicts(response.conflicts)
        return response

    def _note_conflicts(self, conflicts: Iterable[wire.ServiceConflict]) -> None:
        present = {item.service_id: item.held_by_sidecar_id for item in conflicts}
        for item_id, holder in present.items():
            if self.conflicts.get(item_id) != holder:
                logger.warning(
                    "service %s is already registered by sidecar %s, which keeps it; "
                    "narrow DISCOVERY_START_PORT..DISCOVERY_END_PORT of one of the two",
                    item_id,
                    holder,
                )
        self.conflicts = present


def service_id(sidecar_id: str, endpoint: str, name: str) -> str:
    """The id of a local service: the same over restarts of service and sidecar."""
    return f"{sidecar_id}/{endpoint.rpartition(':')[2]}/{name}"


def local_services(sidecar_id: str, found: FoundProcess) -> list[wire.LocalService]:
    """What one process contributes to a registration."""
    listed = [name for name in found.listed if len(name) <= _GRPC_SERVICE_CHARACTERS_MAX]
    if found.described:
        return [
            wire.LocalService(
                service_id=service_id(sidecar_id, found.endpoint, service.name),
                description=description(service),
                endpoint=found.endpoint,
                grpc_services=listed[:_GRPC_SERVICES_MAX],
            )
            for service in found.services
        ]
    port = found.endpoint.rpartition(":")[2]
    return [
        wire.LocalService(
            service_id=service_id(sidecar_id, found.endpoint, kind),
            description=info_pb2.ServiceDescription(name=f"{kind}-{port}", kind=_KIND[kind]),
            endpoint=found.endpoint,
            grpc_services=listed[:_GRPC_SERVICES_MAX],
            undescribed=True,
        )
        for kind in found.kinds
    ]


def description(service: DescribedService) -> info_pb2.ServiceDescription:
    """A service's own description, as it goes to the routers."""
    message = info_pb2.ServiceDescription(
        name=service.name,
        kind=_KIND[service.kind],
        version=service.version,
        labels=dict(service.labels),
        batch_records_max=service.batch_records_max,
        batch_bytes_max=service.batch_bytes_max,
        concurrency_max=service.concurrency_max,
        partitions=service.partitions,
        stable_offsets=service.stable_offsets,
        bounded=service.bounded,
        idempotent=service.idempotent,
        transactional=service.transactional,
    )
    if service.call_timeout_ms:
        message.call_timeout.FromMilliseconds(service.call_timeout_ms)
    return message


def with_limits(options: EngineOptions, limits: table_pb2.BufferLimits) -> EngineOptions:
    """The options with what the cluster hands out; unset limits keep their defaults."""
    return replace(
        options,
        records_max=limits.total_records_max or options.records_max,
        stage_records_max=limits.stage_records_max or options.stage_records_max,
        backpressure_threshold=limits.backpressure_threshold or options.backpressure_threshold,
    )


async def local_address(router: str) -> str:
    """The address of this machine on the way to a router: what others reach us under.

    Raises:
        OSError: the router's name cannot be resolved, or there is no way to it.
    """
    host, _, port = router.rpartition(":")
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    # Connecting a datagram socket sends nothing; it only chooses the route.
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        name: str = probe.getsockname()[0]
    return f"[{name}]" if ":" in name else name
