"""The simulator's command: many seeds, all processors, one line to replay what fails.

    python -m conveyor_raft.testing.simulator --seeds 300 --events 10000
    python -m conveyor_raft.testing.simulator --seed 17 --events 10000 --trace 50
    python -m conveyor_raft.testing.simulator --seed 17 --events 10000 --shrink

A seed draws a cluster and its faults (`swarm`), runs it (`world`) and checks it after each event
(`invariants`). What fails is printed with its rule, and with the command that shows it again; with
`--shrink` that command leaves out of the run whatever is not needed for the rule to break. The
counters say what the seeds have reached: a fault that is rare, or a message that no leader was
told, proves nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from functools import partial
from typing import get_args

from conveyor_raft.core.messages import Body
from conveyor_raft.core.types import RaftRole
from conveyor_raft.testing.running import Result, replay_command, run_seed, run_world
from conveyor_raft.testing.shrinking import Shrinker
from conveyor_raft.testing.without import Without
from conveyor_raft.testing.workload import Workload, load_workload
from conveyor_raft.testing.world import World

_RARE_PERCENT = 10
_FAULTS = (
    "crashes",
    "lost_writes",
    "disk_errors",
    "pauses",
    "changes",
    "wiped",
    "partitions",
    "cut",
    "dropped",
    "duplicated",
    "ghosts",
    "streams_broken",
    "snapshots_accepted",
    "lost_tails",
    "core_recoveries",
    "transfers",
    "transferred",
    "readready",
    "readfailed",
    "lease_reads",
    "core_elections_won",
    "core_truncations",
    "applied",
    "unknown",
    "session_retries",
    "sessions_expired",
)


def _run_named(seed: int, *, events: int, workload: str) -> Result:
    return run_seed(seed, events=events, workload=load_workload(workload) if workload else None)


def run_seeds(
    seeds: Iterable[int], *, events: int, jobs: int, workload: str = ""
) -> Iterator[Result]:
    """Run seeds on several processes, no seed before one can take it; results come as ready."""
    one = partial(_run_named, events=events, workload=workload)
    if jobs == 1:
        yield from map(one, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running: set[Future[Result]] = set()
        try:
            for seed in seeds:
                running.add(pool.submit(one, seed))
                if len(running) > jobs:  # one waits, so that no process does
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in as_completed(running))
        finally:
            pool.shutdown(cancel_futures=True)


class Report:
    """The figures of many seeds."""

    def __init__(self, events: int, workload: str = "") -> None:
        """Begin at nothing."""
        self._events_per_seed = events
        self._workload = workload
        self._start = time.perf_counter()
        self._counts: Counter[str] = Counter()
        self._seeds_with: Counter[str] = Counter()
        self._heard: Counter[str] = Counter()
        self._busy_seconds = 0.0
        self.seeds = 0
        self.events = 0
        self.failures: list[Result] = []

    @property
    def elapsed_seconds(self) -> float:
        """How long it has taken."""
        return time.perf_counter() - self._start

    def add(self, result: Result) -> None:
        """Count a seed; say at once if it failed."""
        self.seeds += 1
        self.events += result.events
        self._busy_seconds += result.seconds
        self._counts.update(result.counts)
        self._seeds_with.update(name for name, count in result.counts.items() if count)
        self._heard.update(result.heard)
        if result.failure:
            self.failures.append(result)
            print(f"\nseed {result.seed} after {result.events} events: {result.failure}")
            command = replay_command(result.seed, self._events_per_seed, self._workload)
            print(f"  replay: {command}\n  make it smaller: the same with --shrink")

    def progress(self, total: int) -> None:
        """Overwrite one line."""
        if sys.stderr.isatty():
            print(f"\r{self.seeds}/{total} seeds", end="", file=sys.stderr, flush=True)

    def print(self) -> None:
        """Say what was done."""
        rate = self.events / self._busy_seconds if self._busy_seconds else 0.0
        print(
            f"{self.seeds} seeds, {self.events:,} events in {self.elapsed_seconds:.1f} s"
            f" ({rate:,.0f} for each second of CPU), {len(self.failures)} failed"
        )
        print("  " + ", ".join(f"{name} {self._counts[name]:,}" for name in _FAULTS))
        self._print_coverage()

    def _print_coverage(self) -> None:
        """Say what the seeds have reached: each fault, and each message in each role."""
        shares = ", ".join(f"{name} {self._percent(name):.0f}" for name in _FAULTS)
        print(f"  in % of seeds: {shares}")
        if rare := self.rare():
            print(f"  in less than {_RARE_PERCENT} %: {', '.join(rare)}")
        for role in RaftRole:
            counts = ", ".join(
                f"{kind.__name__} {self._heard[f'{role.value} {kind.__name__}']:,}"
                for kind in get_args(Body)
            )
            print(f"  a {role.value} was told: {counts}")
        if never := self.unheard():
            print(f"  never: {', '.join(never)}")

    def _percent(self, name: str) -> float:
        return 100 * self._seeds_with[name] / max(1, self.seeds)

    def rare(self) -> list[str]:
        """Return the faults, and what follows from them, that few seeds had."""
        return [name for name in _FAULTS if self._percent(name) < _RARE_PERCENT]

    def unheard(self) -> list[str]:
        """Return which messages no node was told in which role."""
        cells = [f"{role.value} {kind.__name__}" for role in RaftRole for kind in get_args(Body)]
        return [cell for cell in cells if not self._heard[cell]]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conveyor_raft.testing.simulator")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--events", type=int, default=10_000, help="inputs to cores for each seed")
    parser.add_argument("--seed", type=int, help="run this seed alone and show its faults")
    parser.add_argument("--trace", type=int, default=0, help="with --seed: show the last N events")
    parser.add_argument("--workload", default="", help="module:Class of a Workload")
    parser.add_argument("--without", default="", help="with --seed: what is left out of it")
    parser.add_argument("--shrink", action="store_true", help="with --seed: leave out what it can")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--budget-seconds", type=float, help="begin no new seed after this time")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    return parser.parse_args(argv)


def _replay(arguments: argparse.Namespace, workload: Workload | None) -> int:
    seed, events = arguments.seed, arguments.events
    world = World(seed, workload, Without.parse(arguments.without))
    world.trace.keep(arguments.trace)
    print(f"seed {seed}: {world.knobs}")
    print(f"python {sys.version.split()[0]}")
    try:
        run_world(world, events)
    except Exception:
        for line in world.trace.lines():
            print(line)
        print(f"{world.events} events; {world}")
        raise
    print(
        f"{world.events} events, digest {world.digest & 0xFFFFFFFFFFFFFFFF:016x}: every rule held"
    )
    return 0


def _shrink(arguments: argparse.Namespace, workload: Workload | None) -> int:
    try:
        shrinker = Shrinker(arguments.seed, events=arguments.events, workload=workload)
    except ValueError as error:
        print(error)
        return 0
    smallest = shrinker.shrink(arguments.trace or 50)
    for line in smallest.world.trace.lines():
        print(line)
    print(f"seed {arguments.seed}: {smallest.world.knobs}")
    print(
        f"{smallest.result.failure}\n"
        f"{len(smallest.happened)} faults and proposals of {len(shrinker.first.happened)} are left,"
        f" after {shrinker.runs} runs:"
        f" {', '.join(f'{name} {number}' for name, number in smallest.happened)}"
    )
    command = replay_command(arguments.seed, smallest.events, arguments.workload, smallest.without)
    print(f"  replay: {command}")
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if some rule did not hold."""
    arguments = _arguments(argv)
    workload = load_workload(arguments.workload) if arguments.workload else None
    if arguments.seed is not None:
        return (_shrink if arguments.shrink else _replay)(arguments, workload)
    report = Report(arguments.events, arguments.workload)

    def seeds() -> Iterator[int]:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            if arguments.budget_seconds and report.elapsed_seconds > arguments.budget_seconds:
                print(f"the budget of {arguments.budget_seconds:g} s ends before seed {seed}")
                return
            yield seed

    for result in run_seeds(
        seeds(), events=arguments.events, jobs=arguments.jobs, workload=arguments.workload
    ):
        report.add(result)
        report.progress(arguments.seeds)
        if report.failures and arguments.stop:
            break
    report.print()
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
