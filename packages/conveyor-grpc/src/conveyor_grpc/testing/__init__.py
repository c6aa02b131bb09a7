"""Real servers on free ports over in-memory nodes, for tests of whatever talks to routers."""

from conveyor_grpc.testing.routers import InProcessRouter, router_cluster

__all__ = ["InProcessRouter", "router_cluster"]
