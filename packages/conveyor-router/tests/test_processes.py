"""Router processes by the documented flags, on free ports."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import ControlError
from conveyor_router import main as router_main

DEADLINE_S = 30.0
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("CONVEYOR_")},
    "CONVEYOR_CLUSTER__ELECTION_TIMEOUT_MS": "300",
    "CONVEYOR_CLUSTER__HEARTBEAT_INTERVAL_MS": "50",
    "CONVEYOR_REGISTRY__SIDECAR_HEARTBEAT_SECS": "1",
    "CONVEYOR_REGISTRY__SIDECAR_LEASE_SECS": "3",
}
PIPELINE = json.dumps(
    {
        "apiVersion": "conveyor/v1",
        "kind": "Pipeline",
        "metadata": {"name": "flights"},
        "spec": {"source": "in", "steps": [], "sink": "out"},
    }
).encode()


def free_addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


class Router:
    """One process, and what it wrote."""

    def __init__(
        self,
        folder: Path,
        node_id: int,
        listen: str,
        raft: str,
        peers: list[str],
        *,
        data: str = "",
        **env: str,
    ) -> None:
        self.listen = listen
        data = data or f"data-{node_id}"
        self.log = folder / f"router-{node_id}-{listen.rpartition(':')[2]}.log"
        arguments = ["--node-id", str(node_id), "--listen-addr", listen, "--raft-addr", raft]
        arguments += ["--data-dir", str(folder / data)]
        if peers:
            arguments += ["--peers", ",".join(peers)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "conveyor_router", *arguments],
                cwd=folder,
                env={**ENVIRONMENT, **env},
                stdout=log,
                stderr=log,
            )

    def output(self) -> str:
        return self.log.read_text()

    def ended(self) -> int:
        return self.process.wait(timeout=DEADLINE_S)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=DEADLINE_S)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Any]:
    """Start routers; whatever a test leaves behind is killed."""
    routers: list[Router] = []

    def start(*arguments: Any, **options: str) -> Router:
        router = Router(tmp_path, *arguments, **options)
        routers.append(router)
        return router

    yield start
    for router in routers:
        router.kill()


async def with_leader(addresses: list[str]) -> int:
    """Return the leader's id as soon as one of the routers answers as such."""
    deadline = time.monotonic() + DEADLINE_S
    async with LeaderChannel(addresses) as channel:
        admin = RouterAdminClient(channel, timeout_s=2)
        while True:
            try:
                await admin.list("Pipeline")
                return (await admin.cluster_status(endpoint=channel.leader)).node_id
            except ControlError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)


async def apply(addresses: list[str]) -> Any:
    async with LeaderChannel(addresses) as channel:
        return await RouterAdminClient(channel, timeout_s=DEADLINE_S).apply([PIPELINE])


async def pipelines(addresses: list[str]) -> list[str]:
    async with LeaderChannel(addresses) as channel:
        listed = await RouterAdminClient(channel, timeout_s=DEADLINE_S).list("Pipeline")
        return [resource.name for resource in listed.resources]


