"""The command ``conveyor-sidecar``: settings from the environment, one process, a clean end.

Nothing is required. The exit code says what kind of trouble ended the process: 2 settings, 3
address, 4 data directory, 1 anything else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import click

# The C core of gRPC writes lines of its own between ours, unless it is told not to before it is
# loaded.
os.environ["GRPC_VERBOSITY"] = os.environ.get("GRPC_VERBOSITY", "NONE")

from conveyor_config import ConfigError, SidecarSettings, load_settings
from conveyor_grpc.process import configure_logging, configure_telemetry, stop_signals
from conveyor_sidecar.errors import SidecarError
from conveyor_sidecar.identity import DataDirectory
from conveyor_sidecar.node import SidecarNode

logger = logging.getLogger(__name__)

_HELP = """Run the data plane beside your services.

The sidecar looks for gRPC services (Source, Transform, Sink, Lookup) on local ports, registers them
with the router cluster, takes its assignments from there, and moves records between the services
and other sidecars. It is configured by environment variables:

\b
SIDECAR_ID                 Unique id. Default: a UUID, made once and kept in
                           the data directory.
POD_NAME                   Kubernetes pod name. Default: unknown
NAMESPACE                  Kubernetes namespace. Default: default
CLUSTER_ENDPOINT           Router addresses, host:port[,host:port...].
                           Default: localhost:50051
GRPC_PORT                  Port of the data plane, for other sidecars; 0 takes
                           a free one. Default: 9091
DISCOVERY_START_PORT       First local port to look for services on.
                           Default: 50051
DISCOVERY_END_PORT         Last one. Default: 50060
HEARTBEAT_INTERVAL_SECS    Seconds between heartbeats. Default: 5
ADVERTISE_ADDRESS          Host under which other sidecars reach this one.
                           Default: the local address on the way to a router.
METRICS_PORT               Prometheus metrics, /healthz and /readyz. Default:
                           none.
LISTEN_HOST                Address to bind. Default: 127.0.0.1, or 0.0.0.0 with
                           CONVEYOR_INSECURE.
\b
CONVEYOR_DATA_DIR          Identity and dead letters; one sidecar at a time.
                           Default: ./data/sidecar-<GRPC_PORT>
CONVEYOR_INSECURE          true: bind more than loopback without certificates.
                           Default: false
CONVEYOR_DISCOVERY__INTERVAL_MS
                           Between scans. Default: 5000
CONVEYOR_DISCOVERY__PROBE_TIMEOUT_MS
                           Patience with one port. Default: 500
CONVEYOR_DATA_PLANE__RETAINED_BYTES_MAX
                           Records held for others. Default: 32MiB
CONVEYOR_DATA_PLANE__MAX_MESSAGE_SIZE
                           Largest message, in bytes. Default: 16777216
CONVEYOR_DATA_PLANE__CONNECTIONS_MAX
                           Lane streams accepted. Default: 1024
CONVEYOR_DATA_PLANE__RESUME_TIMEOUT_MS
                           How long a broken lane may be resumed. Default: 15000
CONVEYOR_DATA_PLANE__DRAIN_TIMEOUT_MS
                           How long a stop waits for open records. Default:
                           25000
CONVEYOR_TELEMETRY__OTLP_ENDPOINT
                           Where traces go (OTEL_EXPORTER_OTLP_ENDPOINT works
                           too). Default: nowhere
CONVEYOR_TELEMETRY__SERVICE_NAME
                           Name in traces. Default: conveyor-sidecar
CONVEYOR_LOG__LEVEL        debug, info, warning or error. Default: info
CONVEYOR_LOG__FORMAT       json or text. Default: json

SIGTERM and Ctrl-C drain: sources stop, open records end, positions are committed, the sidecar
deregisters. A second signal ends the process at once.
"""


@click.command(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A YAML file with the same settings; the environment outweighs it.",
)
@click.version_option(package_name="conveyor-sidecar", prog_name="conveyor-sidecar")
def main(config: Path | None) -> None:
    """Load the settings and run until a signal comes."""
    try:
        settings = load_settings(SidecarSettings, file=config)
        settings.check_binds()
    except ConfigError as error:
        click.echo(f"conveyor-sidecar: {error}", err=True)
        sys.exit(2)
    sys.exit(run(settings))


def run(settings: SidecarSettings) -> int:
    """Run one sidecar to its end; returns the exit code."""
    name = settings.telemetry.service_name or "conveyor-sidecar"
    _configure_log(settings, {"service": name})
    try:
        with DataDirectory(settings.data_directory) as directory:
            sidecar_id = directory.sidecar_id(settings.sidecar_id)
            _configure_log(settings, {"service": name, "sidecar": sidecar_id})
            telemetry = configure_telemetry(
                name,
                version=version("conveyor-sidecar"),
                instance_id=sidecar_id,
                endpoint=settings.telemetry.otlp_endpoint,
                attributes={
                    "k8s.pod.name": settings.pod_name,
                    "k8s.namespace.name": settings.namespace,
                },
            )
            try:
                asyncio.run(_live(settings, directory))
            finally:
                telemetry.shutdown()
    except SidecarError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


def _configure_log(settings: SidecarSettings, fields: Mapping[str, str]) -> None:
    configure_logging(level=settings.log.level, form=settings.log.format, fields=fields)


async def _live(settings: SidecarSettings, directory: DataDirectory) -> None:
    async with stop_signals() as stopping:
        await SidecarNode(settings, directory).run(stopping)
