"""Bytes that this release cannot read, and what to say about them.

Rules kept: a command or a snapshot of a newer release is never guessed at and never skipped; the
error says which release wrote it and what to do.
"""

from __future__ import annotations

import json


class UnknownCommand(ValueError):  # noqa: N818 - a sentence about the command
    """The bytes hold no command of this release; a node that applies must stop here."""


class SnapshotRefused(ValueError):  # noqa: N818 - a sentence about the snapshot
    """The bytes are no snapshot of the router's state, or one of a newer release."""


def why_unknown(data: bytes, known_version: int, error: Exception) -> str:
    """The reason in words, for bytes that should have been a command."""
    try:
        envelope = json.loads(data)
        version, kind = envelope["version"], envelope["command"]["kind"]
    except (ValueError, KeyError, TypeError):
        return "not an envelope of a router command; the log was written by something else"
    if version != known_version:
        return f"the command has version {version!r}, this release knows {known_version}; upgrade"
    return f"this release cannot read the command {kind!r}; upgrade this node: {error}"
