"""The simulator as a function: any user's state machine under all faults, in a test of theirs."""

from __future__ import annotations

from collections.abc import Iterable

from conveyor_raft.testing.running import replay_command, run_seed
from conveyor_raft.testing.workload import Workload, workload_name


class SimulationFailed(AssertionError):  # noqa: N818 - the name is the sentence
    """A rule did not hold in a seed; the text says which, where, and how to see it again."""

    def __init__(self, seed: int, failure: str, command: str) -> None:
        super().__init__(
            f"seed {seed}: {failure}\n"
            f"  replay: {command}\n  make it smaller: the same with --shrink"
        )
        self.seed = seed


def simulate(
    workload: Workload, *, seeds: Iterable[int] = range(20), events: int = 5_000
) -> dict[str, int]:
    """Run a workload through whole clusters, each seed with faults of its own.

    Every seed draws a cluster of 1 to 7 nodes, and what goes wrong with disks, links, processes and
    clocks. After each event the rules of Raft are checked, and these of the state machine: equal
    entries give equal results and equal snapshots on all nodes; a snapshot restores what it was
    taken from; every command can be applied; a call in a session takes effect once; all answers
    together are linearizable; `Workload.check` holds. Returns the counters of all that happened.

    Raises:
        SimulationFailed: something did not hold.
    """
    total: dict[str, int] = {}
    for seed in seeds:
        result = run_seed(seed, events=events, workload=workload)
        if result.failure:
            command = replay_command(seed, events, workload_name(workload))
            raise SimulationFailed(seed, result.failure, command)
        for name, count in (*result.counts.items(), ("events", result.events)):
            total[name] = total.get(name, 0) + count
    return total
