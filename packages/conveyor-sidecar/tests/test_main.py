"""The command: help that teaches every variable, settings that are refused, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from conveyor_config import SidecarSettings, variables
from conveyor_sidecar.main import main


def test_help_teaches_every_variable() -> None:
    """No setting exists that --help does not name."""
    text = CliRunner().invoke(main, ["--help"]).output
    for variable in variables(SidecarSettings):
        assert variable in text, variable


def test_version() -> None:
    """The distribution's own version."""
    assert "conveyor-sidecar, version 0.1.0" in CliRunner().invoke(main, ["--version"]).output


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"GRPC_PORT": "ninety"}, "GRPC_PORT"),
        ({"DISCOVERY_START_PORT": "9", "DISCOVERY_END_PORT": "8"}, "DISCOVERY_END_PORT"),
        ({"LISTEN_HOST": "0.0.0.0"}, "CONVEYOR_INSECURE"),
        ({"CONVEYOR_DATA_PLANE__CONECTIONS_MAX": "3"}, "CONVEYOR_DATA_PLANE__CONNECTIONS_MAX"),
    ],
)
def test_settings_that_are_refused(environment: dict[str, str], words: str) -> None:
    """Exit code 2 and a sentence that names the variable."""
    result = CliRunner().invoke(main, [], env=environment)
    assert result.exit_code == 2
    assert words in result.output


def started(tmp_path: Path, port: int, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "conveyor_sidecar"],
        env={
            **os.environ,
            "GRPC_PORT": str(port),
            "CLUSTER_ENDPOINT": "127.0.0.1:1",
            "DISCOVERY_START_PORT": "2",
            "DISCOVERY_END_PORT": "2",
            "CONVEYOR_DATA_DIR": str(tmp_path / "data"),
            **more,
        },
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_the_process_waits_for_routers_and_ends_cleanly(tmp_path: Path, free_port: int) -> None:
    """Without any router it starts, keeps its identity, and SIGTERM ends it with 0; a second one
    on the same directory or port ends with its own code."""
    process = started(tmp_path, free_port)
    deadline = time.monotonic() + 20
    lock = tmp_path / "data" / "sidecar-id"
    while not lock.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    second = started(tmp_path, free_port)
    assert "in use by another sidecar" in second.communicate(timeout=20)[1]
    assert second.returncode == 4
    third = started(tmp_path, free_port, CONVEYOR_DATA_DIR=str(tmp_path / "other"))
    assert "GRPC_PORT" in third.communicate(timeout=20)[1]
    assert third.returncode == 3
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
