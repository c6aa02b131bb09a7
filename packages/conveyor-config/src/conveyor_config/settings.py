"""The settings of the two processes, with every default in one place.

Names, variables and defaults are the specification's where it gives them. Values may come as text
(files and environments hold nothing else); the types of ``conveyor_registry.model`` convert them
strictly. A setting's variable is ``CONVEYOR_<FIELD>`` or ``CONVEYOR_<SECTION>__<FIELD>``; the
sidecar's specified ones (``SIDECAR_ID``, ``GRPC_PORT``, …) have no prefix, and ``variable`` in the
field's extras says so.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from conveyor_config.binds import check_bind, is_wildcard
from conveyor_raft.config import RaftConfig
from conveyor_registry.model import Endpoint, split_endpoint
from conveyor_registry.model.names import Name
from conveyor_registry.model.units import ByteCount, Count, Flag, Ratio

PEERS_MAX = 64
SNAPSHOT_TRAILING_MAX = 1_000
"""Log entries kept behind a snapshot for followers that are a little late; fewer where snapshots
are more frequent, else the log would not get shorter."""
DISCOVERY_PORTS_MAX = 1_024
_LABEL_LENGTH_MAX = 253


def _check_listen(text: str) -> str:
    split_endpoint(text)
    return text


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _check_identifier(text: str) -> str:
    if not 1 <= len(text) <= _LABEL_LENGTH_MAX or not text.isprintable() or " " in text:
        raise ValueError("1 to 253 printable characters without blanks are needed")
    return text


ListenAddress = Annotated[str, AfterValidator(_check_listen)]
"""``host:port`` to bind; port 0 takes a free one."""

Endpoints = Annotated[
    tuple[Endpoint, ...],
    BeforeValidator(_split_commas, json_schema_input_type=str | list[str]),
    Field(max_length=PEERS_MAX),
]
"""Addresses as a list or as text separated by commas."""

Seconds = Annotated[Ratio, Field(ge=0.1, le=3_600)]
Port = Annotated[Count, Field(ge=1, le=65_535)]
Identifier = Annotated[str, AfterValidator(_check_identifier)]


class Section(BaseModel):
    """Base of settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClusterSection(Section):
    """Raft's times and snapshots; a follower waits one to two election timeouts."""

    election_timeout_ms: Annotated[Count, Field(ge=10, le=300_000)] = 300
    heartbeat_interval_ms: Annotated[Count, Field(ge=1, le=60_000)] = 100
    snapshot_interval: Annotated[Count, Field(ge=1, le=10_000_000)] = 10_000

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.election_timeout_ms < 2 * self.heartbeat_interval_ms:
            raise PydanticCustomError(
                "cluster",
                "election_timeout_ms ({timeout}) must be at least twice heartbeat_interval_ms "
                "({heartbeat}): one lost heartbeat must not start an election",
                {"timeout": self.election_timeout_ms, "heartbeat": self.heartbeat_interval_ms},
            )
        return self


class BufferSection(Section):
    """How many records a sidecar may hold; the router hands these to sidecars at registration."""

    max_total_records: Annotated[Count, Field(ge=1, le=100_000_000)] = 100_000
    max_per_stage: Annotated[Count, Field(ge=1, le=100_000_000)] = 10_000
    backpressure_threshold: Annotated[Ratio, Field(gt=0, le=1)] = 0.8


class GrpcSection(Section):
    """Limits of the gRPC server and of the connections to it."""

    max_message_size: Annotated[Count, Field(ge=64 << 10, le=256 << 20)] = 16 << 20
    keepalive_interval_secs: Annotated[Ratio, Field(ge=1, le=3_600)] = 30.0


class RegistrySection(Section):
    """Heartbeats and leases of sidecars and of services."""

    sidecar_heartbeat_secs: Seconds = 5.0
    sidecar_lease_secs: Seconds = 15.0
    service_heartbeat_secs: Seconds = 10.0
    service_lease_secs: Seconds = 30.0

    @model_validator(mode="after")
    def _check_leases(self) -> Self:
        for who in ("sidecar", "service"):
            heartbeat = getattr(self, f"{who}_heartbeat_secs")
            if getattr(self, f"{who}_lease_secs") < 2 * heartbeat:
                raise PydanticCustomError(
                    "registry",
                    "{who}_lease_secs must be at least twice {who}_heartbeat_secs: "
                    "one lost heartbeat must not end a lease",
                    {"who": who},
                )
        return self


