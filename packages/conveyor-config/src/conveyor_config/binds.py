"""Which addresses may be bound, and which may be told to others.

Without certificates a process talks to anybody who can reach it, so it binds loopback alone unless
the operator says ``CONVEYOR_INSECURE=true`` in so many words. An address that others are told must
name one host: a wildcard names none.
"""

import ipaddress

from conveyor_config.errors import InsecureBindRefused
from conveyor_registry.model import split_endpoint


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address (``host:port``).

    A host name other than ``localhost`` counts as reachable: what it resolves to may change.
    """
    host = split_endpoint(address)[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(address: str) -> bool:
    """Whether the address (``host:port``) stands for all of a machine's own."""
    try:
        return ipaddress.ip_address(split_endpoint(address)[0]).is_unspecified
    except ValueError:
        return False


def check_bind(address: str, *, insecure: bool) -> None:
    """Refuse an address that others could reach without certificates.

    Raises:
        InsecureBindRefused: naming the address and both ways out.
    """
    if not insecure and not is_loopback(address):
        raise InsecureBindRefused(address)
