"""The main job on real records, with processes killed on the way.

Three routers, and a sidecar beside each of five services, all on loopback: `flights` →
`drop-cancelled` → `enrich` (two instances) → `warehouse`. At a quarter of the records the leading
router is killed with SIGKILL, at half one `enrich` instance with its sidecar; each is started again
after three seconds. At the end every row is compared with the file that it came from.

Exit code 0: nothing lost, every value right, every kill inside the flow. 1: not so. 2: wrong usage.
130: interrupted; no process is left behind in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from dataset import ARCHIVE_NAME, download, extract
from rich.console import Console
from rich.live import Live
from verify import Verdict, expected_rows, verify
from view import Scene, StageFigures

from conveyor_cli.processes import LocalCluster, LocalProcess, program, wait_until
from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import ControlError

HERE = Path(__file__).resolve().parent
PIPELINE = "flights"
ELECTION_TIMEOUT_MS, HEARTBEAT_INTERVAL_MS = 1000, 200
RESTART_AFTER_SECONDS = 3.0
PROBE_SECONDS = 0.02
POLL_SECONDS = 0.1
STALLED_SECONDS = 120.0
COUNTERS_SECONDS = 15.0


@dataclass(frozen=True)
class Kill:
    """One SIGKILL."""

    process: str
    pid: int
    at_seconds: float
    written_before: int


@dataclass
class Report:
    """What the demo found; printed as JSON with `--json`."""

    records_read: int = 0
    filtered: int = 0
    written: int = 0
    lost: int = 0
    duplicated: int = 0
    redelivered: int = 0
    seconds: float = 0.0
    records_per_second: float = 0.0
    leader_failover_seconds: float | None = None
    database: str = ""
    killed: list[Kill] = field(default_factory=list)


class Demo:
    """One run: start, watch, kill, wait for the end, verify."""

    def __init__(self, archive: Path, directory: Path, *, months: int, faults: bool) -> None:
        self.archive = archive
        self.directory = directory
        self.months = months
        self.faults = faults
        self.database = directory / "warehouse.sqlite"
        self.cluster = LocalCluster(directory)
        self.report = Report(database=str(self.database))
        self.scene = Scene(expected=0)
        self.flow_started = 0.0

    # Life -------------------------------------------------------------------------------------

    async def run(self) -> Verdict:
        """Run everything; return the verdict of the comparison."""
        data = self.directory / "data"
        extract(self.archive, data)
        self.scene.expected = len(await asyncio.to_thread(expected_rows, self.archive, self.months))
        routers, services = self.define(data)
        with self.cluster:
            self.cluster.start()
            async with LeaderChannel(self.cluster.router_addresses) as channel:
                admin = RouterAdminClient(channel)
                await self.wait_for_services(admin, routers, services)
                self.apply()
                self.flow_started = time.monotonic()
                async with asyncio.TaskGroup() as tasks:
                    watching = tasks.create_task(self.watch(admin))
                    if self.faults:
                        await self.inject(admin)
                    await self.completed()
                    self.report.seconds = round(time.monotonic() - self.flow_started, 2)
                    await self.read_counters(admin)
                    await asyncio.sleep(POLL_SECONDS)  # the last picture shows the last counters
                    watching.cancel()
        self.scene.event("comparing every row with the file")
        return await asyncio.to_thread(verify, self.archive, self.database, self.months)

    def define(self, data: Path) -> tuple[list[LocalProcess], list[LocalProcess]]:
        """Define the thirteen processes."""
        routers = self.cluster.add_routers(
            election_timeout_ms=ELECTION_TIMEOUT_MS, heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS
        )
        environment = {
            "FLIGHTS_DATA": str(data),
            "FLIGHTS_MONTHS": str(self.months),
            "WAREHOUSE_DATABASE": str(self.database),
            "HEARTBEAT_INTERVAL_SECS": "1",  # they carry the counters that the view shows
        }
        scripts = {
            "flights": "flights_source.py",
            "drop-cancelled": "drop_cancelled.py",
            "enrich-1": "enrich.py",
            "enrich-2": "enrich.py",
            "warehouse": "warehouse.py",
        }
        services: list[LocalProcess] = []
        for name, script in scripts.items():
            command = [sys.executable, str(HERE / script)]
            services.extend(self.cluster.add_service(name, command, environment))
        return routers, services

    async def wait_for_services(
        self, admin: RouterAdminClient, routers: list[LocalProcess], services: list[LocalProcess]
    ) -> None:
        """Wait until the cluster has a leader and knows all five services."""
        self.scene.event("waiting for the routers to form a cluster and for five services")

        async def registered() -> bool:
            with contextlib.suppress(ControlError):
                return len((await admin.list("Service")).resources) == len(services) // 2
            return False

        await wait_until(
            registered, "five services", timeout_seconds=60, needs=[*routers, *services]
        )

    def apply(self) -> None:
        """Apply the manifests exactly as a person would."""
        manifests = sorted(str(path) for path in HERE.glob("*.yaml"))
        flags = [flag for path in manifests for flag in ("-f", path)]
        command = [program("conveyor"), "--endpoint", self.cluster.endpoints, "apply", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"conveyor apply failed:\n{done.stdout}{done.stderr}")
        self.scene.event("conveyor apply: the pipeline is declared")

    # Watching ---------------------------------------------------------------------------------

    async def watch(self, admin: RouterAdminClient) -> None:
        """Keep the scene up to date until cancelled; stop the run when nothing moves."""
        moved, last = time.monotonic(), -1
        while True:
            self.scene.written = self.count_written()
            if self.scene.written != last:
                moved, last = time.monotonic(), self.scene.written
            if time.monotonic() - moved > STALLED_SECONDS:
                raise RuntimeError(
                    f"nothing was written for {STALLED_SECONDS:g} s; the logs are in "
                    f"{self.directory / 'logs'}"
                )
            with contextlib.suppress(ControlError):
                status = await admin.pipeline_status(PIPELINE)
                self.scene.phase = status.summary.phase
                for stage in status.stages:
                    total = stage.total
                    self.scene.stages[stage.stage] = StageFigures(
                        stage=stage.stage,
                        instances=len(stage.instances),
                        records_in=total.records_in,
                        records_out=total.records_out,
                        filtered=total.filtered,
                        dead_lettered=total.dead_lettered,
                        open_records=total.open_records,
                        rate=stage.records_per_second,
                    )
                self.scene.leader = (await self.find_leader(admin)).name
            await asyncio.sleep(POLL_SECONDS)

    def count_written(self) -> int:
        """Return how many records have been written, as the sink's table says."""
        if not self.database.exists():
            return 0
        with contextlib.closing(
            sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        ) as connection:
            try:
                return connection.execute("SELECT max(rowid) FROM deliveries").fetchone()[0] or 0
            except sqlite3.OperationalError:
                return 0

    async def find_leader(self, admin: RouterAdminClient) -> LocalProcess:
        """Return the process of the router that leads."""
        status = await admin.cluster_status()
        if not status.leader_id:
            raise ControlError("no router leads at the moment")
        return self.cluster.processes[f"router-{status.leader_id}"]

    async def completed(self) -> None:
        """Wait for the pipeline's last phase."""
        while self.scene.phase != "Completed":
            if self.scene.phase == "Failed":
                raise RuntimeError(
                    "the pipeline failed; conveyor describe pipeline flights says why"
                )
            await asyncio.sleep(POLL_SECONDS)
        self.scene.event("the pipeline is completed")

    async def read_counters(self, admin: RouterAdminClient) -> None:
        """Take Conveyor's own counters of what was read and filtered.

        Sidecars send them with their heartbeats, so the last ones may be a heartbeat away.
        """
        deadline = time.monotonic() + COUNTERS_SECONDS
        while True:
            status = await admin.pipeline_status(PIPELINE)
            stages = {stage.stage: stage.total for stage in status.stages}
            self.report.records_read = stages["flights"].records_out
            self.report.filtered = stages["drop-cancelled"].filtered
            settled = self.report.records_read - self.report.filtered == self.count_written()
            if settled or time.monotonic() > deadline:
                return
            await asyncio.sleep(POLL_SECONDS)

    # Faults -----------------------------------------------------------------------------------

    async def inject(self, admin: RouterAdminClient) -> None:
        """Kill the leader at a quarter, an `enrich` instance with its sidecar at half."""
        async with asyncio.TaskGroup() as restarts:
            await self.reached(0.25)
            leader = await self.find_leader(admin)
            self.kill(leader)
            restarts.create_task(self.restart([leader]))
            restarts.create_task(self.measure_failover(leader))
            await self.reached(0.5)
            victims = [self.cluster.processes[name] for name in ("enrich-1", "enrich-1-sidecar")]
            for victim in victims:
                self.kill(victim)
            restarts.create_task(self.restart(victims))

    async def reached(self, share: float) -> None:
        """Wait until a share of the records is written."""
        while self.count_written() < share * self.scene.expected:
            await asyncio.sleep(PROBE_SECONDS)

    def kill(self, process: LocalProcess) -> None:
        """SIGKILL, noted."""
        written = self.count_written()
        at = round(time.monotonic() - self.flow_started, 3)
        pid = process.kill()
        self.report.killed.append(Kill(process.name, pid, at, written))
        self.scene.event(f"SIGKILL {process.name} (process {pid}) after {written:,} records")

    async def restart(self, processes: list[LocalProcess]) -> None:
        """Start killed processes again after a while."""
        await asyncio.sleep(RESTART_AFTER_SECONDS)
        for process in processes:
            process.start()
            self.scene.event(f"started {process.name} again (process {process.pid})")

    async def measure_failover(self, dead: LocalProcess) -> None:
        """Measure from the kill to the first commit of a new leader, probing every 20 ms."""
        killed = time.monotonic()
        index = int(dead.name.rpartition("-")[2]) - 1
        survivors = [
            address for at, address in enumerate(self.cluster.router_addresses) if at != index
        ]
        elected: dict[str, int] = {}
        async with LeaderChannel(survivors) as channel:
            admin = RouterAdminClient(channel, timeout_s=1.0)
            while True:
                for address in survivors:
                    with contextlib.suppress(ControlError):
                        status = await admin.cluster_status(endpoint=address)
                        if status.role != "leader":
                            continue
                        # Its first own entry stands at or below the last index seen at election.
                        first = elected.setdefault(address, status.last_log_index)
                        if status.commit_index >= first:
                            seconds = round(time.monotonic() - killed, 3)
                            self.report.leader_failover_seconds = seconds
                            self.scene.event(f"router-{status.node_id} leads after {seconds} s")
                            return
                await asyncio.sleep(PROBE_SECONDS)