class MetricsSection(Section):
    """Where Prometheus metrics and readiness are served; unset: nowhere."""

    listen_addr: ListenAddress | None = None


class TelemetrySection(Section):
    """Where traces go. The variables of OpenTelemetry (``OTEL_…``) work too."""

    otlp_endpoint: Annotated[str, Field(min_length=1, max_length=2_048)] | None = None
    service_name: Identifier | None = None


class LogSection(Section):
    """Form and level of the log on standard error."""

    format: Annotated[Literal["json", "text"], BeforeValidator(_lower)] = "json"
    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"


class ProcessSettings(Section):
    """What both processes have."""

    default_file: ClassVar[Path | None] = None
    title: ClassVar[str] = "process"

    insecure: Flag = False
    telemetry: TelemetrySection = TelemetrySection()
    log: LogSection = LogSection()


class RouterSettings(ProcessSettings):
    """Everything that ``conveyor-router`` can be told."""

    default_file: ClassVar[Path | None] = Path("config/router.yaml")
    title: ClassVar[str] = "router"

    node_id: Annotated[Count, Field(ge=1, lt=2**63)]
    listen_addr: ListenAddress = "127.0.0.1:50051"
    raft_addr: ListenAddress = "127.0.0.1:50052"
    peers: Endpoints = ()
    data_dir: Path = Path("./data")
    advertise_addr: Endpoint | None = None
    advertise_raft_addr: Endpoint | None = None
    cluster: ClusterSection = ClusterSection()
    buffer: BufferSection = BufferSection()
    grpc: GrpcSection = GrpcSection()
    registry: RegistrySection = RegistrySection()
    metrics: MetricsSection = MetricsSection()

    @model_validator(mode="after")
    def _check_advertised(self) -> Self:
        for listen, advertise in (
            ("listen_addr", "advertise_addr"),
            ("raft_addr", "advertise_raft_addr"),
        ):
            address = getattr(self, listen)
            if is_wildcard(address) and getattr(self, advertise) is None:
                raise PydanticCustomError(
                    "advertise",
                    "{listen} {address} names no host that others could connect to; "
                    "set {advertise} to the address that they should use",
                    {"listen": listen, "address": address, "advertise": advertise},
                )
        return self

    @model_validator(mode="after")
    def _check_distinct(self) -> Self:
        used: dict[str, str] = {}
        for setting, address in (
            ("listen_addr", self.listen_addr),
            ("raft_addr", self.raft_addr),
            ("metrics.listen_addr", self.metrics.listen_addr),
        ):
            if address is None or split_endpoint(address)[1] == 0:
                continue
            if address in used:
                raise PydanticCustomError(
                    "addresses",
                    "{one} and {other} are both {address}; each needs a port of its own",
                    {"one": used[address], "other": setting, "address": address},
                )
            used[address] = setting
        return self

    def check_binds(self) -> None:
        """Refuse addresses that others could reach without certificates.

        Raises:
            InsecureBindRefused: see there.
        """
        for address in (self.listen_addr, self.raft_addr, self.metrics.listen_addr):
            if address is not None:
                check_bind(address, insecure=self.insecure)

    def raft_config(self) -> RaftConfig:
        """The part that concerns consensus. Election timeouts spread over one to two times."""
        timeout_ms = self.cluster.election_timeout_ms
        return RaftConfig(
            node_id=self.node_id,
            election_timeout_min_ms=timeout_ms,
            election_timeout_max_ms=2 * timeout_ms,
            heartbeat_interval_ms=self.cluster.heartbeat_interval_ms,
            data_dir=self.data_dir,
            listen_address=self.raft_addr,
            advertise_address=self.advertise_raft_addr,
            client_address=self.advertise_addr or self.listen_addr,
            snapshot_interval_entries=self.cluster.snapshot_interval,
            snapshot_trailing_entries=min(
                SNAPSHOT_TRAILING_MAX, self.cluster.snapshot_interval // 10
            ),
            snapshot_spared_entries=self.cluster.snapshot_interval,
        )


class DiscoverySection(Section):
    """How local services are looked for."""

    interval_ms: Annotated[Count, Field(ge=50, le=600_000)] = 5_000
    probe_timeout_ms: Annotated[Count, Field(ge=10, le=60_000)] = 500


