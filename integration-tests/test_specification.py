"""Every name of the specification imports from where it says, and the binaries know their flags."""

from __future__ import annotations

import importlib
import subprocess

import pytest

from conveyor_cli.processes import program

NAMES = {
    "conveyor_raft": [
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
    "conveyor_registry": [
        "ServiceRegistry",
        "RegisteredService",
        "ServiceHealth",
        "ServiceType",
        "GroupCoordinator",
        "ServiceGroup",
        "GroupMember",
        "PartitionAssignment",
        "LoadBalancer",
    ],
    "conveyor_sidecar.routing": ["RoutingTable", "LocalRouter", "RemoteRouter", "ClientPool"],
    "conveyor_config": ["RouterSettings", "SidecarSettings", "load_settings"],
}
MODULES = [
    "conveyor_sidecar.discovery",
    "conveyor_sidecar.cluster_client",
    "conveyor_sidecar.cluster_client.registration",
    "conveyor_sidecar.cluster_client.heartbeat",
    "conveyor_sidecar.data_plane",
]
COMMANDS = [
    "RegisterService",
    "DeregisterService",
    "RegisterSidecar",
    "DeregisterSidecar",
    "AssignPipeline",
    "RevokePipeline",
]
ROUTER_FLAGS = [
    "--config",
    "-c",
    "--node-id",
    "-n",
    "--listen-addr",
    "-l",
    "--raft-addr",
    "--peers",
    "--data-dir",
]
SIDECAR_VARIABLES = {
    "SIDECAR_ID": None,
    "POD_NAME": "unknown",
    "NAMESPACE": "default",
    "CLUSTER_ENDPOINT": "localhost:50051",
    "GRPC_PORT": "9091",
    "DISCOVERY_START_PORT": "50051",
    "DISCOVERY_END_PORT": "50060",
    "HEARTBEAT_INTERVAL_SECS": "5",
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in NAMES.items() for name in names]
)
def test_names_import(module: str, name: str) -> None:
    """A user who reads the specification finds each name."""
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.xfail(strict=True, reason="backup and restore are not built yet")
def test_backup_service_imports() -> None:
    """`BackupServiceImpl` comes with backup and restore."""
    assert hasattr(importlib.import_module("conveyor_raft"), "BackupServiceImpl")


@pytest.mark.parametrize("module", MODULES)
def test_modules_import(module: str) -> None:
    """The sidecar is made of the modules that are named."""
    importlib.import_module(module)


@pytest.mark.parametrize("command", COMMANDS)
def test_router_commands(command: str) -> None:
    """Each command is an attribute of `RouterCommand`."""
    assert hasattr(importlib.import_module("conveyor_raft").RouterCommand, command)


def test_router_settings_have_the_documented_defaults() -> None:
    """Sections, names and defaults of the configuration file."""
    config = importlib.import_module("conveyor_config")
    settings = config.load_settings(config.RouterSettings, environ={}, flags={"node_id": 1})
    assert str(settings.listen_addr) == "127.0.0.1:50051"
    assert str(settings.raft_addr) == "127.0.0.1:50052"
    assert str(settings.data_dir) == "data"
    cluster, buffer, grpc = settings.cluster, settings.buffer, settings.grpc
    assert (cluster.election_timeout_ms, cluster.heartbeat_interval_ms) == (300, 100)
    assert cluster.snapshot_interval == 10_000
    assert (buffer.max_total_records, buffer.max_per_stage) == (100_000, 10_000)
    assert buffer.backpressure_threshold == 0.8
    assert (grpc.max_message_size, grpc.keepalive_interval_secs) == (16_777_216, 30)


def test_programs_document_their_flags_and_variables() -> None:
    """`--help` names everything that the specification names."""
    router = subprocess.run(
        [program("conveyor-router"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for flag in ROUTER_FLAGS:
        assert flag in router
    sidecar = subprocess.run(
        [program("conveyor-sidecar"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for variable, default in SIDECAR_VARIABLES.items():
        assert variable in sidecar
        assert default is None or default in sidecar
