"""How conveyor-registry says no, each error named after the caller's next move.

What for: refusals of the replicated log (`NotLeader`, `CommandRejected`, `UnknownOutcome` ...) pass
through unchanged, because their owner says best what to do. These are the registry's own.
"""

# The names are sentences about the outcome, so they do not end in "Error".
# ruff: noqa: N818

from __future__ import annotations

from typing import Self

from pydantic import ValidationError


class RegistryError(Exception):
    """The root of everything that conveyor-registry raises on purpose."""


class NotRegistered(RegistryError):
    """Nobody of this name is registered, or no longer: register (again), then go on."""

    def __init__(self, kind: str, name: str, nearest: str | None = None) -> None:
        hint = f"; did you mean {nearest!r}?" if nearest else "; register it first"
        super().__init__(f"no {kind} {name!r} is registered{hint}")
        self.kind = kind
        self.name = name
        self.nearest = nearest


class InvalidRegistration(RegistryError):
    """What was to be recorded breaks a bound; the message names the field and the bound."""

    @classmethod
    def of(cls, what: str, error: ValidationError) -> Self:
        """The refusal that the first broken bound makes."""
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return cls(f"{what} cannot be recorded: {field}: {first['msg']}")


class Contended(RegistryError):
    """Others kept changing the same group; nothing was changed, try again after a pause."""


class WatchOverflow(RegistryError):
    """The watcher is further behind than the history reaches: list everything, watch from there."""

    def __init__(self, revision: int) -> None:
        super().__init__(
            f"changes since revision {revision} are no longer known; list again, then watch"
        )
        self.revision = revision


class TooManyWatchers(RegistryError):
    """This node has as many watchers as it takes; watch at another node."""
