"""From a failing run of thousands of events to the few without which it does not fail.

Delta debugging (Zeller and Hildebrandt, 2002) over the script of a seed: faults are calmed one kind
after the other, then faults and proposals are left out in ever smaller groups, as long as the same
rule breaks. What a run draws for one event does not depend on another (`without`), so most of what
is left out was not needed, and what remains reads as the story of the bug.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conveyor_raft.testing.running import Result, run_seed
from conveyor_raft.testing.without import CALM, Without
from conveyor_raft.testing.workload import Workload
from conveyor_raft.testing.world import World

RUNS_MAX = 400


@dataclass(frozen=True, slots=True)
class Run:
    """One failing run: what was left out, what still happened, and how it ended."""

    without: Without
    events: int
    happened: tuple[tuple[str, int], ...]
    result: Result
    world: World


class Shrinker:
    """Makes the failing run of one seed smaller."""

    def __init__(
        self, seed: int, *, events: int, workload: Workload | None = None, runs_max: int = RUNS_MAX
    ) -> None:
        """Run the seed as it is.

        Raises:
            ValueError: it does not fail.
        """
        self._seed = seed
        self._workload = workload
        self._runs_max = runs_max
        self.runs = 0
        first = self._run(Without(), events)
        if not first.result.failure:
            raise ValueError(f"seed {seed} does not fail within {events} events")
        self.first = first
        self.smallest = first

    def shrink(self, trace: int = 0) -> Run:
        """Return the smallest failing run that was found, with its last events in its trace."""
        self._calm_knobs()
        before = None
        while before != self.smallest.happened and self.runs < self._runs_max:
            before = self.smallest.happened
            self._leave_out_events()
        last = self.smallest
        return self._run(last.without, last.events, trace)

    def _calm_knobs(self) -> None:
        for name, calm in CALM.items():
            if getattr(self.smallest.world.knobs, name) != calm:
                knobs = self.smallest.without.knobs | {name}
                self._try(Without(self.smallest.without.events, knobs), _always)

    def _leave_out_events(self) -> None:
        size = max(1, len(self.smallest.happened) // 2)
        while size:
            at = 0
            while at < len(self.smallest.happened) and self.runs < self._runs_max:
                smallest = self.smallest
                group = frozenset(smallest.happened[at : at + size])
                without = Without(smallest.without.events | group, smallest.without.knobs)
                if not self._try(without, self._is_smaller):
                    at += size
            size //= 2

    def _is_smaller(self, run: Run) -> bool:
        return len(run.happened) < len(self.smallest.happened)

    def _try(self, without: Without, better: Callable[[Run], bool]) -> bool:
        run = self._run(without, self.smallest.events)
        if run.result.rule != self.first.result.rule or not better(run):
            return False
        self.smallest = run
        return True

    def _run(self, without: Without, events: int, trace: int = 0) -> Run:
        self.runs += 1
        world = World(self._seed, self._workload, without)
        world.trace.keep(trace)
        result = run_seed(self._seed, events=events, world=world)
        # One that failed under its faults fails at the same event again; none need come after.
        reached = world.events if result.failure and world.events < events else events
        return Run(without, reached, tuple(world.happened), result, world)


def _always(run: Run) -> bool:
    return True
