"""What `apply` answers: one shape for all commands.

What for: the proposer learns at which revision its command took effect and, for commands that are
judged item by item (position commits, expiries, a sidecar's services), which items did not. A
refusal of a whole command is `CommandRejected` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RefusalCode(StrEnum):
    """Why an item had no effect."""

    FENCED = "fenced"
    """A newer assignment term is recorded: somebody else owns the partition."""
    UNKNOWN = "unknown"
    """There is no such thing."""
    INVALID = "invalid"
    """The item contradicts what is recorded."""
    TAKEN = "taken"
    """Another living sidecar registered it first."""
    OUTDATED = "outdated"
    """The decision was about an earlier registration."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One item that had no effect; `position` is its place in the command."""

    position: int
    item: str
    code: RefusalCode
    message: str
    current_term: int = 0
    """With FENCED: the term that is recorded."""
    holder: str = ""
    """With TAKEN: the sidecar that has it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did."""

    changed: bool = False
    """Whether the state is another now."""
    revision: int = 0
    """The state's revision after it."""
    refused: tuple[Refusal, ...] = ()
    parts: tuple[Outcome, ...] = ()
    """Of a batch: one for each command, in order."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where and when an entry stands in the log: all that `apply` knows about time."""

    index: int
    timestamp_ms: int
