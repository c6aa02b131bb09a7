"""Carries Conveyor between processes: servers, clients, interceptors, one error table."""

from conveyor_grpc.channel import LeaderChannel
from conveyor_grpc.errors import ControlError
from conveyor_grpc.server import Server, ServerOptions

__all__ = ["ControlError", "LeaderChannel", "Server", "ServerOptions"]
