"""The samples of the README and of the specification run as they stand."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import conveyor_raft
from conveyor_raft import (
    CommandRejected,
    KeyValueCommand,
    KeyValueStateMachine,
    RaftConfig,
    RaftNode,
    RouterCommand,
    RouterStateMachine,
    UnknownInSession,
)
from conveyor_raft.machines.router import RouterState

README = Path(__file__).parent.parent / "README.md"
SAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_the_first_cluster_runs_twice(tmp_path: Path) -> None:
    """As a script in an empty directory, on other ports; the second run finds the first one's."""
    sample = SAMPLES[0]
    for number, port in enumerate(free_ports(3), 7001):
        sample = sample.replace(str(number), str(port))
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", sample],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "{'colour': b'green'}\n"


@pytest.mark.asyncio
async def test_the_state_machine_sample_works() -> None:
    """Results, refusals, and a restart from its snapshot."""
    namespace: dict[str, object] = {"json": json}
    exec(SAMPLES[1], namespace)
    accounts = namespace["Accounts"]
    assert isinstance(accounts, type)
    machine, again = accounts(), accounts()
    async with RaftNode(RaftConfig(node_id=1), machine) as node:
        assert await node.propose(("ann", 5)) == 5
        with pytest.raises(CommandRejected, match="ann has only 5"):
            await node.propose(("ann", -6))
    again.restore(machine.snapshot())
    assert again.state == {"ann": 5}


@pytest.mark.asyncio
async def test_the_session_sample_works() -> None:
    """Within a function, on a node of its own."""
    lines = SAMPLES[2].replace("\n", "\n    ")
    namespace: dict[str, Any] = {
        "UnknownInSession": UnknownInSession,
        "command": KeyValueCommand.put("colour", b"green"),
    }
    exec(f"async def sample(node):\n    {lines}", namespace)
    async with RaftNode(RaftConfig(node_id=1), KeyValueStateMachine()) as node:
        await namespace["sample"](node)
        assert await node.state() == {"colour": b"green"}


def test_the_simulator_sample_runs() -> None:
    """With the accounts of the sample before it."""
    namespace: dict[str, Any] = {"json": json}
    exec(SAMPLES[1], namespace)
    assert "simulate(Transfers()" in SAMPLES[3]
    exec(SAMPLES[3], namespace)


@pytest.mark.asyncio
async def test_the_sample_of_the_specification() -> None:
    """Config, `RaftNode.new`, propose on the leader, state on any node."""
    config = RaftConfig(
        node_id=1,
        election_timeout_min_ms=150,
        election_timeout_max_ms=300,
        heartbeat_interval_ms=50,
    )
    peers: list[str] = []
    state_machine = RouterStateMachine()
    node = await RaftNode.new(config, state_machine, peers)
    await node.propose(
        RouterCommand.RegisterService(
            service_id="s1", service_type="Source", endpoint="127.0.0.1:5000", service_name="s"
        )
    )
    state = await node.state()
    assert isinstance(state, RouterState)
    assert "s1" in state.services
    await node.shutdown()
    async with RaftNode(config, RouterStateMachine(), peers) as other:
        assert other.is_leader


@pytest.mark.parametrize(
    "name",
    [
        "RouterStateMachine",
        "RouterState",
        "LogStorage",
        "RaftNetwork",
        "RouterCommand",
        "NodeId",
        "Term",
        "LogIndex",
        "RaftCore",
        "RaftConfig",
        "RaftRole",
        "RaftTransport",
        "RaftTransportService",
        "RaftNode",
    ],
)
def test_the_names_of_the_specification_are_at_the_root(name: str) -> None:
    """Exported, and listed."""
    assert name in conveyor_raft.__all__
    assert getattr(conveyor_raft, name) is not None


def test_nothing_else_of_conveyor_is_imported() -> None:
    """`pip install conveyor-raft` is enough."""
    code = "import sys, conveyor_raft; print([m for m in sys.modules if m.startswith('conveyor')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = {name.split(".")[0] for name in eval(done.stdout)}
    assert modules == {"conveyor_raft"}
