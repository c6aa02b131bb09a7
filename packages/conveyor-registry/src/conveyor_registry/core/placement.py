"""Which services run the instances of a stage.

The promise: as many instances as are wanted and can be had, one per service; an instance stays
where it is while its service is usable; a lost one is replaced under its own index, so that what
hangs on the index (source partitions, keys) moves as little as possible; new ones go to the sidecar
with the fewest instances of this stage, then of all. If nobody is usable, what there is stays: a
silent sidecar may still be at work, and taking its stages away would help nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from conveyor_raft.machines.router.records import ServiceHealth
from conveyor_registry.core.matching import Candidate

_RANK = {
    ServiceHealth.HEALTHY: 0,
    ServiceHealth.UNKNOWN: 1,
    ServiceHealth.DEGRADED: 2,
    ServiceHealth.UNHEALTHY: 3,
}


def place(
    current: Mapping[int, tuple[str, str]],
    candidates: Sequence[Candidate],
    wanted: int | None,
    load: Mapping[str, int],
) -> dict[int, Candidate]:
    """Choose a service for each instance.

    Args:
        current: Index to the key of the candidate that runs it now.
        candidates: Who could run it.
        wanted: How many instances; None: as many as there are usable services.
        load: Instances per sidecar, of all stages, without this stage's.

    Returns:
        Index to candidate.
    """
    usable = {one.key: one for one in candidates if one.usable}
    if not usable:
        known = {one.key: one for one in candidates}
        return {index: known[key] for index, key in sorted(current.items()) if key in known}
    target = len(usable) if wanted is None else min(wanted, len(usable))
    kept: dict[int, Candidate] = {}
    taken: set[tuple[str, str]] = set()
    for index, key in sorted(current.items()):
        if key in usable and key not in taken and len(kept) < target:
            kept[index] = usable[key]
            taken.add(key)
    lost = [index for index in sorted(current) if index not in kept]
    while len(kept) < target:
        index = lost.pop(0) if lost else _lowest_free(kept)
        chosen = _next(usable, taken, kept, load)
        kept[index] = chosen
        taken.add(chosen.key)
    return dict(sorted(kept.items()))


def _next(
    usable: Mapping[tuple[str, str], Candidate],
    taken: set[tuple[str, str]],
    kept: Mapping[int, Candidate],
    load: Mapping[str, int],
) -> Candidate:
    here = Counter(one.sidecar_id for one in kept.values())
    free = [one for key, one in sorted(usable.items()) if key not in taken]
    return min(
        free,
        key=lambda one: (
            here[one.sidecar_id],
            _RANK[one.service.health],
            load.get(one.sidecar_id, 0) + here[one.sidecar_id],
            one.key,
        ),
    )


def _lowest_free(kept: Mapping[int, Candidate]) -> int:
    index = 0
    while index in kept:
        index += 1
    return index
