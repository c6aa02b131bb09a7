"""The command `conveyor-router`: flags, settings, exit codes.

Settings come from a file, the environment (`CONVEYOR_<SECTION>__<FIELD>`) and the flags, in
rising order of weight. Every way in which a router cannot start has its own message, which says
what is wrong and what to do, and an exit code that a supervisor can tell apart.
"""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.metadata import version as distribution_version
from pathlib import Path

import click

# The C core of gRPC writes lines of its own between ours, unless it is told not to before it is
# loaded.
os.environ["GRPC_VERBOSITY"] = os.environ.get("GRPC_VERBOSITY", "NONE")

from conveyor_config import ConfigError, RouterSettings, load_settings
from conveyor_grpc.errors import ListenError
from conveyor_grpc.process import configure_logging, configure_telemetry, stop_signals
from conveyor_raft.errors import FormationError, NodeStopped, RaftError, StorageError
from conveyor_raft.errors import ListenError as RaftListenError
from conveyor_router.node import RouterProcess

EXIT_STOPPED_BY_ITSELF = 1
EXIT_SETTINGS = 2
EXIT_ADDRESS = 3
EXIT_DATA = 4
EXIT_FORMATION = 5

VERSION = distribution_version("conveyor-router")

_HELP = """Run one router of a Conveyor cluster.

A cluster of one, for trying things out:

\b
    conveyor-router --node-id 1

A cluster of three; each node names the Raft addresses of the others (naming
its own too does no harm), and waits until all of them are there:

\b
    conveyor-router -n 1 -l 127.0.0.1:50051 --raft-addr 127.0.0.1:50052 \\
        --peers 127.0.0.1:50054,127.0.0.1:50056 --data-dir ./data-1
    conveyor-router -n 2 -l 127.0.0.1:50053 --raft-addr 127.0.0.1:50054 \\
        --peers 127.0.0.1:50052,127.0.0.1:50056 --data-dir ./data-2
    conveyor-router -n 3 -l 127.0.0.1:50055 --raft-addr 127.0.0.1:50056 \\
        --peers 127.0.0.1:50052,127.0.0.1:50054 --data-dir ./data-3

Each setting can stand in the file, in the environment (CONVEYOR_NODE_ID,
CONVEYOR_CLUSTER__ELECTION_TIMEOUT_MS, ...) or here; what is given here counts most.

\b
Exit codes: 0 stopped as asked, 1 stopped by itself, 2 wrong settings,
3 an address cannot be used, 4 the data directory cannot be used,
5 the cluster cannot be formed or joined.
"""


@click.command(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    help="Settings file. [default: config/router.yaml, if it exists]",
)
@click.option("--node-id", "-n", help="This router's number, unique in the cluster. [required]")
@click.option(
    "--listen-addr",
    "-l",
    help="Address to serve sidecars and clients on. [default: 127.0.0.1:50051]",
)
@click.option(
    "--raft-addr", help="Address to talk to the other routers on. [default: 127.0.0.1:50052]"
)
@click.option(
    "--peers", help="Raft addresses of the other routers, with commas. [default: a cluster of one]"
)
@click.option("--data-dir", help="Where this router's log and state live. [default: ./data]")
@click.option(
    "--advertise-addr", help="Address that clients are told. [default: the listen address]"
)
@click.option(
    "--advertise-raft-addr", help="Address that routers are told. [default: the Raft address]"
)
@click.version_option(VERSION, prog_name="conveyor-router")
def main(config: Path | None, **flags: str | None) -> None:
    """Start a router; see `_HELP`."""
    notices: list[str] = []
    try:
        settings = load_settings(
            RouterSettings, file=config, environ=os.environ, flags=flags, notify=notices.append
        )
        settings.check_binds()
    except ConfigError as error:
        _refuse(str(error), EXIT_SETTINGS)
    for notice in notices:
        click.echo(f"conveyor-router: {notice}", err=True)
    configure_logging(
        level=settings.log.level, form=settings.log.format, fields={"node_id": settings.node_id}
    )
    telemetry = configure_telemetry(
        settings.telemetry.service_name or "conveyor-router",
        version=VERSION,
        instance_id=str(settings.node_id),
        endpoint=settings.telemetry.otlp_endpoint,
    )
    try:
        asyncio.run(_run(settings))
    except (ListenError, RaftListenError) as error:
        _refuse(str(error), EXIT_ADDRESS)
    except StorageError as error:
        _refuse(str(error), EXIT_DATA)
    except FormationError as error:
        _refuse(str(error), EXIT_FORMATION)
    except NodeStopped as error:
        _refuse(str(error), _code_of(error))
    except RaftError as error:
        _refuse(str(error), EXIT_STOPPED_BY_ITSELF)
    finally:
        telemetry.shutdown()


def _code_of(error: NodeStopped) -> int:
    if isinstance(error.__cause__, FormationError):
        return EXIT_FORMATION
    return EXIT_DATA if isinstance(error.__cause__, StorageError) else EXIT_STOPPED_BY_ITSELF


async def _run(settings: RouterSettings) -> None:
    async with stop_signals() as stopping:
        await RouterProcess(settings, version=VERSION).run(stopping)


def _refuse(message: str, code: int) -> None:
    """End the process with a message for people."""
    click.echo(f"conveyor-router: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
