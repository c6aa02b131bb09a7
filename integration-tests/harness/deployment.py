"""A cluster of real processes together with clients that know it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from conveyor_cli.processes import LocalCluster, LocalProcess, program, wait_until
from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.clients import CheckpointClient, RegistryClient, RouterAdminClient
from conveyor_grpc.errors import ControlError
from conveyor_grpc.wire.admin_pb2 import ClusterStatusResponse
from conveyor_sdk.wire.info_pb2 import KIND_SOURCE, ServiceDescription

LEASE_SECONDS = 3600.0


class Deployment:
    """A running cluster and its clients.

    Attributes:
        cluster: The processes.
        admin: The administration client, as the command line uses it.
        registry: The registry client.
        checkpoints: The client of positions.
    """

    def __init__(self, cluster: LocalCluster, channel: LeaderChannel) -> None:
        self.cluster = cluster
        self.admin = RouterAdminClient(channel)
        self.registry = RegistryClient(channel)
        self.checkpoints = CheckpointClient(channel)

    @property
    def routers(self) -> list[LocalProcess]:
        """The router processes, in order of their ids."""
        return [each for name, each in self.cluster.processes.items() if name.startswith("router-")]

    def address(self, router: LocalProcess) -> str:
        """Return a router's client address."""
        return self.cluster.router_addresses[int(router.name.rpartition("-")[2]) - 1]

    async def status_of(self, router: LocalProcess) -> ClusterStatusResponse | None:
        """Return what one router says of the cluster; None while it does not answer."""
        with contextlib.suppress(ControlError):
            return await self.admin.cluster_status(endpoint=self.address(router))
        return None

    async def leader(self, timeout_seconds: float = 30.0) -> LocalProcess:
        """Wait for a living router that says it leads and has committed in its term."""
        found: list[LocalProcess] = []

        async def leads() -> bool:
            for router in self.routers:
                status = await self.status_of(router) if router.running else None
                if status and status.role == "leader":
                    found.append(router)
                    return True
            return False

        await wait_until(leads, "a leader", timeout_seconds=timeout_seconds)
        return found[0]

    async def caught_up(self, router: LocalProcess, timeout_seconds: float = 30.0) -> None:
        """Wait until a router has applied all that the leader has committed."""

        async def applied_all() -> bool:
            leader = await self.status_of(await self.leader())
            status = await self.status_of(router)
            return bool(leader and status and status.applied_index >= leader.commit_index)

        await wait_until(
            applied_all,
            f"{router.name} to catch up",
            timeout_seconds=timeout_seconds,
            needs=[router],
        )

    async def register(self, name: str) -> None:
        """Write one command through the log: a service that nothing runs, with a long lease."""
        description = ServiceDescription(name=name, kind=KIND_SOURCE)
        await self.registry.register(name, description, "127.0.0.1:1", lease_s=LEASE_SECONDS)

    async def registered(self) -> set[str]:
        """Return the names of all services that the leader knows."""
        return {service.service_id for service in await self.registry.list_services()}

    async def conveyor(self, *arguments: str, expect: int = 0) -> str:
        """Run the `conveyor` command as a person would; return what it printed.

        What it says on standard error (warnings, refusals) comes after that on standard output.
        """
        command = [program("conveyor"), "--endpoint", self.cluster.endpoints, *arguments]
        done = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.cluster.environment},
        )
        async with asyncio.timeout(60):
            output, errors = await done.communicate()
        assert done.returncode == expect, f"{command}\n{output.decode()}\n{errors.decode()}"
        return output.decode() + errors.decode()

    async def apply(self, text: str, expect: int = 0) -> str:
        """Apply manifests given as text; return what the command said."""
        path = self.cluster.directory / "manifest.yaml"
        path.write_text(text)
        return await self.conveyor("apply", "-f", str(path), expect=expect)

    async def phase(self, pipeline: str) -> str:
        """Return a pipeline's phase, empty while the leader does not answer."""
        with contextlib.suppress(ControlError):
            return (await self.admin.pipeline_status(pipeline)).summary.phase
        return ""

    async def wait_for_phase(
        self, pipeline: str, phase: str, timeout_seconds: float = 60.0
    ) -> None:
        """Wait until a pipeline is in a phase."""

        async def reached() -> bool:
            return await self.phase(pipeline) == phase

        await wait_until(
            reached,
            f"{pipeline} to be {phase}",
            timeout_seconds=timeout_seconds,
            needs=[each for each in self.cluster.processes.values() if each.running],
        )

    async def wait_for_services(self, count: int, timeout_seconds: float = 60.0) -> None:
        """Wait until so many services are registered."""

        async def known() -> bool:
            with contextlib.suppress(ControlError):
                return len(await self.registered()) >= count
            return False

        await wait_until(
            known,
            f"{count} services",
            timeout_seconds=timeout_seconds,
            needs=list(self.cluster.processes.values()),
        )


@contextlib.asynccontextmanager
async def deployed(
    directory: Path,
    routers: int = 3,
    environment: Mapping[str, str] | None = None,
    router_environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Deployment]:
    """Define a cluster and start its routers; everything is stopped at the end."""
    with LocalCluster(directory, environment) as cluster:
        cluster.add_routers(routers, environment=router_environment)
        cluster.start()
        async with LeaderChannel(cluster.router_addresses) as channel:
            deployment = Deployment(cluster, channel)
            await deployment.leader()
            yield deployment
