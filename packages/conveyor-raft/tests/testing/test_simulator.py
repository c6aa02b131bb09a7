import os
import re
import subprocess
import sys

import pytest

from conveyor_raft.core.types import LogIndex, RaftRole
from conveyor_raft.errors import InvariantViolation
from conveyor_raft.testing.running import run_seed, run_world
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.simulator import Report, main, run_seeds
from conveyor_raft.testing.violated import Violated
from conveyor_raft.testing.world import World

COMMAND = (sys.executable, "-m", "conveyor_raft.testing.simulator")


@pytest.mark.parametrize("first", [0, 8, 16, 24])
def test_every_rule_holds_under_faults(first):
    """A short run of the real thing; the long one is `nox -s simulate`."""
    results = [run_seed(seed, events=2_500) for seed in range(first, first + 8)]
    assert [result.failure for result in results if result.failure] == []
    assert all(result.events >= 2_500 for result in results)


def test_the_faults_really_happen():
    """A green run without crashes, conflicts and snapshots would prove nothing."""
    missing = {
        *("crashes", "lost_writes", "disk_errors", "pauses", "partitions", "cut"),
        *("dropped", "duplicated", "ghosts", "snapshots_built", "snapshots_accepted"),
        *("applied", "unknown", "refused", "core_truncations", "core_conflicts"),
        *("core_snapshots_sent", "core_pauses", "core_stale"),
    }
    for seed in range(100):
        counts = run_seed(seed, events=1_500).counts
        missing -= {name for name, count in counts.items() if count}
        if not missing:
            break
    assert missing == set()


def test_a_seed_is_a_run_under_any_hash_seed():
    """The digest covers every event; two interpreters with other hash seeds agree on it."""
    digests = set()
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            (
                sys.executable,
                *["-m", "conveyor_raft.testing.simulator", "--seed", "3", "--events", "2000"],
            ),
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests |= set(re.findall(r"digest [0-9a-f]{16}", run.stdout))
    assert len(digests) == 1
    assert run_seed(3, events=2_000).digest != run_seed(4, events=2_000).digest


def test_the_command_reports_and_replays(capsys, monkeypatch):
    """What fails is printed with its rule and with one line that shows it again."""
    assert main(["--seeds", "2", "--events", "300", "--jobs", "1"]) == 0
    assert re.search(r"2 seeds, .* 0 failed\n  crashes", capsys.readouterr().out)

    def broken(self, index):
        self.commit_index = LogIndex(index - 1 if index > 3 else index)

    monkeypatch.setattr("conveyor_raft.core.replica.Replica.commit_to", broken)
    arguments = ["--events", "300", "--jobs", "1"]
    assert main(["--seeds", "9", "--stop", *arguments]) == 1
    out = capsys.readouterr().out
    replay = re.search(r"replay: python -m conveyor_raft.testing.simulator (.*)", out)
    with pytest.raises((Violated, InvariantViolation)):
        main(replay[1].split())
    assert re.search(r"^ +\d+ ms  node \d  deliver  \d->\d ", capsys.readouterr().out, re.MULTILINE)


def test_a_budget_ends_the_run(capsys):
    """No seed begins after it; what was run is reported."""
    assert main(["--seeds", "9", "--events", "100", "--jobs", "1", "--budget-seconds", "1e-9"]) == 0
    assert "the budget of 1e-09 s ends before seed 0" in capsys.readouterr().out


@pytest.mark.slow
def test_several_processes_find_the_same():
    """Each seed once, whoever runs it, with the digest that it has alone."""
    results = {result.seed: result.digest for result in run_seeds(range(7), events=200, jobs=2)}
    assert results == {seed: run_seed(seed, events=200).digest for seed in range(7)}


def test_a_core_that_stands_still_fails_the_liveness_phase(monkeypatch):
    """After everything has healed, a cluster that does nothing is a failure."""
    monkeypatch.setattr("conveyor_raft.core.raft_core.RaftCore._decide", lambda *_: None)
    with pytest.raises(Violated, match="liveness"):
        run_world(World(5), 300)


def test_the_world_describes_itself():
    """A failure says where every node stands."""
    world = next(world for world in map(World, range(99)) if not world.knobs.spares)
    for node in world.nodes.values():
        assert f"node {node.node_id} follower term 1 commit 0 applied 0 last 1" in str(world)


def test_a_state_machine_that_is_not_deterministic_is_noticed(monkeypatch):
    """Two nodes at one index in two states: named with the index, as soon as both are there."""
    apply_next = SimulatedNode.apply_next

    def apply_by_chance(self):
        frames = apply_next(self)
        if self.state_index > 20 and self.node_id == 2:
            self.machine.digest += 1
        return frames

    monkeypatch.setattr(SimulatedNode, "apply_next", apply_by_chance)
    with pytest.raises(Violated, match="at index") as caught:
        run_world(World(5), 3_000)
    assert caught.value.name == "state machine safety"


def test_the_command_says_what_the_seeds_have_reached(capsys):
    """Each fault in how many of the seeds, each message in each role, and what was never there."""
    assert main(["--seeds", "4", "--events", "1500", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"in % of seeds: crashes \d+, .*core_elections_won 100", out)
    for role in RaftRole:
        assert re.search(rf"a {role.value} was told: RequestVote [\d,]+, .*AppendAck [\d,]+", out)
    never = re.search(r"never: (.*)", out)[1].split(", ")
    assert "leader AppendAck" not in never
    assert "follower AppendEntries" not in never


def test_every_fault_is_active_in_a_tenth_of_the_seeds():
    """One that hardly ever strikes proves nothing; in runs as short as these."""
    report = Report(1_000)
    for seed in range(40):
        report.add(run_seed(seed, events=1_000))
    assert report.rare() == []
