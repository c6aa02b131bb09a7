"""Typed clients of the router's services, each over a `LeaderChannel` that several may share."""

from conveyor_grpc.clients.checkpoint import CheckpointClient
from conveyor_grpc.clients.registry import RegistryClient
from conveyor_grpc.clients.router_admin import RouterAdminClient
from conveyor_grpc.clients.sidecar import SidecarClient

__all__ = ["CheckpointClient", "RegistryClient", "RouterAdminClient", "SidecarClient"]
