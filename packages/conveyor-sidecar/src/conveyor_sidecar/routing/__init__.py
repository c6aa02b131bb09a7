"""Where records go: the routing table, the way to local services and the way to other sidecars."""

from conveyor_sidecar.routing.client_pool import ClientPool
from conveyor_sidecar.routing.local_router import LocalRouter
from conveyor_sidecar.routing.remote_router import RemoteRouter
from conveyor_sidecar.routing.routing_table import LocalService, Routes, RoutingTable, translate

__all__ = [
    "ClientPool",
    "LocalRouter",
    "LocalService",
    "RemoteRouter",
    "Routes",
    "RoutingTable",
    "translate",
]
