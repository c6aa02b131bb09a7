"""What a registration says of the services found, and how refusals are reported."""

from __future__ import annotations

import pytest

from conveyor_grpc.wire import registry_pb2
from conveyor_grpc.wire import sidecar_pb2 as wire
from conveyor_sdk.wire import info_pb2
from conveyor_sidecar.cluster_client import Registrar, SidecarIdentity
from conveyor_sidecar.cluster_client.registration import local_address, local_services
from conveyor_sidecar.discovery import DescribedService, FoundProcess

FOUND = FoundProcess(
    endpoint="127.0.0.1:50053",
    listed=("conveyor.service.v1.Sink", "acme.Store"),
    described=True,
    services=(
        DescribedService(
            name="store",
            kind="sink",
            labels=(("team", "data"),),
            idempotent=True,
            call_timeout_ms=5,
        ),
    ),
)


class Client:
    """Answers registrations with the conflicts it is given."""

    def __init__(self, *conflicts: wire.ServiceConflict) -> None:
        self.conflicts = conflicts
        self.requests: list[wire.RegisterSidecarRequest] = []

    async def register_sidecar(self, request):
        self.requests.append(request)
        return wire.RegisterSidecarResponse(revision=3, conflicts=self.conflicts)


def test_a_described_process_is_registered_as_it_says() -> None:
    """All of Describe reaches the routers, under an id that outlives restarts."""
    (service,) = local_services("me", FOUND)
    assert service.service_id == "me/50053/store"
    assert service.description.idempotent
    assert dict(service.description.labels) == {"team": "data"}
    assert service.description.call_timeout.ToMilliseconds() == 5
    assert list(service.grpc_services) == ["conveyor.service.v1.Sink", "acme.Store"]


def test_a_process_without_service_info_is_registered_per_kind_for_a_document_to_bind() -> None:
    """Only the kind and what reflection lists are known."""
    names = ("acme.X", "conveyor.service.v1.Sink", "conveyor.service.v1.Source")
    first, second = local_services("me", FoundProcess("127.0.0.1:9", names))
    assert (first.service_id, second.service_id) == ("me/9/source", "me/9/sink")
    assert first.undescribed
    assert first.description.name == "source-9"
    assert first.description.kind == info_pb2.KIND_SOURCE
    assert list(first.grpc_services) == list(names)


@pytest.mark.asyncio
async def test_a_conflict_is_reported_once_per_holder(caplog) -> None:
    """The first registration wins; the second sidecar says so, and not every five seconds."""
    conflict = wire.ServiceConflict(service_id="me/50053/store", held_by_sidecar_id="other")
    registrar = Registrar(Client(conflict), SidecarIdentity("me", "b1"))  # type: ignore[arg-type]
    for _ in range(3):
        await registrar.register("127.0.0.1:1", [FOUND])
    assert sum("already registered by sidecar other" in line for line in caplog.messages) == 1
    assert registrar.conflicts == {"me/50053/store": "other"}


@pytest.mark.asyncio
async def test_a_withdrawn_service_is_registered_as_unhealthy_until_it_is_restored() -> None:
    """What turned out not to be implemented is named with its reason."""
    client = Client()
    registrar = Registrar(client, SidecarIdentity("me", "b1"))  # type: ignore[arg-type]
    registrar.withdraw("me/50053/store", "not implemented")
    await registrar.register("127.0.0.1:1", [FOUND])
    (service,) = client.requests[-1].services
    assert service.health == registry_pb2.SERVICE_HEALTH_UNHEALTHY
    assert service.reason == "not implemented"
    assert registrar.restore("me/50053/store")
    await registrar.register("127.0.0.1:1", [FOUND])
    assert not client.requests[-1].services[0].reason


@pytest.mark.asyncio
async def test_the_local_address_is_the_one_on_the_way_to_the_router() -> None:
    """Nothing is sent to find it out."""
    assert await local_address("127.0.0.1:50051") == "127.0.0.1"
