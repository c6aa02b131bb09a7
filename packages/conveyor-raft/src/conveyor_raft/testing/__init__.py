"""Fakes, a simulator and an in-memory cluster, for this package's tests and for its users'."""

from conveyor_raft.testing.cluster import memory_cluster, wait_for_leader

__all__ = ["memory_cluster", "wait_for_leader"]
