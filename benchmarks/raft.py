"""Commits per second of three durable nodes in three processes, with PySyncObj beside them.

    python benchmarks/raft.py --json FILE [--seconds 3] [--runs 5]

Values of 256 bytes over loopback; the proposers are tasks within the leading process (embedded, no
client in between), each of which waits for its result before it proposes again. `propose_many`
hands over 1,024 at a time. The baseline is PySyncObj with its journal file, driven the same way
with callbacks; it never flushes its journal, so it promises less. What is measured shares the
processors of one machine: trust the ratios, not the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conveyor_raft import RaftConfig, RaftNode

PROPOSERS = (1, 64, 1_024)
MANY = 1_024
VALUE = b"x" * 256
NODES = 3
WARM_UP_SECONDS = 1.0
START_SECONDS = 30.0


# ---------------------------------------------------------------------- a node of our own


class Discard:
    """The cheapest state machine: it counts."""

    def __init__(self) -> None:
        self.state = 0

    def apply(self, entry: Any) -> int:
        self.state += 1
        return self.state

    def snapshot(self) -> bytes:
        return self.state.to_bytes(8, "little")

    def restore(self, data: bytes) -> None:
        self.state = int.from_bytes(data, "little")

    def encode_command(self, command: bytes) -> bytes:
        return command

    def decode_command(self, data: bytes) -> bytes:
        return data


async def measure(node: Any, proposers: int, seconds: float) -> dict[str, float]:
    """Let the proposers run for a while; return the rate and the latencies in ms."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def one() -> None:
        while (begin := time.perf_counter()) < until:
            await node.propose(VALUE)
            latencies.append(time.perf_counter() - begin)

    async def many() -> None:
        commands = [VALUE] * MANY
        while (begin := time.perf_counter()) < until:
            await node.propose_many(commands)
            latencies.extend([time.perf_counter() - begin] * MANY)

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(proposers or 4):
            group.create_task(one() if proposers else many())
    return summary(latencies, time.perf_counter() - begin)


