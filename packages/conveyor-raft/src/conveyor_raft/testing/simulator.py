"""The simulator's command: many seeds, all processors, one line to replay what fails.

    python -m conveyor_raft.testing.simulator --seeds 300 --events 10000
    python -m conveyor_raft.testing.simulator --seed 17 --events 10000 --trace 50

A seed draws a cluster and its faults (`swarm`), runs it (`world`) and checks it after each event
(`invariants`). What fails is printed with its rule, and with the command that shows it again.
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
from typing import NamedTuple

from conveyor_raft.errors import InvariantViolation
from conveyor_raft.testing.clients import Clients
from conveyor_raft.testing.faults import Faults
from conveyor_raft.testing.violated import Violated
from conveyor_raft.testing.world import World

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
    "snapshots_accepted",
    "core_elections_won",
    "core_truncations",
    "applied",
    "unknown",
)


class Result(NamedTuple):
    """What one seed has shown, in so many seconds of CPU; `failure` is empty if all rules held."""

    seed: int
    events: int
    digest: int
    seconds: float
    counts: dict[str, int]
    failure: str


def run_world(world: World, events: int) -> None:
    """Run a world for so many events under its faults, then let it heal.

    Raises:
        Violated: a rule does not hold.
        InvariantViolation: a core has found out by itself.
    """
    faults = Faults(world)
    Clients(world)
    while world.events < events:
        world.step()
    faults.heal()
    world.settle()


def run_seed(seed: int, *, events: int) -> Result:
    """Run one seed to its end, or to the first rule that does not hold."""
    start = time.process_time()
    world = World(seed)
    failure = ""
    try:
        run_world(world, events)
    except (Violated, InvariantViolation) as violation:
        failure = f"{type(violation).__name__}: {violation}"
    except Exception as error:  # a crash of the core is a finding like any other
        failure = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    counts = {**world.counts, **world.network.counts}
    return Result(seed, world.events, world.digest, seconds, counts, failure)


def run_seeds(seeds: Iterable[int], *, events: int, jobs: int) -> Iterator[Result]:
    """Run seeds on several processes, no seed before one can take it; results come as ready."""
    one = partial(run_seed, events=events)
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

    def __init__(self, events: int) -> None:
        """Begin at nothing."""
        self._events_per_seed = events
        self._start = time.perf_counter()
        self._counts: Counter[str] = Counter()
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
        if result.failure:
            self.failures.append(result)
            print(f"\nseed {result.seed} after {result.events} events: {result.failure}")
            print(
                "  replay: python -m conveyor_raft.testing.simulator"
                f" --seed {result.seed} --events {self._events_per_seed} --trace 50"
            )

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


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conveyor_raft.testing.simulator")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--events", type=int, default=10_000, help="inputs to cores for each seed")
    parser.add_argument("--seed", type=int, help="run this seed alone and show its faults")
    parser.add_argument("--trace", type=int, default=0, help="with --seed: show the last N events")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--budget-seconds", type=float, help="begin no new seed after this time")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    return parser.parse_args(argv)


def _replay(seed: int, events: int, trace: int) -> int:
    world = World(seed)
    world.keep_trace(trace)
    print(f"seed {seed}: {world.knobs}")
    print(f"python {sys.version.split()[0]}")
    try:
        run_world(world, events)
    except Exception:
        for line in world.trace():
            print(line)
        print(f"{world.events} events; {world}")
        raise
    print(
        f"{world.events} events, digest {world.digest & 0xFFFFFFFFFFFFFFFF:016x}: every rule held"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if some rule did not hold."""
    arguments = _arguments(argv)
    if arguments.seed is not None:
        return _replay(arguments.seed, arguments.events, arguments.trace)
    report = Report(arguments.events)

    def seeds() -> Iterator[int]:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            if arguments.budget_seconds and report.elapsed_seconds > arguments.budget_seconds:
                print(f"the budget of {arguments.budget_seconds:g} s ends before seed {seed}")
                return
            yield seed

    for result in run_seeds(seeds(), events=arguments.events, jobs=arguments.jobs):
        report.add(result)
        report.progress(arguments.seeds)
        if report.failures and arguments.stop:
            break
    report.print()
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
