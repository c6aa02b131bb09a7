"""Fakes, a simulator and an in-memory cluster, for this package's tests and for its users'.

`simulate` runs a user's state machine (`Workload`) through clusters under faults; `check` says
whether a history of calls is linearizable; `memory_cluster` is a cluster of real nodes in memory.
"""

from conveyor_raft.testing.cluster import memory_cluster, wait_for_leader
from conveyor_raft.testing.histories import (
    KeyValueModel,
    Model,
    Operation,
    RegisterModel,
    StateMachineModel,
)
from conveyor_raft.testing.linearizability import Answer, Verdict, check
from conveyor_raft.testing.simulate import SimulationFailed, simulate
from conveyor_raft.testing.workload import KeyValueWorkload, Workload

__all__ = [
    "Answer",
    "KeyValueModel",
    "KeyValueWorkload",
    "Model",
    "Operation",
    "RegisterModel",
    "SimulationFailed",
    "StateMachineModel",
    "Verdict",
    "Workload",
    "check",
    "memory_cluster",
    "simulate",
    "wait_for_leader",
]
