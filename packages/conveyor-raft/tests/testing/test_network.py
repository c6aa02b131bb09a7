import random

import pytest

from conveyor_raft.testing.network import SHAPES, SimulatedNetwork, bridge, isolated, one_way, ring
from conveyor_raft.testing.swarm import Knobs, draw_knobs

NODES = range(1, 6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_partition_never_cuts_a_node_from_itself(shape):
    """Pairs of distinct, existing nodes, for clusters of any size."""
    for seed in range(50):
        rng = random.Random(seed)
        nodes = range(1, rng.randint(1, 7) + 1)
        assert all(a != b and {a, b} <= set(nodes) for a, b in shape(nodes, rng))


def test_the_shapes_are_what_they_are_called():
    """One alone; one half-deaf; everybody with two neighbours; one who hears both sides."""
    rng = random.Random(1)
    assert len(isolated(NODES, rng)) == 8
    assert len(one_way(NODES, rng)) == 4
    cut = ring(NODES, rng)
    assert all(sum((a, b) not in cut for b in NODES if b != a) == 2 for a in NODES)
    assert any(all(node not in pair for pair in bridge(NODES, rng)) for node in NODES)


def test_a_calm_network_delivers_everything_once():
    """And in order, when nothing may be reordered."""
    network = SimulatedNetwork(NODES, Knobs(delay_ms=50), random.Random(1))
    arrivals = [network.arrivals(1, 2, now) for now in range(100)]
    assert all(len(copies) == 1 for copies in arrivals)
    assert arrivals == sorted(arrivals)


def test_every_fault_happens_about_as_often_as_it_should():
    """Loss, copies, ghosts; and all of them are counted."""
    knobs = Knobs(drop=0.1, duplicate=0.1, ghost=0.1, delay_ms=5, reorder=True)
    network = SimulatedNetwork(NODES, knobs, random.Random(1))
    copies = [network.arrivals(1, 2, 0) for _ in range(10_000)]
    assert 800 < sum(len(c) == 0 for c in copies) == network.counts["dropped"] < 1_200
    assert 800 < sum(len(c) == 2 for c in copies) == network.counts["duplicated"] < 1_200
    assert 800 < sum(max(c, default=0) > 300 for c in copies) == network.counts["ghosts"] < 1_200


def test_a_cut_link_is_dead_until_it_heals():
    """In the direction that is cut."""
    network = SimulatedNetwork(NODES, Knobs(), random.Random(1))
    network.partition()
    links = [(a, b) for a in NODES for b in NODES if a != b]
    dead = [link for link in links if not network.arrivals(*link, 0)]
    assert dead
    assert network.counts["cut"] == len(dead)
    network.heal()
    assert all(network.arrivals(*link, 0) for link in links)


def test_every_fault_is_off_in_many_seeds_and_on_in_many():
    """Swarm testing: what only the absence of a fault allows is reached as well."""
    drawn = [draw_knobs(random.Random(seed)) for seed in range(300)]
    for name in ("drop", "duplicate", "ghost", "partition_every_ms", "crash_every_ms"):
        off = sum(not getattr(knobs, name) for knobs in drawn)
        assert 80 < off < 160, name
    assert {knobs.nodes for knobs in drawn} == {1, 2, 3, 4, 5, 7}
