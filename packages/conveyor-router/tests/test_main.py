"""The command line: what it refuses, and how it says so."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from conveyor_router.main import EXIT_SETTINGS, main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings file lies around."""
    monkeypatch.chdir(tmp_path)


def refused(*arguments: str, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(main, arguments, env=env)
    assert result.exit_code == EXIT_SETTINGS, result.output
    return result.output


def test_help_shows_how_to_start() -> None:
    """A cluster of one and of three by the documented flags, and the exit codes."""
    output = CliRunner().invoke(main, ["--help"]).output
    assert "conveyor-router --node-id 1" in output
    assert "--peers 127.0.0.1:50054,127.0.0.1:50056" in output
    assert "Exit codes" in output


def test_the_version_is_told() -> None:
    """It is the distribution's."""
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert "conveyor-router" in result.output


def test_a_missing_node_id_is_named_with_all_ways_to_give_it() -> None:
    """Flag, variable and file."""
    output = refused()
    assert "--node-id" in output
    assert "CONVEYOR_NODE_ID" in output


@pytest.mark.parametrize("node_id", ["0", "-1", "one", "1.5"])
def test_a_node_id_is_a_positive_number(node_id: str) -> None:
    """The flag is named."""
    assert "--node-id" in refused(f"--node-id={node_id}")


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    """Only the default file may be absent."""
    assert "missing.yaml" in refused("-n", "1", "-c", str(tmp_path / "missing.yaml"))


def test_a_mistake_in_the_file_has_its_line(tmp_path: Path) -> None:
    """Unknown keys name the nearest known one."""
    file = tmp_path / "router.yaml"
    file.write_text("node_id: 1\ncluster:\n  election_timout_ms: 300\n")
    output = refused("-c", str(file))
    assert "router.yaml:3" in output
    assert "election_timeout_ms" in output


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    """The value comes from outside, so it is told where from."""
    output = refused("-n", "1", env={"CONVEYOR_CLUSTER__SNAPSHOT_INTERVAL": "often"})
    assert "CONVEYOR_CLUSTER__SNAPSHOT_INTERVAL" in output


def test_an_open_address_without_certificates_is_refused() -> None:
    """The message names both ways out."""
    output = refused("-n", "1", "-l", "10.0.0.1:50051")
    assert "CONVEYOR_INSECURE=true" in output
    assert "127.0.0.1" in output


def test_a_wildcard_needs_an_address_to_tell_others() -> None:
    """Nobody can connect to 0.0.0.0."""
    output = refused("-n", "1", "-l", "0.0.0.0:50051", env={"CONVEYOR_INSECURE": "true"})
    assert "advertise" in output


def test_peers_are_addresses() -> None:
    """The wrong one is named."""
    assert "nonsense" in refused("-n", "1", "--peers", "127.0.0.1:1,nonsense")