class DataPlaneSection(Section):
    """Bounds of what a sidecar holds and of its connections."""

    retained_bytes_max: Annotated[ByteCount, Field(ge=1 << 20, le=1 << 30)] = 32 << 20
    max_message_size: Annotated[Count, Field(ge=64 << 10, le=256 << 20)] = 16 << 20
    connections_max: Annotated[Count, Field(ge=1, le=65_536)] = 1_024
    resume_timeout_ms: Annotated[Count, Field(ge=100, le=600_000)] = 15_000
    drain_timeout_ms: Annotated[Count, Field(ge=100, le=3_600_000)] = 25_000


def _variable(name: str) -> dict[str, Any]:
    return {"variable": name}


class SidecarSettings(ProcessSettings):
    """Everything that ``conveyor-sidecar`` can be told."""

    title: ClassVar[str] = "sidecar"

    sidecar_id: Annotated[Name | None, Field(json_schema_extra=_variable("SIDECAR_ID"))] = None
    """Unset: an identity is made once and kept in the data directory."""
    pod_name: Annotated[Identifier, Field(json_schema_extra=_variable("POD_NAME"))] = "unknown"
    namespace: Annotated[Name, Field(json_schema_extra=_variable("NAMESPACE"))] = "default"
    cluster_endpoint: Annotated[
        Endpoints, Field(min_length=1, json_schema_extra=_variable("CLUSTER_ENDPOINT"))
    ] = ("localhost:50051",)
    grpc_port: Annotated[
        Count, Field(ge=0, le=65_535, json_schema_extra=_variable("GRPC_PORT"))
    ] = 9091
    discovery_start_port: Annotated[
        Port, Field(json_schema_extra=_variable("DISCOVERY_START_PORT"))
    ] = 50_051
    discovery_end_port: Annotated[
        Port, Field(json_schema_extra=_variable("DISCOVERY_END_PORT"))
    ] = 50_060
    heartbeat_interval_secs: Annotated[
        Seconds, Field(json_schema_extra=_variable("HEARTBEAT_INTERVAL_SECS"))
    ] = 5.0
    advertise_address: Annotated[
        Identifier | None, Field(json_schema_extra=_variable("ADVERTISE_ADDRESS"))
    ] = None
    metrics_port: Annotated[Port | None, Field(json_schema_extra=_variable("METRICS_PORT"))] = None
    listen_host: Annotated[Identifier | None, Field(json_schema_extra=_variable("LISTEN_HOST"))] = (
        None
    )
    data_dir: Path | None = None
    discovery: DiscoverySection = DiscoverySection()
    data_plane: DataPlaneSection = DataPlaneSection()

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        first, last = self.discovery_start_port, self.discovery_end_port
        if last < first:
            raise PydanticCustomError(
                "discovery",
                "DISCOVERY_END_PORT ({last}) lies before DISCOVERY_START_PORT ({first})",
                {"first": first, "last": last},
            )
        if last - first >= DISCOVERY_PORTS_MAX:
            raise PydanticCustomError(
                "discovery",
                "the discovery range {first}-{last} has more than 1024 ports",
                {"first": first, "last": last},
            )
        return self

    @property
    def discovery_ports(self) -> range:
        """The ports to scan, in order."""
        return range(self.discovery_start_port, self.discovery_end_port + 1)

    @property
    def data_directory(self) -> Path:
        """Where identity, dead letters and spill live."""
        return self.data_dir or Path(f"./data/sidecar-{self.grpc_port}")

    @property
    def bind_host(self) -> str:
        """What the servers bind: loopback, unless ``insecure`` opens all addresses."""
        return self.listen_host or ("0.0.0.0" if self.insecure else "127.0.0.1")  # noqa: S104

    @property
    def listen_address(self) -> str:
        """``host:port`` of the data plane's server."""
        return _joined(self.bind_host, self.grpc_port)

    @property
    def metrics_address(self) -> str | None:
        """``host:port`` of metrics and readiness, or None."""
        return None if self.metrics_port is None else _joined(self.bind_host, self.metrics_port)

    def check_binds(self) -> None:
        """Refuse addresses that others could reach without certificates.

        Raises:
            InsecureBindRefused: see there.
        """
        check_bind(self.listen_address, insecure=self.insecure)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
