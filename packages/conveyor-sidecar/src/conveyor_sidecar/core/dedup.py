"""What a sink has seen: exact positions above a stable mark (R4 and R5).

Records reach a sink more than once whenever something upstream broke: a frame is framed again for
another lane, a transform is asked again. A sink therefore remembers the identity (origin, offset,
path) of every record that it took, and which frame brought it first. A record that is seen again
has either ended, then it counts as ended at once, or it is still open, then the frame that brings
it again ends no earlier than the first one; writing it again, or calling it ended too early, would
both be wrong. "Highest seen" would not do: a late record from a dead lane looks old.

The memory is bounded by the source: everything below the origin's stable mark has ended, counts as
seen and is forgotten. Of a partition with an older and a newer owner only the newer one's records
count; the older one's are *superseded*: its commits are refused, and the newer owner reads again
all that was not committed, under identities of its own. Origins with stable offsets have no term;
their records keep their identity across owners.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from conveyor_sdk.carrier.frame import Frame
from conveyor_sdk.carrier.lineage import Origin
from conveyor_sidecar.core.delivery import Holding

_Place = tuple[str, str, int]


@dataclass(slots=True)
class Sighting:
    """What a frame brought.

    Attributes:
        fresh: Places of the records that were never seen; None for all of them.
        waits_on: Open frames that brought some of the others first.
        duplicates: Records that were seen before.
        superseded: Records of an older owner.
    """

    fresh: list[int] | None = None
    waits_on: dict[Holding, None] = field(default_factory=dict)
    duplicates: int = 0
    superseded: int = 0


class _OriginMemory:
    """Offsets above the mark, by path, with the frame that brought each first."""

    __slots__ = ("paths", "pruned_size", "size", "stable")

    def __init__(self) -> None:
        self.stable = 0
        self.paths: defaultdict[int, dict[int, Holding]] = defaultdict(dict)
        self.size = 0
        self.pruned_size = 0

    def prune(self) -> None:
        """Forget what is below the mark, when enough has come together to be worth the walk."""
        if self.size < 2 * self.pruned_size + 1024:
            return
        stable = self.stable
        for path, seen in list(self.paths.items()):
            kept = {offset: holding for offset, holding in seen.items() if offset >= stable}
            if kept:
                self.paths[path] = kept
            else:
                del self.paths[path]
        self.size = self.pruned_size = sum([len(seen) for seen in self.paths.values()])


class SeenRecords:
    """The memory of one sink instance."""

    def __init__(self) -> None:
        self._origins: dict[Origin, _OriginMemory] = {}
        self._terms: dict[_Place, Origin] = {}

    def __len__(self) -> int:
        return sum([memory.size for memory in self._origins.values()])

    def raise_stable(self, origin: Origin, below: int) -> None:
        """Everything of `origin` below `below` has ended."""
        memory = self._memory(origin)
        if memory is not None and below > memory.stable:
            memory.stable = below
            memory.prune()

    def see(self, frame: Frame, holding: Holding) -> Sighting:
        """Remember the records of a frame that `holding` stands for; say what is new in it."""
        if len(frame.origins) == 1 and _uniform(frame.paths_column):
            memory = self._memory(frame.origins[0])
            if memory is not None:
                offsets = frame.offsets
                path = frame.paths[0] if frame.paths_column else 0
                seen = memory.paths[path]
                new = dict.fromkeys(offsets, holding)
                if (
                    len(new) == frame.count
                    and seen.keys().isdisjoint(new)
                    and min(new, default=memory.stable) >= memory.stable
                ):
                    seen.update(new)
                    memory.size += frame.count
                    return Sighting()
        return self._see_each(frame, holding)

    def _see_each(self, frame: Frame, holding: Holding) -> Sighting:
        memories = [self._memory(origin) for origin in frame.origins]
        sighting = Sighting()
        fresh: list[int] = []
        columns = zip(frame.origin_indexes, frame.offsets, frame.paths, strict=True)
        for place, (index, offset, path) in enumerate(columns):
            memory = memories[index]
            if memory is None:
                sighting.superseded += 1
                continue
            if offset < memory.stable:
                sighting.duplicates += 1
                continue
            seen = memory.paths[path]
            first = seen.get(offset)
            if first is None:
                seen[offset] = holding
                memory.size += 1
                fresh.append(place)
                continue
            sighting.duplicates += 1
            if not first.ended and first is not holding:
                sighting.waits_on[first] = None
        if len(fresh) != frame.count:
            sighting.fresh = fresh
        return sighting

    def _memory(self, origin: Origin) -> _OriginMemory | None:
        """The memory of an origin; None if its partition has a newer owner."""
        memory = self._origins.get(origin)
        if memory is not None:
            return memory
        place = (origin.stage, origin.partition, origin.replay_id)
        known = self._terms.get(place)
        if known is not None:
            if origin.term < known.term:
                return None
            self._origins.pop(known, None)
        self._terms[place] = origin
        memory = self._origins[origin] = _OriginMemory()
        return memory


def _uniform(paths_column: bytes) -> bool:
    """Whether all records have one path."""
    return paths_column == paths_column[:8] * (len(paths_column) // 8)
