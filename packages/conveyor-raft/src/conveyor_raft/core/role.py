"""The four roles of a node. They do not know each other; `raft_core` alone puts one for another."""

from __future__ import annotations

from conveyor_raft.core.candidate import Candidate
from conveyor_raft.core.follower import Follower
from conveyor_raft.core.leader import Leader
from conveyor_raft.core.pre_candidate import PreCandidate

Role = Follower | PreCandidate | Candidate | Leader
