"""Finding the services beside this sidecar: a port scan, then questions by gRPC reflection."""

from conveyor_sidecar.discovery.port_scan import PortScanner
from conveyor_sidecar.discovery.reflection import DescribedService, FoundProcess, identify
from conveyor_sidecar.discovery.surroundings import Surroundings

__all__ = ["DescribedService", "FoundProcess", "PortScanner", "Surroundings", "identify"]
