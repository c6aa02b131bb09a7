"""Local processes under one roof: routers, sidecars and services on loopback.

For demonstrations, tests and development, where a person would otherwise open a dozen terminals.
Each process writes its own log file, runs in a process group of its own (so that Ctrl-C reaches
only whoever started the cluster, who then stops the others in order) and is known by name. Nothing
is left behind: `LocalCluster` is a context manager, and leaving it stops everything it started.

What the processes are is decided here once (`add_routers`, `add_sidecar`, `add_service`); how they
fail is up to the caller: `kill` is SIGKILL, `stop` is SIGTERM with a deadline, `pause` and `resume`
are SIGSTOP and SIGCONT, `start` starts the same process again on the same ports and data.

All calls are meant for one thread; `wait_until` leaves the event loop free while it waits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["LocalCluster", "LocalProcess", "ProcessFailedError", "free_ports", "wait_until"]

LOG_TAIL_LINES = 20
CLOSE_SECONDS = 10.0


class ProcessFailedError(RuntimeError):
    """A process ended, or did not do in time what was waited for; the message shows its log."""


def free_ports(count: int) -> list[int]:
    """Return `count` different loopback ports that nobody listens on now.

    They are held together until all are chosen, so no two are equal. Another program may still take
    one before it is used; whoever binds it then says so.
    """
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass
class LocalProcess:
    """One process that can be started, killed and started again.

    Attributes:
        name: Unique in its cluster; also the name of the log file.
        command: Program and arguments.
        environment: Variables set on top of the caller's own.
        log: The file that takes both of its outputs, appended to over restarts.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; an already running one is an error."""
        if self.running:
            raise ProcessFailedError(f"{self.name} is already running as process {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the latest start."""
        if self._process is None:
            raise ProcessFailedError(f"{self.name} was never started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll() if self._process else None

    def kill(self) -> int:
        """End it with SIGKILL, at once and without its consent; return the process id it had."""
        pid = self.pid
        self._signal(signal.SIGKILL)
        self._wait(None)
        return pid

    def terminate(self) -> None:
        """Ask it to end (SIGTERM) without waiting; a paused one is resumed first."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)

    def stop(self, timeout_seconds: float = 30.0) -> int:
        """Ask it to end, insist with SIGKILL after the time-out; return the exit code."""
        self.terminate()
        return self.join(timeout_seconds)

    def join(self, timeout_seconds: float) -> int:
        """Wait for the end, insist with SIGKILL after the time-out; return the exit code."""
        if not self._wait(timeout_seconds):
            self._signal(signal.SIGKILL)
            self._wait(None)
        return self.exit_code or 0

    def pause(self) -> None:
        """Freeze it (SIGSTOP): it holds its ports and answers nobody."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Return the last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)

    def _wait(self, timeout_seconds: float | None) -> bool:
        """Wait for the end; False when the time-out came first."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


async def wait_until(
    condition: Callable[[], Awaitable[bool] | bool],
    what: str,
    *,
    timeout_seconds: float = 30.0,
    needs: Sequence[LocalProcess] = (),
) -> None:
    """Poll until the condition holds.

    Args:
        condition: Called every 20 ms; a plain function or a coroutine function.
        what: What is waited for, for the error.
        timeout_seconds: How long at most.
        needs: Processes without which it cannot come true.

    Raises:
        ProcessFailedError: The time is over, or a needed process ended; with the end of its log.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        holds = condition()
        if await holds if isinstance(holds, Awaitable) else holds:
            return
        for process in needs:
            if not process.running:
                raise ProcessFailedError(
                    f"{process.name} ended with code {process.exit_code} while waiting for {what}; "
                    f"its log {process.log} ends with:\n{process.tail()}"
                )
        if time.monotonic() > deadline:
            tails = "\n".join(f"── {each.name}\n{each.tail()}" for each in needs)
            raise ProcessFailedError(f"waited {timeout_seconds:g} s in vain for {what}\n{tails}")
        await asyncio.sleep(0.02)


class LocalCluster:
    """Processes of one cluster below one directory; leaving the context stops them all.

    Args:
        directory: Gets `logs/` and the processes' data directories.
        environment: Variables for every process, for example an OTLP endpoint.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.environment = dict(environment or {})
        self.processes: dict[str, LocalProcess] = {}
        self.router_addresses: list[str] = []

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def endpoints(self) -> str:
        """The routers' client addresses, comma separated, as `CLUSTER_ENDPOINT` takes them."""
        return ",".join(self.router_addresses)

    def add(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> LocalProcess:
        """Define a process without starting it."""
        if name in self.processes:
            raise ProcessFailedError(f"there is already a process named {name}")
        process = LocalProcess(
            name,
            command,
            self.directory / "logs" / f"{name}.log",
            {**self.environment, **(environment or {})},
        )
        self.processes[name] = process
        return process

    def add_routers(
        self,
        count: int = 3,
        *,
        election_timeout_ms: int = 1000,
        heartbeat_interval_ms: int = 200,
        environment: Mapping[str, str] | None = None,
    ) -> list[LocalProcess]:
        """Define `count` routers `router-1` … on free ports, started by the documented flags."""
        ports = free_ports(2 * count)
        self.router_addresses = [f"127.0.0.1:{port}" for port in ports[:count]]
        raft_addresses = [f"127.0.0.1:{port}" for port in ports[count:]]
        settings = {
            "CONVEYOR_CLUSTER__ELECTION_TIMEOUT_MS": str(election_timeout_ms),
            "CONVEYOR_CLUSTER__HEARTBEAT_INTERVAL_MS": str(heartbeat_interval_ms),
            **(environment or {}),
        }
        routers = []
        for index in range(count):
            peers = [address for address in raft_addresses if address != raft_addresses[index]]
            command = [
                program("conveyor-router"),
                f"--node-id={index + 1}",
                f"--listen-addr={self.router_addresses[index]}",
                f"--raft-addr={raft_addresses[index]}",
                f"--data-dir={self.directory / f'router-{index + 1}'}",
                *([f"--peers={','.join(peers)}"] if peers else []),
            ]
            routers.append(self.add(f"router-{index + 1}", command, settings))
        return routers

    def add_service(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> tuple[LocalProcess, LocalProcess]:
        """Define a user's service on a free port and the sidecar beside it, which sees it alone."""
        port, sidecar_port = free_ports(2)
        service = self.add(name, command, {"PORT": str(port), **(environment or {})})
        return service, self.add_sidecar(f"{name}-sidecar", sidecar_port, [port], environment)

    def add_sidecar(
        self,
        name: str,
        port: int,
        service_ports: Sequence[int],
        environment: Mapping[str, str] | None = None,
    ) -> LocalProcess:
        """Define a sidecar on `port` that scans from the first to the last of the given ports."""
        return self.add(
            name,
            [program("conveyor-sidecar")],
            {
                "SIDECAR_ID": name,
                "POD_NAME": name,
                "CLUSTER_ENDPOINT": self.endpoints,
                "GRPC_PORT": str(port),
                "DISCOVERY_START_PORT": str(min(service_ports)),
                "DISCOVERY_END_PORT": str(max(service_ports)),
                "CONVEYOR_DATA_DIR": str(self.directory / name),
                **(environment or {}),
            },
        )

    def start(self) -> None:
        """Start every process that does not run."""
        for process in self.processes.values():
            if not process.running:
                process.start()

    def close(self) -> None:
        """Stop everything: services and sidecars before routers, all of a kind at once."""
        routers = [each for name, each in self.processes.items() if name.startswith("router-")]
        others = [each for each in self.processes.values() if each not in routers]
        for group in (others, routers):
            for process in group:
                process.terminate()
            deadline = time.monotonic() + CLOSE_SECONDS
            for process in group:
                process.join(max(0.1, deadline - time.monotonic()))


def program(name: str) -> str:
    """Return the path of one of our programs, installed beside this interpreter."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise ProcessFailedError(
            f"{name} is not installed beside {sys.executable}: pip install {name}"
        )
    return str(path)
