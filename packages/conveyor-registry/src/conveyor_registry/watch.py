"""Watching the agreed state: what changed since a revision, and waiting for more.

What for: upper layers stream changes to operators and react to them. A watcher holds nothing but
the revision that it has seen; the history is the state's own, bounded, and shared by all. Who falls
further behind than it reaches gets `WatchOverflow`: list everything, then watch from there. A
snapshot that this node had to install has the same effect.

Rules kept: watchers per node are bounded, and a slow one costs no memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from conveyor_raft.machines.router import Change, Table
from conveyor_registry.errors import TooManyWatchers, WatchOverflow
from conveyor_registry.port import RaftPort

WATCHERS_MAX = 1_000


class StateWatch:
    """The watchers of one node.

    Args:
        raft_node: Whose state is watched; any node.
        watchers_max: How many at a time.
    """

    def __init__(self, raft_node: RaftPort, *, watchers_max: int = WATCHERS_MAX) -> None:
        self._raft = raft_node
        self._max = watchers_max
        self._watchers = 0

    @property
    def watchers(self) -> int:
        """How many there are now."""
        return self._watchers

    async def changes(
        self, since: int, tables: Collection[Table] | None = None
    ) -> AsyncIterator[tuple[int, Sequence[Change]]]:
        """Yield (revision, changes up to it) whenever something changed, until the node stops.

        Args:
            since: The revision of the caller's list.
            tables: Which changes are wanted; None: all. The revision moves in any case.

        Raises:
            WatchOverflow: the changes since then are not known any more.
            TooManyWatchers: this node takes no more.
        """
        if self._watchers >= self._max:
            raise TooManyWatchers(f"{self._max} watchers are here already; try another node")
        self._watchers += 1
        try:
            seen = since
            events = self._raft.watch()
            while True:
                state = await self._raft.state()
                if state.revision > seen:
                    known = state.changes_since(seen)
                    if known is None:
                        raise WatchOverflow(seen)
                    seen = state.revision
                    yield seen, [one for one in known if tables is None or one.table in tables]
                    continue
                if await anext(events, None) is None:
                    return
        finally:
            self._watchers -= 1
