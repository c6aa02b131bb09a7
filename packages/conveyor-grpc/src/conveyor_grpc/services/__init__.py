"""The servers' side of `conveyor.control.v1`, on top of one router's node."""

from conveyor_grpc.services.assembly import add_services
from conveyor_grpc.services.control_plane import ControlPlane, ControlPlaneOptions

__all__ = ["ControlPlane", "ControlPlaneOptions", "add_services"]
