from pathlib import Path
from typing import Any

import pytest

from conveyor_config import (
    ConfigError,
    FileUnreadable,
    InsecureBindRefused,
    RouterSettings,
    SettingsRefused,
    SidecarSettings,
    YamlRefused,
    check_bind,
    is_loopback,
    load_settings,
    variables,
)

SPECIFIED = """\
cluster:
  election_timeout_ms: 300
  heartbeat_interval_ms: 100
  snapshot_interval: 10000

buffer:
  max_total_records: 100000
  max_per_stage: 10000
  backpressure_threshold: 0.8

grpc:
  max_message_size: 16777216
  keepalive_interval_secs: 30
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text(SPECIFIED)
    return path


def router(**given: Any) -> RouterSettings:
    given.setdefault("environ", {"CONVEYOR_NODE_ID": "1"})
    return load_settings(RouterSettings, **given)


def sidecar(**environ: str) -> SidecarSettings:
    return load_settings(SidecarSettings, environ=environ)


def problems(caught: pytest.ExceptionInfo[SettingsRefused]) -> list[str]:
    return [str(problem) for problem in caught.value.problems]


def test_the_specified_file_says_the_defaults(file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The specification's configuration file and no file at all mean the same."""
    monkeypatch.chdir(tmp_path)
    assert router(file=file) == router()
    settings = router(file=file)
    assert settings.listen_addr == "127.0.0.1:50051"
    assert settings.raft_addr == "127.0.0.1:50052"
    assert settings.data_dir == Path("./data")
    assert settings.peers == ()
    assert settings.cluster.election_timeout_ms == 300
    assert settings.buffer.backpressure_threshold == 0.8
    assert settings.grpc.keepalive_interval_secs == 30


def test_flags_outweigh_the_environment_and_that_the_file(file: Path) -> None:
    """Each layer wins over the one before it, value by value."""
    environ = {
        "CONVEYOR_NODE_ID": "1",
        "CONVEYOR_CLUSTER__HEARTBEAT_INTERVAL_MS": "50",
        "CONVEYOR_CLUSTER__SNAPSHOT_INTERVAL": "7",
        "CONVEYOR_PEERS": "127.0.0.1:1, 127.0.0.1:2",
    }
    flags = {"node_id": 2, "cluster.snapshot_interval": 8, "peers": None}
    settings = router(file=file, environ=environ, flags=flags)
    assert settings.node_id == 2
    assert settings.cluster.election_timeout_ms == 300
    assert settings.cluster.heartbeat_interval_ms == 50
    assert settings.cluster.snapshot_interval == 8
    assert settings.peers == ("127.0.0.1:1", "127.0.0.1:2")


def test_an_absent_default_file_gives_one_notice(tmp_path: Path, monkeypatch: Any) -> None:
    """Defaults are used, and it is said once."""
    monkeypatch.chdir(tmp_path)
    notices: list[str] = []
    router(notify=notices.append)
    assert len(notices) == 1
    assert "config/router.yaml" in notices[0]


