"""A real router process, the command inside this one, and a cluster with something in it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from conveyor_cli.main import cli
from conveyor_cli.processes import LocalCluster, wait_until
from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.clients import RegistryClient, RouterAdminClient, SidecarClient
from conveyor_grpc.errors import ControlError
from conveyor_grpc.wire import sidecar_pb2
from conveyor_sdk.wire.info_pb2 import (
    KIND_SINK,
    KIND_SOURCE,
    KIND_TRANSFORM,
    Kind,
    ServiceDescription,
)

Run = Callable[..., Result]

PIPELINE = """\
apiVersion: conveyor/v1
kind: Pipeline
metadata: {name: flights}
spec:
  source: flights
  steps:
    - enrich
  sink: warehouse
"""


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a router, a cluster of one, in a process of its own."""
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        routers = cluster.add_routers(1)
        cluster.start()

        async def leads() -> bool:
            async with LeaderChannel([cluster.endpoints]) as channel:
                try:
                    await RouterAdminClient(channel, timeout_s=1.0).list("Pipeline")
                except ControlError:
                    return False
                return True

        asyncio.run(wait_until(leads, "a leader", needs=routers))
        yield cluster.endpoints


@pytest.fixture(scope="session")
def run(endpoint: str) -> Run:
    """Run ``conveyor`` with arguments against the router; the output has no colours."""

    def invoke(*arguments: str, stdin: str | None = None, code: int = 0, **env: str) -> Result:
        environment = {"CONVEYOR_ENDPOINT": endpoint, **env}
        result = CliRunner().invoke(cli, arguments, input=stdin, env=environment)
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def data(run: Run) -> Callable[..., Any]:
    """Run ``conveyor … -o json`` and return what it printed."""

    def invoke(*arguments: str, **given: Any) -> Any:
        return json.loads(run(*arguments, "-o", "json", **given).stdout)

    return invoke


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    """A manifest of a pipeline in the short form."""
    path = tmp_path / "flights.yaml"
    path.write_text(PIPELINE)
    return path


@pytest.fixture(scope="module")
def deployed(endpoint: str, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sidecar with three services and a pipeline of them, assigned; gives the manifest."""

    manifest = tmp_path_factory.mktemp("deployed") / "flights.yaml"
    manifest.write_text(PIPELINE)

    def service(name: str, kind: Kind.ValueType, port: int) -> sidecar_pb2.LocalService:
        return sidecar_pb2.LocalService(
            service_id=f"{name}-{port}",
            description=ServiceDescription(name=name, kind=kind, partitions=["1", "2"]),
            endpoint=f"127.0.0.1:{port}",
        )

    request = sidecar_pb2.RegisterSidecarRequest(
        sidecar_id="sidecar-a",
        boot_id="boot-1",
        endpoint="127.0.0.1:9091",
        pod_name="pod-a",
        namespace="default",
        services=[
            service("flights", KIND_SOURCE, 6001),
            service("enrich", KIND_TRANSFORM, 6002),
            service("warehouse", KIND_SINK, 6003),
        ],
    )
    beat = sidecar_pb2.SidecarHeartbeatRequest(
        sidecar_id="sidecar-a",
        boot_id="boot-1",
        load=0.25,
        stages=[
            sidecar_pb2.StageCounters(
                pipeline="default/flights", stage="enrich", records_in=1200, records_out=1100
            )
        ],
    )

    async def deploy() -> None:
        async with LeaderChannel([endpoint]) as channel:
            sidecars, admin = SidecarClient(channel), RouterAdminClient(channel)
            await sidecars.register_sidecar(request)
            run_in_thread = asyncio.to_thread(run, "apply", "-f", str(manifest))
            await run_in_thread

            async def assigned() -> bool:
                await sidecars.heartbeat(beat)
                status = await admin.pipeline_status("flights")
                return status.summary.phase == "Running"

            await wait_until(assigned, "an assignment", timeout_seconds=10)
            await RegistryClient(channel).join_group("readers", "me", "flights", ["flights"])

    async def undeploy() -> None:
        async with LeaderChannel([endpoint]) as channel:
            await RegistryClient(channel).leave_group("readers", "me")
            await SidecarClient(channel).deregister_sidecar("sidecar-a", "boot-1")

    asyncio.run(deploy())
    yield manifest
    asyncio.run(undeploy())
    run("delete", "-f", str(manifest), "--ignore-not-found")
