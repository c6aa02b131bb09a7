"""Puts all services of a router on a server."""

from __future__ import annotations

from conveyor_grpc.server import Server
from conveyor_grpc.services.checkpoint import CheckpointServicer
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_grpc.services.registry import RegistryServicer
from conveyor_grpc.services.router_admin import RouterAdminServicer
from conveyor_grpc.services.sidecar import SidecarServicer
from conveyor_grpc.wire import (
    admin_pb2_grpc,
    checkpoint_pb2_grpc,
    registry_pb2_grpc,
    sidecar_pb2_grpc,
)

SERVICE_NAMES = (
    "conveyor.control.v1.RegistryService",
    "conveyor.control.v1.SidecarService",
    "conveyor.control.v1.CheckpointService",
    "conveyor.control.v1.RouterAdmin",
)


def add_services(server: Server, plane: ControlPlane) -> None:
    """Add the four services to `server`, before it starts."""
    target = server.open()
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(RegistryServicer(plane), target)
    sidecar_pb2_grpc.add_SidecarServiceServicer_to_server(SidecarServicer(plane), target)
    checkpoint_pb2_grpc.add_CheckpointServiceServicer_to_server(CheckpointServicer(plane), target)
    admin_pb2_grpc.add_RouterAdminServicer_to_server(RouterAdminServicer(plane), target)
    server.offers(SERVICE_NAMES)