def test_a_present_default_file_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    """config/router.yaml is taken without being named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/router.yaml").write_text("node_id: 9\n")
    notices: list[str] = []
    assert router(environ={}, notify=notices.append).node_id == 9
    assert notices == []


def test_an_absent_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    """A typing mistake in -c must not start a router with defaults."""
    with pytest.raises(FileUnreadable, match="No such file"):
        router(file=tmp_path / "absent.yaml")
    with pytest.raises(FileUnreadable, match="directory"):
        router(file=tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("clster: {}\n", 1, "did you mean 'cluster'?"),
        ("cluster:\n  election_timeout: 5\n", 2, "did you mean 'election_timeout_ms'?"),
        ("cluster:\n  election_timeout_ms: fast\n", 2, "'fast' is not a whole number"),
        ("buffer:\n  max_per_stage: 1\n  backpressure_threshold: 80\n", 3, "the most is 1"),
        ("cluster:\n  heartbeat_interval_ms: 200\n", 1, "at least twice"),
        ("node_id: 0\n", 1, "too small"),
        ("insecure: yes\n", 1, "write true or false"),
        ("cluster: 5\n", 1, "a mapping is needed"),
        ("listen_addr: 0.0.0.0:50051\n", 0, "set advertise_addr"),
        ("peers: [a]\n", 1, "not host:port"),
        ("- a\n", 1, "settings are a mapping"),
        ("log: {level: loud}\n", 1, "is not one of: debug, info, warning, error"),
        ("registry:\n  sidecar_lease_secs: 6\n", 1, "at least twice"),
    ],
)
def test_a_mistake_in_the_file_has_file_and_line(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    """Every mistake is where it stands; what concerns the whole says whose settings they are."""
    path = tmp_path / "r.yaml"
    path.write_text(text)
    environ = {} if text.startswith("node_id") else {"CONVEYOR_NODE_ID": "1"}
    with pytest.raises(SettingsRefused) as caught:
        router(file=path, environ=environ)
    (found,) = problems(caught)
    assert problem in found
    assert found.startswith(f"{path}:{line}: " if line else "router settings: ")


@pytest.mark.parametrize("text", ["a: [", "a: 1\na: 2\n", "a: 1\n---\nb: 2\n"])
def test_a_file_that_is_no_settings_text(tmp_path: Path, text: str) -> None:
    """Broken YAML, repeated keys and a second document are refused with the line."""
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(YamlRefused, match=r"r\.yaml:\d+:\d+"):
        router(file=path)


def test_a_section_without_keys_is_the_default(tmp_path: Path) -> None:
    """All lines of a section commented out leave it as it is."""
    path = tmp_path / "r.yaml"
    path.write_text("cluster:\n  # election_timeout_ms: 300\n")
    assert router(file=path).cluster.election_timeout_ms == 300


def test_an_override_of_a_broken_section_does_not_hide_it(tmp_path: Path) -> None:
    """The file's mistake is reported although the environment speaks of the same section."""
    path = tmp_path / "r.yaml"
    path.write_text("cluster: 5\n")
    environ = {"CONVEYOR_NODE_ID": "1", "CONVEYOR_CLUSTER__SNAPSHOT_INTERVAL": "7"}
    with pytest.raises(SettingsRefused, match="a mapping is needed"):
        router(file=path, environ=environ)


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("CONVEYOR_CLUSTER__ELECTION_TIMEOUT", "'CONVEYOR_CLUSTER__ELECTION_TIMEOUT_MS'"),
        ("CONVEYOR_CLUTSER__ELECTION_TIMEOUT_MS", "no section"),
        ("CONVEYOR_XYZZY__PLUGH", "no section"),
        ("CONVEYOR_LISTEN_ADR", "'CONVEYOR_LISTEN_ADDR'"),
    ],
)
def test_an_unknown_variable_is_refused(variable: str, problem: str) -> None:
    """A variable that nobody reads is a mistake, named with the nearest known one."""
    with pytest.raises(SettingsRefused) as caught:
        router(environ={"CONVEYOR_NODE_ID": "1", variable: "5"})
    (found,) = problems(caught)
    assert found.startswith(f"environment variable {variable}: ")
    assert problem in found


def test_variables_of_others_are_left_alone() -> None:
    """Kubernetes, the other process and the command line have variables with the same prefix."""
    environ = {
        "CONVEYOR_NODE_ID": "1",
        "CONVEYOR_ROUTER_SERVICE_HOST": "10.0.0.1",
        "CONVEYOR_ROUTER_PORT": "tcp://10.0.0.1:50051",
        "CONVEYOR_ROUTER_PORT_50051_TCP_ADDR": "10.0.0.1",
        "CONVEYOR_ENDPOINT": "localhost:50051",
        "CONVEYOR_DISCOVERY__INTERVAL_MS": "500",
        "CONVEYOR_VERSION": "0.1.0",
        "CONVEYOR_HOME": "/opt/conveyor",
        "UNRELATED": "x",
    }
    assert router(environ=environ).node_id == 1


def test_a_mistake_in_a_variable_or_flag_names_it() -> None:
    """The place is the variable or the flag, and all mistakes come at once."""
    environ = {"CONVEYOR_NODE_ID": "one", "CONVEYOR_CLUSTER__SNAPSHOT_INTERVAL": "0"}
    with pytest.raises(SettingsRefused) as caught:
        router(environ=environ, flags={"listen_addr": "50051"})
    assert problems(caught) == [
        "environment variable CONVEYOR_NODE_ID: node_id: 'one' is not a whole number",
        "--listen-addr: listen_addr: '50051' is not host:port",
        "environment variable CONVEYOR_CLUSTER__SNAPSHOT_INTERVAL: cluster.snapshot_interval: "
        "'0' is too small; the least is 1",
    ]


def test_a_missing_node_id_says_how_to_give_it() -> None:
    """The one setting without a default names flag, variable and key."""
    with pytest.raises(SettingsRefused, match=r"--node-id, CONVEYOR_NODE_ID or node_id"):
        router(environ={})


def test_two_servers_need_two_ports() -> None:
    """One address for two servers is named before either is bound; free ports are no clash."""
    with pytest.raises(SettingsRefused, match=r"listen_addr and raft_addr are both 127\.0\.0\.1:5"):
        router(flags={"listen_addr": "127.0.0.1:5", "raft_addr": "127.0.0.1:5"})
    router(flags={"listen_addr": "127.0.0.1:0", "raft_addr": "127.0.0.1:0"})


def test_settings_become_a_raft_config() -> None:
    """Election timeouts spread over one to two times the setting, addresses go along."""
    config = router(flags={"advertise_addr": "router-1:50051"}).raft_config()
    assert (config.election_timeout_min_ms, config.election_timeout_max_ms) == (300, 600)
    assert config.heartbeat_interval_ms == 100
    assert (config.snapshot_interval_entries, config.snapshot_trailing_entries) == (10_000, 1_000)
    often = router(flags={"cluster.snapshot_interval": 50}).raft_config()
    assert (often.snapshot_interval_entries, often.snapshot_trailing_entries) == (50, 5)
    assert (config.snapshot_spared_entries, often.snapshot_spared_entries) == (10_000, 50)
    assert config.listen_address == "127.0.0.1:50052"
    assert config.client_address == "router-1:50051"


