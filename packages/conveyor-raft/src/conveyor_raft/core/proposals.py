"""What callers are waiting for: each token ends exactly once.

Rules kept: a proposal that is committed when its leader loses its office still ends as `Applied`,
because it will be applied here; one that is not committed then ends as `Unknown` at once, since
whether a later leader keeps its entries cannot be known in bounded time. An index alone never
identifies a proposal: entries can only be cut off after the loss of office, and by then nothing
uncommitted waits any more.
"""

from __future__ import annotations

from collections import deque

from conveyor_raft.core.types import Applied, LogIndex, Outcome, Proposed, Unknown


class Proposals:
    """The open tokens, in the order of their entries. `finished` gathers how tokens ended."""

    __slots__ = ("_open", "finished")

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._open: deque[tuple[int, Proposed]] = deque()
        self.finished: list[tuple[int, Outcome]] = []

    def __len__(self) -> int:
        return len(self._open)

    def add(self, token: int, proposed: Proposed) -> None:
        """Wait for entries that were just appended."""
        self._open.append((token, proposed))

    def applied(self, index: LogIndex) -> None:
        """Everything up to the index was applied here, entry by entry."""
        waiting = self._open
        while waiting and waiting[0][1].last_index <= index:
            token, proposed = waiting.popleft()
            self.finished.append((token, Applied(proposed.first_index, proposed.last_index)))

    def skipped(self, index: LogIndex) -> None:
        """A snapshot took the place of the entries up to the index: results are lost."""
        waiting = self._open
        while waiting and waiting[0][1].first_index <= index:
            self._give_up(*waiting.popleft(), "a snapshot took the place of the entries")

    def abandon(self, committed: LogIndex, reason: str) -> None:
        """Nothing behind `committed` can be followed any further."""
        waiting = self._open
        while waiting and waiting[-1][1].last_index > committed:
            self._give_up(*waiting.pop(), reason)

    def _give_up(self, token: int, proposed: Proposed, reason: str) -> None:
        first, last, term = proposed
        self.finished.append((token, Unknown(first, last, term, reason)))
