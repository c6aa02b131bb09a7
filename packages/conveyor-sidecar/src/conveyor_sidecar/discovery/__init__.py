"""Finding the services beside this sidecar: a port scan, then questions by gRPC reflection."""

from conveyor_sidecar.discovery.port_scan import PortScanner
from conveyor_sidecar.discovery.reflection import DescribedService, FoundProcess, identify

__all__ = ["DescribedService", "FoundProcess", "PortScanner", "identify"]
