"""Which port a service listens on.

`PORT` if it is set; else the first free one of the range in which sidecars look for services
(`DISCOVERY_START_PORT` to `DISCOVERY_END_PORT`, 50051 to 50060). A port is probed before gRPC binds
it, since gRPC reports a taken one as an unexplained failure.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

from conveyor_sdk.errors import ServeError

DISCOVERY_START_PORT = 50051
DISCOVERY_END_PORT = 50060
DISCOVERY_PORTS_MAX = 1024


def candidate_ports(environ: Mapping[str, str]) -> list[int]:
    """Return the ports to try, in order.

    Raises:
        ServeError: A variable is not a port, or the range is empty or too long.
    """
    if environ.get("PORT"):
        return [_port("PORT", environ["PORT"])]
    start = _port(
        "DISCOVERY_START_PORT", environ.get("DISCOVERY_START_PORT") or str(DISCOVERY_START_PORT)
    )
    end = _port("DISCOVERY_END_PORT", environ.get("DISCOVERY_END_PORT") or str(DISCOVERY_END_PORT))
    if not start <= end < start + DISCOVERY_PORTS_MAX:
        raise ServeError(
            f"DISCOVERY_START_PORT={start} to DISCOVERY_END_PORT={end} is not a range of 1 to "
            f"{DISCOVERY_PORTS_MAX} ports"
        )
    return list(range(start, end + 1))


def is_free(host: str, port: int) -> bool:
    """Return whether nothing listens on `host`:`port` now.

    Raises:
        ServeError: This process may not listen there at all.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise ServeError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return True


def _port(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 65535:
        raise ServeError(f"{name}={text!r} is not a port; use 1 to 65535, or 0 for any")
    return int(text)
