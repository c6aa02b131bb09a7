"""The data plane: source → sidecar → transform → sidecar → sink, against the same without sidecars.

    python benchmarks/dataplane.py --json FILE [--runs N] [--quick]

Plain gRPC services (no SDK server), records of 200 bytes, frames of 1, 100 and 500. Direct is one
client that reads, transforms and writes with 16 batches in flight and keeps no account of anything;
through sidecars the same records are in custody until they are done, with retries, dead letters and
committed positions. Runs of both kinds alternate on the same service processes, so that their ratio
means something on a shared machine. The CPU time of each sidecar is read from the kernel.

Left out, and said so at the end: other proxies in the sidecars' places, the stream carrier,
latency of single records.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conveyor_cli.processes import LocalCluster, LocalProcess, free_ports, wait_until
from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import ControlError
from conveyor_registry.model import Pipeline

CHAIN = Path(__file__).resolve().parent / "chain"
KINDS = ("source", "transform", "sink")
COUNTS = {1: 4_000, 100: 150_000, 500: 400_000}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Chain:
    """The processes of the benchmark and what was measured on them."""

    cluster: LocalCluster
    ports: dict[str, int]
    sidecars: tuple[LocalProcess, LocalProcess]
    admin: RouterAdminClient
    directory: Path
    number: int = 0
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    cpu: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    async def direct(self, batch: int, count: int) -> None:
        """One run without sidecars."""
        report = self._report()
        arguments = [str(self.ports[kind]) for kind in KINDS] + [
            str(count),
            str(batch),
            str(report),
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CHAIN / "direct.py"), *arguments
        )
        if await process.wait():
            raise RuntimeError(f"the direct chain ended with code {process.returncode}")
        self._note("direct", batch, count, report)

    async def through_sidecars(self, batch: int, count: int) -> None:
        """One run of a pipeline, from its first written record to its last."""
        report = self._report()
        name = f"bench-{self.number}"
        config = {"count": str(count), "batch": str(batch), "report": str(report)}
        document = {
            "apiVersion": "conveyor/v1",
            "kind": "Pipeline",
            "metadata": {"name": name},
            "spec": {
                "stages": [
                    {
                        "id": kind,
                        kind: f"bench-{kind}",
                        "config": config,
                        "batch": {"records": batch},
                    }
                    for kind in KINDS
                ]
            },
        }
        before = [cpu_seconds(sidecar.pid) for sidecar in self.sidecars]
        await self.admin.apply([Pipeline.of(document).canonical()])
        needs = [*self.cluster.processes.values()]
        await wait_until(report.exists, f"{name} to end", timeout_seconds=120, needs=needs)
        after = [cpu_seconds(sidecar.pid) for sidecar in self.sidecars]
        await self.admin.delete("Pipeline", name)
        self._note("sidecars", batch, count, report)
        for sidecar, used, earlier in zip(self.sidecars, after, before, strict=True):
            self.cpu.setdefault((sidecar.name, batch), []).append((used - earlier) / count * 1e6)

    def forget_warm_up(self, batch: int) -> None:
        """Leave the first run of a frame size out of the figures."""
        for figures in (self.rates, self.cpu):
            for key in [key for key in figures if key[1] == batch]:
                del figures[key]

    def _report(self) -> Path:
        self.number += 1
        return self.directory / f"report-{self.number}"

    def _note(self, case: str, batch: int, count: int, report: Path) -> None:
        written, first, last = (float(word) for word in report.read_text().split())
        if written < count:
            raise RuntimeError(f"{case}: {written:.0f} of {count} records arrived")
        self.rates.setdefault((case, batch), []).append(count / (last - first))


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def adjacent_ports() -> tuple[int, int]:
    """Two free ports side by side, so that one sidecar's scan sees both and no other."""
    for port in free_ports(50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port, port + 1
    raise RuntimeError("no two adjacent ports are free")


async def measure(
    runs: int, counts: dict[int, int], directory: Path, profile: Path | None
) -> Chain:
    """Start everything, run both kinds in turn, stop everything."""
    with LocalCluster(directory) as cluster:
        cluster.add_routers(1)
        source, transform = adjacent_ports()
        sink, near, far = free_ports(3)
        ports = {"source": source, "transform": transform, "sink": sink}
        for kind, port in ports.items():
            command = [sys.executable, str(CHAIN / "plain_services.py"), kind, str(port)]
            cluster.add(f"bench-{kind}", command)
        sidecars = (
            cluster.add_sidecar("near", near, [source, transform]),
            cluster.add_sidecar("far", far, [sink]),
        )
        if profile is not None:
            profiler = [sys.executable, "-m", "cProfile", "-o", str(profile)]
            sidecars[0].command = [*profiler, "-m", "conveyor_sidecar"]
        cluster.start()
        async with LeaderChannel(cluster.router_addresses) as channel:
            chain = Chain(cluster, ports, sidecars, RouterAdminClient(channel), directory)

            async def registered() -> bool:
                with contextlib.suppress(ControlError):
                    return len((await chain.admin.list("Service")).resources) == len(KINDS)
                return False

            await wait_until(registered, "the services to be registered", timeout_seconds=30)
            for batch, count in counts.items():
                await chain.direct(batch, count // 4)
                await chain.through_sidecars(batch, count // 4)
                chain.forget_warm_up(batch)
                for turn in range(runs):
                    await chain.direct(batch, count)
                    await chain.through_sidecars(batch, count)
                    print(f"frames of {batch}: run {turn + 1} of {runs}", file=sys.stderr)
        return chain


def rows_of(chain: Chain) -> list[dict[str, Any]]:
    """The rows, in the form that all benchmarks share."""
    rows = []
    for (case, batch), rates in chain.rates.items():
        direct = chain.rates["direct", batch]
        rows.append(
            row(
                f"{case}, frames of {batch} x 200 B",
                ("throughput", "records/s"),
                rates,
                "" if case == "direct" else "direct gRPC without sidecars",
                None if case == "direct" else statistics.median(rates) / statistics.median(direct),
            )
        )
    for (sidecar, batch), seconds in chain.cpu.items():
        limit = 4.0 if batch == 500 and sidecar == "near" else None
        rows.append(
            row(
                f"sidecar {sidecar}, frames of {batch} x 200 B",
                ("cpu per million records", "s"),
                seconds,
                "4 s, calling a plain gRPC service" if limit else "",
                statistics.median(seconds) / limit if limit else None,
            )
        )
    return rows


def row(
    case: str, metric: tuple[str, str], values: Sequence[float], baseline: str, ratio: float | None
) -> dict[str, Any]:
    return {
        "bench": "dataplane",
        "case": case,
        "metric": metric[0],
        "unit": metric[1],
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "runs": len(values),
        "baseline": baseline,
        "ratio": ratio,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the records, two runs")
    parser.add_argument("--frames", type=int, choices=tuple(COUNTS), help="only this frame size")
    parser.add_argument("--profile", type=Path, help="write the near sidecar's cProfile here")
    arguments = parser.parse_args()
    counts = {
        batch: count // 10 if arguments.quick else count
        for batch, count in COUNTS.items()
        if arguments.frames in (None, batch)
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = 2 if arguments.quick else arguments.runs
        chain = asyncio.run(measure(runs, counts, Path(folder), arguments.profile))
    rows = rows_of(chain)
    for item in rows:
        ratio = "" if item["ratio"] is None else f"  {item['ratio']:.2f} of {item['baseline']}"
        print(f"{item['case']}: {item['median']:,.4g} {item['unit']}{ratio}", file=sys.stderr)
    print(
        "skipped: nginx, HAProxy, Envoy and a bare grpcio proxy in the sidecars' places, the "
        "stream carrier, single-record latency (not part of this form of the benchmark)",
        file=sys.stderr,
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