def problems_of(demo: Demo, verdict: Verdict) -> list[str]:
    """Return why the run is not a success, one sentence each."""
    problems = list(verdict.differences)
    if verdict.lost:
        problems.append(f"{verdict.lost} records were lost")
    if verdict.different:
        problems.append(f"{verdict.different} rows differ from the file")
    if verdict.duplicated:
        problems.append(f"{verdict.duplicated} rows are there twice or should not be there")
    for kill in demo.report.killed:
        if not 0 < kill.written_before < verdict.written:
            problems.append(f"{kill.process} was killed outside the flow")
    return problems


def flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the single exceptions of a group."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(flat(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


@contextlib.asynccontextmanager
async def interruptible() -> AsyncIterator[None]:
    """Turn SIGINT and SIGTERM into a cancellation, so that everything is stopped in order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    yield


async def drive(demo: Demo, live: Live) -> Verdict:
    """Run the demo under the live view."""
    async with interruptible():
        with live:
            return await demo.run()


def summary(console: Console, demo: Demo, verdict: Verdict) -> None:
    """Print the result for a person."""
    report = demo.report
    console.print(
        f"{report.written:,} records written in {report.seconds:g} s "
        f"({report.records_per_second:,.0f} records/s), {report.filtered:,} filtered, "
        f"{report.lost} lost, {report.duplicated} duplicated, {report.redelivered} redelivered; "
        f"{verdict.expected:,} rows compared with the file"
    )
    if report.leader_failover_seconds is not None:
        console.print(f"the next leader committed after {report.leader_failover_seconds:g} s")
    for kill in report.killed:
        console.print(
            f"killed {kill.process} (process {kill.pid}) at {kill.at_seconds:g} s, after "
            f"{kill.written_before:,} records"
        )
    console.print(f"the table: {report.database}")


@click.command(help=__doc__.split("\n\n")[1] if __doc__ else None)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on the last line.")
@click.option("--no-faults", is_flag=True, help="Kill nothing.")
@click.option(
    "--months", type=click.IntRange(1, 12), default=12, show_default=True, help="How many to read."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep database and logs here; an existing run there is replaced.",
)
@click.option(
    "--archive",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"{ARCHIVE_NAME}, if it is at hand; otherwise pip downloads it once.",
)
def main(
    as_json: bool, no_faults: bool, months: int, out: Path | None, archive: Path | None
) -> None:
    console = Console(stderr=as_json)
    directory = out or Path(tempfile.mkdtemp(prefix="conveyor-demo-"))
    for leftover in (*directory.glob("router-*"), *directory.glob("*-sidecar"), directory / "logs"):
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in directory.glob("warehouse.sqlite*"):
        leftover.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    demo = Demo(archive or download(), directory.resolve(), months=months, faults=not no_faults)
    live = Live(demo.scene, console=console, refresh_per_second=4, transient=as_json)
    try:
        verdict = asyncio.run(drive(demo, live))
    except* (asyncio.CancelledError, KeyboardInterrupt):
        console.print("interrupted; every process is stopped")
        sys.exit(130)
    except* (RuntimeError, ValueError, OSError, ControlError) as group:
        for error in flat(group):
            console.print(f"[red]{error}")
        console.print(f"every process is stopped; the logs are in {demo.directory / 'logs'}")
        sys.exit(1)
    report = demo.report
    report.written, report.lost = verdict.written, verdict.lost
    report.duplicated, report.redelivered = verdict.duplicated, verdict.redelivered
    report.records_per_second = round(report.records_read / report.seconds, 1)
    problems = problems_of(demo, verdict)
    summary(console, demo, verdict)
    for problem in problems:
        console.print(f"[red]{problem}")
    if as_json:
        print(json.dumps(asdict(report)))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