def test_the_sidecars_variables_and_defaults() -> None:
    """Each variable of the specification has its name and its default."""
    settings = sidecar()
    assert settings.sidecar_id is None
    assert settings.pod_name == "unknown"
    assert settings.namespace == "default"
    assert settings.cluster_endpoint == ("localhost:50051",)
    assert settings.grpc_port == 9091
    assert settings.discovery_ports == range(50051, 50061)
    assert settings.heartbeat_interval_secs == 5
    assert settings.data_directory == Path("./data/sidecar-9091")
    assert settings.listen_address == "127.0.0.1:9091"
    assert settings.metrics_address is None
    settings = sidecar(
        SIDECAR_ID="sidecar-pod-abc",
        POD_NAME="my-pod",
        NAMESPACE="team",
        CLUSTER_ENDPOINT="conveyor-router:50051,127.0.0.1:50061",
        GRPC_PORT="9092",
        DISCOVERY_START_PORT="6000",
        DISCOVERY_END_PORT="6000",
        HEARTBEAT_INTERVAL_SECS="0.5",
        ADVERTISE_ADDRESS="10.0.0.9",
        METRICS_PORT="9100",
        CONVEYOR_DATA_DIR="/var/lib/conveyor",
        CONVEYOR_DISCOVERY__INTERVAL_MS="500",
        CONVEYOR_DATA_PLANE__RETAINED_BYTES_MAX="4MiB",
    )
    assert settings.sidecar_id == "sidecar-pod-abc"
    assert settings.cluster_endpoint == ("conveyor-router:50051", "127.0.0.1:50061")
    assert settings.discovery_ports == range(6000, 6001)
    assert settings.data_directory == Path("/var/lib/conveyor")
    assert settings.metrics_address == "127.0.0.1:9100"
    assert settings.discovery.interval_ms == 500
    assert settings.data_plane.retained_bytes_max == 4 << 20


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"GRPC_PORT": "tcp://10.0.0.1:1"}, "environment variable GRPC_PORT: grpc_port"),
        ({"GRPC_PORT": "70000"}, "too large"),
        (
            {"CLUSTER_ENDPOINT": ""},
            "CLUSTER_ENDPOINT: cluster_endpoint: 0 given; needed at least 1",
        ),
        ({"CLUSTER_ENDPOINT": "router"}, "not host:port"),
        ({"DISCOVERY_END_PORT": "50000"}, "lies before DISCOVERY_START_PORT"),
        ({"DISCOVERY_END_PORT": "51075"}, "more than 1024 ports"),
        ({"HEARTBEAT_INTERVAL_SECS": "0"}, "too small"),
        ({"SIDECAR_ID": "Sidecar 1"}, "is not a name"),
        ({"CONVEYOR_DATA_DR": "x"}, "did you mean 'CONVEYOR_DATA_DIR'"),
    ],
)
def test_a_mistake_in_the_sidecars_variables(environ: dict[str, str], problem: str) -> None:
    """Each is refused with the variable's name where one is to blame."""
    with pytest.raises(SettingsRefused) as caught:
        load_settings(SidecarSettings, environ=environ)
    assert problem in "\n".join(problems(caught))


def test_every_setting_has_a_variable_of_its_own() -> None:
    """No two settings of a process share one."""
    for model in (RouterSettings, SidecarSettings):
        known = variables(model)
        assert len(set(known.values())) == len(known)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"])
def test_loopback_may_be_bound(address: str) -> None:
    """Only this machine can reach these."""
    assert is_loopback(address)
    check_bind(address, insecure=False)


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "router:1"])
def test_anything_else_needs_consent(address: str) -> None:
    """Without certificates the operator has to say that the network is trusted."""
    with pytest.raises(InsecureBindRefused, match="CONVEYOR_INSECURE=true"):
        check_bind(address, insecure=False)
    check_bind(address, insecure=True)


def test_both_processes_check_all_they_bind() -> None:
    """Router: three addresses; sidecar: its host, which insecure opens."""
    for name in ("listen_addr", "raft_addr", "metrics.listen_addr"):
        flags = {name: "10.0.0.1:50051"}
        with pytest.raises(InsecureBindRefused):
            router(flags=flags).check_binds()
        router(flags={**flags, "insecure": "true"}).check_binds()
    router().check_binds()
    sidecar().check_binds()
    with pytest.raises(InsecureBindRefused):
        sidecar(LISTEN_HOST="0.0.0.0").check_binds()
    opened = sidecar(CONVEYOR_INSECURE="true")
    opened.check_binds()
    assert opened.listen_address == "0.0.0.0:9091"


def test_all_errors_are_of_one_tree() -> None:
    """A caller catches ConfigError."""
    for error in (FileUnreadable, YamlRefused, SettingsRefused, InsecureBindRefused):
        assert issubclass(error, ConfigError)
