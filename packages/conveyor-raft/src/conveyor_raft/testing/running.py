"""One seed from its start to its end, or to the first rule that does not hold."""

from __future__ import annotations

import time
from typing import NamedTuple

from conveyor_raft.testing.clients import Clients
from conveyor_raft.testing.faults import Faults
from conveyor_raft.testing.readers import Readers
from conveyor_raft.testing.settling import Settling
from conveyor_raft.testing.violated import Violated
from conveyor_raft.testing.without import Without
from conveyor_raft.testing.workload import Workload
from conveyor_raft.testing.world import World


class Result(NamedTuple):
    """What one seed has shown, in so many seconds of CPU; `failure` is empty if all rules held.

    `counts` are the faults and what came of them, `heard` how often a node in a role was told a
    message of a kind, `rule` the name of the rule that did not hold.
    """

    seed: int
    events: int
    digest: int
    seconds: float
    counts: dict[str, int]
    heard: dict[str, int]
    failure: str
    rule: str


def run_world(world: World, events: int) -> None:
    """Run a world for so many events under its faults, then let it heal.

    Raises:
        Violated: a rule does not hold.
        InvariantViolation: a core has found out by itself.
    """
    faults = Faults(world)
    Readers(world, Clients(world))
    while world.events < events:
        world.step()
    faults.heal()
    Settling(world).run()


def run_seed(
    seed: int,
    *,
    events: int,
    workload: Workload | None = None,
    without: Without | None = None,
    world: World | None = None,
) -> Result:
    """Run one seed to its end, or to the first rule that does not hold.

    A `world` made of the seed beforehand can be looked at afterwards.
    """
    start = time.process_time()
    world = world or World(seed, workload, without)
    failure = rule = ""
    try:
        run_world(world, events)
    except Exception as error:  # a crash of the core is a finding like any other
        rule = error.name if isinstance(error, Violated) else type(error).__name__
        failure = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    counts = {**world.counts, **world.network.counts}
    heard = {f"{role} {kind.__name__}": n for (role, kind), n in world.heard.items()}
    return Result(seed, world.events, world.digest, seconds, counts, heard, failure, rule)


def replay_command(
    seed: int, events: int, workload: str = "", without: Without | None = None
) -> str:
    """Return the command that shows a seed again."""
    parts = [f"python -m conveyor_raft.testing.simulator --seed {seed} --events {events}"]
    if workload:
        parts.append(f"--workload {workload}")
    if without is not None and str(without):
        parts.append(f"--without '{without}'")
    return " ".join([*parts, "--trace 50"])