def summary(latencies: list[float], seconds: float) -> dict[str, float]:
    latencies.sort()
    count = len(latencies)
    if not count:
        return {"rate": 0.0, "p50": 0.0, "p99": 0.0}
    return {
        "rate": count / seconds,
        "p50": latencies[count // 2] * 1000,
        "p99": latencies[min(count - 1, count * 99 // 100)] * 1000,
    }


async def serve_node(number: int, addresses: list[str], folder: Path) -> None:
    """Run one node; obey lines on standard input, answer on standard output."""
    config = RaftConfig(
        node_id=number,
        data_dir=folder / str(number),
        listen_address=addresses[number - 1],
        election_timeout_min_ms=1000,
        election_timeout_max_ms=2000,
        heartbeat_interval_ms=200,
        propose_timeout_ms=30_000,
    )
    async with RaftNode(config, Discard(), addresses) as node:
        await node.wait_for_leader(START_SECONDS)
        say({"ready": number})
        while line := await asyncio.to_thread(sys.stdin.readline):
            proposers, seconds = json.loads(line)
            if not node.is_leader:
                say({"leader": False})
            else:
                say({"leader": True, **await measure(node, proposers, seconds)})


# ---------------------------------------------------------------------- a node of PySyncObj


def serve_pysyncobj(number: int, addresses: list[str], folder: Path) -> None:
    """The same for PySyncObj, whose callbacks run in its own thread."""
    from pysyncobj import SyncObj, SyncObjConf, replicated  # noqa: PLC0415 - may be missing

    class Values(SyncObj):  # type: ignore[misc]
        def __init__(self) -> None:
            own = addresses[number - 1]
            journal = str(folder / f"journal-{number}")
            others = [address for address in addresses if address != own]
            super().__init__(own, others, SyncObjConf(journalFile=journal))
            self.count = 0

        @replicated  # type: ignore[misc]
        def add(self, value: bytes) -> int:
            self.count += 1
            return self.count

    node = Values()
    until = time.monotonic() + START_SECONDS
    while node._getLeader() is None and time.monotonic() < until:
        time.sleep(0.05)
    say({"ready": number})
    for line in sys.stdin:
        outstanding, seconds = json.loads(line)
        if node._getLeader() is None or not node._isLeader():
            say({"leader": False})
        else:
            say({"leader": True, **measure_callbacks(node.add, outstanding, seconds)})


def measure_callbacks(
    propose: Callable[..., None], outstanding: int, seconds: float
) -> dict[str, float]:
    latencies: list[float] = []
    begin = time.perf_counter()
    until = begin + seconds
    open_calls = outstanding
    finished = threading.Event()

    def start() -> None:
        since = time.perf_counter()

        def done(result: Any, error: Any) -> None:
            nonlocal open_calls
            now = time.perf_counter()
            if not error:
                latencies.append(now - since)
            if now < until:
                start()
            else:
                open_calls -= 1
                if not open_calls:
                    finished.set()

        propose(VALUE, callback=done)

    for _ in range(outstanding):
        start()
    finished.wait(seconds + 30)
    return summary(latencies, time.perf_counter() - begin)


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


# ---------------------------------------------------------------------- the orchestra


class Cluster:
    """Three processes, commanded over their standard input."""

    def __init__(self, kind: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="raft-bench-"))
        addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(NODES))
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, __file__, "--serve", kind, "--number", str(number)),
                    *("--addresses", addresses, "--folder", str(self.folder)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for number in range(1, NODES + 1)
        ]
        for process in self.processes:
            self._answer(process)

    def run(self, proposers: int, seconds: float) -> dict[str, float]:
        """Measure on whichever node leads."""
        for _ in range(10):
            answers = []
            for process in self.processes:
                assert process.stdin is not None
                process.stdin.write(json.dumps([proposers, seconds]) + "\n")
                process.stdin.flush()
                answers.append(self._answer(process))
            for answer in answers:
                if answer["leader"]:
                    return answer
            time.sleep(1)
        raise RuntimeError("no node leads")

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _answer(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("a node has ended; run it by hand to see why")
        return json.loads(line)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def measure_kind(
    kind: str, cases: tuple[int, ...], runs: int, seconds: float
) -> dict[int, list[dict[str, float]]]:
    cluster = Cluster(kind)
    try:
        results: dict[int, list[dict[str, float]]] = {}
        for case in cases:
            cluster.run(case, WARM_UP_SECONDS)
            results[case] = [cluster.run(case, seconds) for _ in range(runs)]
        return results
    finally:
        cluster.close()


def case_name(proposers: int) -> str:
    return f"{proposers:,} proposers" if proposers else f"propose_many of {MANY:,}, 4 in flight"


def rows_of(
    ours: dict[int, list[dict[str, float]]], peer: dict[int, list[dict[str, float]]]
) -> list[dict[str, Any]]:
    rows = []
    for proposers, measured in ours.items():
        beside = peer.get(proposers)
        for metric, unit in (("rate", "commits/s"), ("p50", "ms"), ("p99", "ms")):
            values = [one[metric] for one in measured]
            median = statistics.median(values)
            baseline = statistics.median(one[metric] for one in beside) if beside else None
            rows.append(
                {
                    "bench": "raft",
                    "case": case_name(proposers),
                    "metric": metric,
                    "unit": unit,
                    "median": median,
                    "min": min(values),
                    "max": max(values),
                    "runs": len(values),
                    "baseline": baseline,
                    "ratio": median / baseline if baseline else None,
                }
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--serve", choices=("conveyor", "pysyncobj"), help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--addresses", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve == "conveyor":
        addresses = arguments.addresses.split(",")
        asyncio.run(serve_node(arguments.number, addresses, arguments.folder))
        return 0
    if arguments.serve == "pysyncobj":
        serve_pysyncobj(arguments.number, arguments.addresses.split(","), arguments.folder)
        return 0
    ours = measure_kind("conveyor", (*PROPOSERS, 0), arguments.runs, arguments.seconds)
    peer: dict[int, list[dict[str, float]]] = {}
    if importlib.util.find_spec("pysyncobj") is None:
        print("raft: skipped the comparison with PySyncObj: pysyncobj is not installed")
    else:
        peer = measure_kind("pysyncobj", PROPOSERS, arguments.runs, arguments.seconds)
    rows = rows_of(ours, peer)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        beside = "" if row["ratio"] is None else f"  ({row['ratio']:.3g} x PySyncObj)"
        print(f"raft: {row['case']}: {row['median']:,.4g} {row['unit']} {row['metric']}{beside}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
