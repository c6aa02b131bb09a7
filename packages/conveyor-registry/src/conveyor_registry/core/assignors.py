"""Who gets which partition: the one function behind the planner and the consumer groups.

The promise, in this order: every partition that somebody may have gets exactly one owner; the
numbers of partitions per owner differ by at most one (as far as eligibility allows); and no
partition moves that need not. Without a past the result is contiguous ranges, as Kafka's range
assignor gives; with one it is sticky, as its cooperative-sticky assignor. The same input gives the
same answer everywhere.

Partitions that some members may not have (a source that serves only its own files) are settled by
moving load along a path of single exchanges from the fullest to the emptiest owner, which ends when
no such path shortens the difference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar


class Orderable(Protocol):
    """What can be sorted."""

    def __lt__(self, other: object, /) -> bool:
        """Whether it comes first."""
        ...


P = TypeVar("P", str, int)
M = TypeVar("M", str, int)


def assign(
    partitions: Sequence[P],
    members: Sequence[M],
    current: Mapping[P, M],
    eligible: Mapping[P, frozenset[M]] | None = None,
) -> dict[P, M]:
    """Give each partition an owner.

    Args:
        partitions: In their order (numbers, or names by number); ranges follow it.
        members: Any order; equal loads are settled by it after sorting.
        current: Who owns what now; owners and partitions that are gone are ignored.
        eligible: Who may own a partition; absent: everybody.

    Returns:
        The owner of each partition; those that nobody may have are left out.
    """
    crew = sorted(set(members))
    if not crew:
        return {}
    allowed = {p: _allowed(p, crew, eligible) for p in partitions}
    owned: dict[M, list[P]] = {member: [] for member in crew}
    homeless: list[P] = []
    for partition in partitions:
        owner = current.get(partition)
        if owner is not None and owner in owned and owner in allowed[partition]:
            owned[owner].append(partition)
        elif allowed[partition]:
            homeless.append(partition)
    wanted = len(homeless) + sum(len(parts) for parts in owned.values())
    quota = _quotas(crew, owned, wanted)
    for partition in _shed(owned, quota, eligible is None):
        homeless.append(partition)
    order = {partition: place for place, partition in enumerate(partitions)}
    homeless.sort(key=order.__getitem__)
    for partition in homeless:
        owned[_taker(partition, allowed[partition], owned, quota)].append(partition)
    if eligible is not None:
        _level(owned, allowed, order)
    return {p: member for member in crew for p in sorted(owned[member], key=order.__getitem__)}


def _allowed(
    partition: P, crew: Sequence[M], eligible: Mapping[P, frozenset[M]] | None
) -> frozenset[M]:
    if eligible is None:
        return frozenset(crew)
    return eligible.get(partition, frozenset()) & frozenset(crew)


def _quotas(crew: Sequence[M], owned: Mapping[M, list[P]], wanted: int) -> dict[M, int]:
    """Even shares; the larger ones go to who has the most already, so that least moves."""
    share, larger = divmod(wanted, len(crew))
    by_load = sorted(crew, key=lambda member: -len(owned[member]))
    return {member: share + (place < larger) for place, member in enumerate(by_load)}


def _shed(owned: dict[M, list[P]], quota: Mapping[M, int], everywhere: bool) -> list[P]:
    if not everywhere:
        return []  # where not everybody may have everything, exchanges find what can move
    shed: list[P] = []
    for member, parts in owned.items():
        shed.extend(parts[quota[member] :])
        del parts[quota[member] :]
    return shed


def _taker(
    partition: P, allowed: frozenset[M], owned: Mapping[M, list[P]], quota: Mapping[M, int]
) -> M:
    # The first with room: so that neighbours stay together.
    for member in sorted(allowed):
        if len(owned[member]) < quota[member]:
            return member
    return min(sorted(allowed), key=lambda member: len(owned[member]))


def _level(
    owned: dict[M, list[P]], allowed: Mapping[P, frozenset[M]], order: Mapping[P, int]
) -> None:
    """Move single partitions along paths from full to empty owners while that evens things out."""
    for _ in range(len(order) + 1):
        least = min(len(parts) for parts in owned.values())
        for full in sorted(owned, key=lambda member: (-len(owned[member]), member)):
            if len(owned[full]) < least + 2:
                return
            path = _path(full, owned, allowed, order)
            if path:
                break
        else:
            return
        for partition, giver, taker in path:
            owned[giver].remove(partition)
            owned[taker].append(partition)


def _path(
    full: M,
    owned: Mapping[M, list[P]],
    allowed: Mapping[P, frozenset[M]],
    order: Mapping[P, int],
) -> list[tuple[P, M, M]]:
    """The shortest chain of moves from `full` to somebody with at least two fewer."""
    came: dict[M, tuple[P, M]] = {}
    pending = deque([full])
    while pending:
        giver = pending.popleft()
        for partition in sorted(owned[giver], key=order.__getitem__, reverse=True):
            for taker in sorted(allowed[partition]):
                if taker == full or taker in came:
                    continue
                came[taker] = (partition, giver)
                if len(owned[taker]) <= len(owned[full]) - 2:
                    return _walk(came, taker, full)
                pending.append(taker)
    return []


def _walk(came: Mapping[M, tuple[P, M]], end: M, start: M) -> list[tuple[P, M, M]]:
    moves: list[tuple[P, M, M]] = []
    taker = end
    while taker != start:
        partition, giver = came[taker]
        moves.append((partition, giver, taker))
        taker = giver
    return moves
