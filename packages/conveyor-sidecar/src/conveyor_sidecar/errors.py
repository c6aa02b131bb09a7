"""What can go wrong in the sidecar's shell, one tree.

The engine has no exceptions of its own: whatever happens to a record is an event. What stands here
are the failures of the process around it: its directory, its port, its settings and its disk. Each
message says what is wrong, where, and what the operator does next; ``exit_code`` is what the
process leaves with when the error ends it.
"""

from __future__ import annotations


class SidecarError(Exception):
    """Base of everything that the sidecar raises itself."""

    exit_code = 1


class DataDirectoryError(SidecarError):
    """The data directory cannot be used: locked by another sidecar, unwritable, or damaged."""

    exit_code = 4


class BindError(SidecarError):
    """The data plane's address cannot be bound, or may not be bound without certificates."""

    exit_code = 3


class DeadLetterError(SidecarError):
    """Dead letters could not be stored; the records stay un-ended and are offered again."""


class DeadLettersFullError(DeadLetterError):
    """The bound on a pipeline's dead letters is reached, and nothing in it is old enough to go."""


class ProbeError(SidecarError):
    """A port answers, but not as a service of ours; ``str`` says why."""


class ProtocolError(SidecarError):
    """A peer or a service sent something that its protocol does not allow."""
