"""The machines of a seed on the first day: voters and learners know each other, spares know nobody.

Rules kept: a machine that lost its disk comes back under its own id and as another incarnation, so
that nobody counts on what it has forgotten.
"""

from __future__ import annotations

import random
from functools import partial

from conveyor_raft.core.loading import LoadedState, first_state
from conveyor_raft.core.membership import Membership
from conveyor_raft.core.types import ClusterId, Identity, Incarnation, Member, NodeId
from conveyor_raft.testing.hosted import Account, HostedMachine
from conveyor_raft.testing.simulated_node import SimulatedNode
from conveyor_raft.testing.swarm import Knobs

_CLUSTER = ClusterId(b"simulated cluster")


def found_node(node_id: int, knobs: Knobs, rng: random.Random, account: Account) -> SimulatedNode:
    """Return one machine with the disk that it begins with."""
    members = tuple(
        Member(NodeId(other), f"node-{other}:1", "", incarnation_of(other))
        for other in range(1, knobs.nodes + knobs.learners + 1)
    )
    learners = tuple(member.node_id for member in members[knobs.nodes :])
    is_member = node_id <= len(members)
    return SimulatedNode(
        Identity(_CLUSTER, NodeId(node_id), incarnation_of(node_id)),
        knobs.options,
        random.Random(rng.getrandbits(64)),
        first_state(Membership(members, learners)) if is_member else LoadedState(),
        pipelined=knobs.pipelined_writes,
        new_machine=partial(HostedMachine, account),
    )


def incarnation_of(node_id: int, life: int = 0) -> Incarnation:
    """Return the incarnation that begins in this life of the machine."""
    return Incarnation((life << 32 | node_id).to_bytes(16, "big"))
