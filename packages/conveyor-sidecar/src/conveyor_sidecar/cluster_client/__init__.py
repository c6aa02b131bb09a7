"""The sidecar's side of the control plane: registration, heartbeats, assignments, positions."""

from conveyor_sidecar.cluster_client.assignments import Assignments, Register, Rewatch, SwapTable
from conveyor_sidecar.cluster_client.heartbeat import heartbeat_request
from conveyor_sidecar.cluster_client.positions import PositionCommitter
from conveyor_sidecar.cluster_client.registration import Registrar, SidecarIdentity

__all__ = [
    "Assignments",
    "PositionCommitter",
    "Register",
    "Registrar",
    "Rewatch",
    "SidecarIdentity",
    "SwapTable",
    "heartbeat_request",
]