def http(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_cluster_of_one_and_its_directory(launch: Any) -> None:
    """It answers, keeps what it acknowledged; its directory is refused to others."""
    listen, raft, metrics, listen2, raft2 = free_addresses(5)
    env = {"CONVEYOR_METRICS__LISTEN_ADDR": metrics}
    router = launch(1, listen, raft, [], **env)
    assert asyncio.run(with_leader([listen])) == 1
    assert asyncio.run(apply([listen])).applied
    assert http(metrics, "/readyz") == (200, "ready\n")
    assert http(metrics, "/healthz")[0] == 200
    assert "conveyor_raft_commit_index" in http(metrics, "/metrics")[1]
    assert http(metrics, "/nothing")[0] == 404

    second = launch(1, listen2, raft2, [])
    assert second.ended() == router_main.EXIT_DATA
    assert "data-1" in second.output()

    assert router.stop() == 0
    lines = [json.loads(line) for line in router.output().splitlines() if line.startswith("{")]
    assert any("SIGTERM" in line["event"] for line in lines)
    assert all(line["node_id"] == 1 for line in lines)
    assert "config/router.yaml does not exist" in router.output()

    another_node = launch(2, listen2, raft2, [], data="data-1")
    assert another_node.ended() == router_main.EXIT_DATA
    assert "data-1" in another_node.output()

    given_peers = launch(1, listen2, raft2, [raft])
    assert given_peers.ended() == router_main.EXIT_FORMATION
    assert "peers" in given_peers.output().lower()

    again = launch(1, listen, raft, [], **env)
    assert asyncio.run(pipelines([listen])) == ["flights"]
    assert again.stop() == 0
    for one in (router, second, another_node, given_peers, again):
        assert "Traceback" not in one.output()


def test_a_cluster_of_three_survives_its_leader_and_a_wiped_disk(
    launch: Any, tmp_path: Path
) -> None:
    """By the documented flags; kill -9 of the leader loses nothing that was acknowledged.

    When it comes back without its disk it has forgotten its votes, and is not let in as it was.
    """
    addresses = free_addresses(6)
    listens, rafts = addresses[:3], addresses[3:]

    def start(number: int) -> Router:
        peers = [raft for raft in rafts if raft != rafts[number]]
        router: Router = launch(number + 1, listens[number], rafts[number], peers)
        return router

    routers = [start(number) for number in range(3)]
    leader = asyncio.run(with_leader(listens))
    assert asyncio.run(apply(listens)).applied
    routers[leader - 1].kill()
    survivors = [listen for number, listen in enumerate(listens, start=1) if number != leader]
    assert asyncio.run(pipelines(survivors)) == ["flights"]
    assert asyncio.run(with_leader(survivors)) != leader

    shutil.rmtree(tmp_path / f"data-{leader}")
    wiped = start(leader - 1)
    assert wiped.ended() == router_main.EXIT_DATA
    assert "Traceback" not in wiped.output()
    assert asyncio.run(pipelines(survivors)) == ["flights"]
    for number, router in enumerate(routers, start=1):
        if number != leader:
            assert router.stop() == 0
            assert "Traceback" not in router.output()


def test_one_empty_node_of_three_waits_and_is_not_ready(launch: Any) -> None:
    """A partial set never forms a cluster; readiness says so; SIGTERM still ends it cleanly."""
    listen, raft, metrics, *others = free_addresses(5)
    router = launch(1, listen, raft, others, CONVEYOR_METRICS__LISTEN_ADDR=metrics)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            code, _ = http(metrics, "/readyz")
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert code == 503
    assert router.stop() == 0


def test_a_taken_port_is_named(launch: Any) -> None:
    """Whether it is the service's port or Raft's."""
    taken, free = free_addresses(2)
    host, _, port = taken.rpartition(":")
    with socket.create_server((host, int(port))):
        for listen, raft in ((taken, free), (free, taken)):
            router = launch(1, listen, raft, [])
            assert router.ended() == router_main.EXIT_ADDRESS
            assert f"cannot listen on {taken}" in router.output()
            assert "Traceback" not in router.output()
            assert "add_port.cc" not in router.output()


def test_two_nodes_with_one_id_do_not_form_a_cluster(launch: Any) -> None:
    """Whoever notices says which id and which address."""
    listen, raft, listen2, raft2 = free_addresses(4)
    routers = [
        launch(1, listen, raft, [raft2], data="data-a"),
        launch(1, listen2, raft2, [raft], data="data-b"),
    ]
    deadline = time.monotonic() + DEADLINE_S
    while all(router.process.poll() is None for router in routers):
        assert time.monotonic() < deadline, routers[0].output()
        time.sleep(0.05)
    ended = [router for router in routers if router.process.poll() is not None]
    assert ended[0].ended() == router_main.EXIT_FORMATION
    assert "node id" in ended[0].output() or "node-id" in ended[0].output()
