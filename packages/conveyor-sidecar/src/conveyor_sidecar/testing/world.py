"""Virtual time and the order of what happens in it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from zlib import crc32


class World:
    """A clock that jumps from one thing that happens to the next.

    Attributes:
        now_ms: Virtual time.
        chance: The only source of chance.
        happened: Things that happened so far.
        digest: Of all that was `say`d, in order: two runs of a seed have the same.
        tale: The last things said, where the seed is replayed.
    """

    def __init__(self, seed: int, tell: bool = False) -> None:
        self.now_ms = 0
        self.chance = Random(seed)
        self.happened = 0
        self.digest = 0
        self._tell = tell
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, wait_ms: int, action: Callable[[], None]) -> None:
        """Do `action` some time from now; what is due at one time happens in order."""
        heapq.heappush(self._queue, (self.now_ms + wait_ms, next(self._numbers), action))

    def step(self) -> bool:
        """Let the next thing happen; False if nothing is left."""
        if not self._queue:
            return False
        self.now_ms, _, action = heapq.heappop(self._queue)
        self.happened += 1
        action()
        return True

    def odds(self, share: float) -> bool:
        """True in `share` of all cases."""
        return self.chance.random() < share

    def say(self, text: str) -> None:
        """Add to the tale of this world."""
        self.digest = crc32(text.encode(), crc32(str(self.now_ms).encode(), self.digest))
        if self._tell:
            print(f"{self.now_ms:>7} {text}")
