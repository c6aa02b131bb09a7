"""Worlds from seeds: run the delivery engine through faults and hold it to its laws.

    python -m conveyor_sidecar.testing.simulator --seeds 2000 --jobs 2
    python -m conveyor_sidecar.testing.simulator --seed 17

A seed decides the pipeline, who runs it, all sizes and latencies, and every fault. A failing seed
prints the command that replays it, with the tale of what happened. Several engines run at once,
with a simulated network, services, routers and disks between them; sidecars die between any two
effects, links break and deliver late, services lie, owners are replaced without hearing of it.

The laws are in `ledger` (nothing lost, nothing committed before it has ended, no duplicate under
one lineage, duplicates only of what was open when something failed) and in `sidecar` (bounds of
memory, nothing held at the end); here is the last one: after the storm everything ends.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice

from conveyor_sidecar.testing.faults import Faults
from conveyor_sidecar.testing.ledger import Broken, Ledger
from conveyor_sidecar.testing.network import Network
from conveyor_sidecar.testing.router import Router
from conveyor_sidecar.testing.scenario import Scenario, scenario
from conveyor_sidecar.testing.sidecar import SimSidecar
from conveyor_sidecar.testing.world import World

HEALING_MS = 120_000
"""Virtual time after the storm in which everything must end."""
EVENTS_MAX = 300_000
"""Things that may happen in one world."""
_CHUNK = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed.

    Attributes:
        seed: Which.
        problem: The law that was broken; empty: none.
        happened: Things that happened.
        records: Source records.
        written: Writes at sinks.
        duplicates: Writes beyond the first.
        dead: Dead letters.
        faults: Kinds of faults.
        digest: Of the whole tale.
    """

    seed: int
    problem: str
    happened: int
    records: int
    written: int
    duplicates: int
    dead: int
    faults: tuple[str, ...]
    digest: int


def run(seed: int, tell: bool = False) -> Outcome:
    """Run one world to its end."""
    plan = scenario(seed)
    world = World(seed, tell)
    ledger = Ledger(plan)
    try:
        _live(plan, world, ledger)
        problem = ""
    except Broken as broken:
        problem = str(broken)
    except Exception:
        problem = traceback.format_exc()
    return Outcome(
        seed,
        problem,
        world.happened,
        plan.partitions * plan.records,
        sum(ledger.written.values()),
        ledger.duplicates,
        sum(ledger.dead.values()),
        tuple(sorted(plan.faults)),
        world.digest,
    )


def _live(plan: Scenario, world: World, ledger: Ledger) -> None:
    network = Network(world, plan.latency_ms, 0.0)
    names = [f"s{number}" for number in range(plan.sidecars)]
    sidecars = {name: SimSidecar(name, world, network, ledger) for name in names}
    router = Router(world, ledger, dict.fromkeys(names, 1))
    faults = Faults(world, ledger, network, router, sidecars)
    for sidecar in sidecars.values():
        sidecar.peers = sidecars
        sidecar.router = router
        sidecar.on_death = faults.after_death
        sidecar.start()
        sidecar.learn()
    faults.plan()
    faults.watch()
    end = plan.storm_ms + HEALING_MS
    while not (ledger.complete and world.now_ms > plan.storm_ms):
        if not world.step() or world.now_ms > end or world.happened > EVENTS_MAX:
            raise Broken(_unfinished(ledger, sidecars))
    quiet = world.now_ms + 10_000
    while world.now_ms < quiet and world.step():
        pass
    ledger.check_end()
    for sidecar in sidecars.values():
        sidecar.check_quiet()


def _unfinished(ledger: Ledger, sidecars: dict[str, SimSidecar]) -> str:
    lines = [f"not everything ends: committed {ledger.committed} of {ledger.scenario.records}"]
    for sidecar in sidecars.values():
        if sidecar.engine is not None:
            lines.append(f"{sidecar.name}: {sidecar.engine.statistics()}")
    return "\n".join(lines)


def _run_many(seeds: Sequence[int]) -> list[Outcome]:
    return [run(seed) for seed in seeds]


def run_seeds(first: int, count: int, jobs: int, budget_s: float) -> Iterator[Outcome]:
    """Run seeds in order, in `jobs` processes, until all are done or the time is spent."""
    deadline = time.monotonic() + budget_s
    chunks = [range(n, min(n + _CHUNK, first + count)) for n in range(first, first + count, _CHUNK)]
    if jobs <= 1:
        for chunk in chunks:
            for seed in chunk:
                if time.monotonic() > deadline:
                    return
                yield run(seed)
        return
    with ProcessPoolExecutor(jobs) as pool:
        waiting = iter(chunks)
        running = [pool.submit(_run_many, chunk) for chunk in _take(waiting, 2 * jobs)]
        while running:
            yield from running.pop(0).result()
            if time.monotonic() < deadline:
                running += [pool.submit(_run_many, chunk) for chunk in _take(waiting, 1)]


def _take(chunks: Iterator[range], count: int) -> list[range]:
    return list(islice(chunks, count))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds and print what came of them; 1 if a law was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m conveyor_sidecar.testing.simulator", description=(__doc__ or "")
    )
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (default 200)")
    parser.add_argument("--seed", type=int, help="replay this one, with its tale")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--budget-seconds", type=float, default=600.0, help="stop after it")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        outcome = run(options.seed, tell=True)
        print(outcome.problem or f"seed {outcome.seed} is clean")
        return 1 if outcome.problem else 0
    return _report(run_seeds(options.first, options.seeds, options.jobs, options.budget_seconds))


def _report(outcomes: Iterator[Outcome]) -> int:
    began = time.monotonic()
    total: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        total["seeds"] += 1
        total["events"] += outcome.happened
        total["records"] += outcome.records
        total["written"] += outcome.written
        total["duplicates"] += outcome.duplicates
        total["dead letters"] += outcome.dead
        faults.update(outcome.faults)
        if outcome.problem:
            print(f"seed {outcome.seed} breaks a law: {outcome.problem}")
            print("replay it with:")
            print(f"  python -m conveyor_sidecar.testing.simulator --seed {outcome.seed}")
            return 1
    seconds = time.monotonic() - began
    print(", ".join(f"{number} {name}" for name, number in total.items()))
    print("seeds with each fault: " + ", ".join(f"{k} {v}" for k, v in sorted(faults.items())))
    print(f"clean in {seconds:.1f} s, {total['events'] / max(seconds, 0.001):.0f} events/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
