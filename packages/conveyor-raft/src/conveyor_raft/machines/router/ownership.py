"""Who owns what: the one place where assignment terms are given.

What for: a term is the data plane's only fence, so nothing else may write one. The rules, which
hold for stage instances and source partitions alike:

* made for the first time: the first term above the floor, which is the highest term of anything
  that was ever removed; so a name that is used again never repeats a term;
* the owner (sidecar, boot, service) changes: plus one;
* loses its owner: the term stays, so that the last commits of the last owner still count;
* removed: the floor rises to its term.

The idea is Kafka's leader epoch and Lamport's ballot: a number per owner, compared by everybody.
"""

from __future__ import annotations

from dataclasses import replace

from conveyor_raft.machines.router.outcome import Moment
from conveyor_raft.machines.router.records import InstanceAssignment, PartitionOwner
from conveyor_raft.machines.router.state import RouterState


def own_instance(state: RouterState, wanted: InstanceAssignment, moment: Moment) -> None:
    """Record an instance's owner; `wanted.term` is ignored."""
    key = (wanted.pipeline_id, wanted.stage, wanted.index)
    old = state.instances.get(key)
    if old is None:
        term = state.term_floor + 1
    elif _owner(old) == _owner(wanted):
        if old.endpoint == wanted.endpoint:
            return
        term = old.term
    else:
        term = old.term + 1
    state.put(replace(wanted, term=term, revision=moment.index))


def own_partition(
    state: RouterState, old: PartitionOwner, instance: InstanceAssignment, moment: Moment
) -> None:
    """Give a recorded partition to an instance of its stage."""
    changed = _owner(old) != _owner(instance)
    if not changed and old.index == instance.index:
        return
    state.put(
        replace(
            old,
            term=old.term + 1 if changed else old.term,
            index=instance.index,
            sidecar_id=instance.sidecar_id,
            boot_id=instance.boot_id,
            service_id=instance.service_id,
            revision=moment.index,
        )
    )


def release_partition(state: RouterState, old: PartitionOwner, moment: Moment) -> None:
    """Take a partition from its owner."""
    if old.owned:
        state.put(replace(old, sidecar_id="", boot_id="", service_id="", revision=moment.index))


def remove_instance(state: RouterState, old: InstanceAssignment, moment: Moment) -> None:
    """Remove an instance; the partitions that it reads lose their owner."""
    for partition in state.partitions_of(old.pipeline_id, old.stage):
        if partition.owned and partition.index == old.index:
            release_partition(state, partition, moment)
    state.raise_floor(old.term)
    state.drop(old)


def change_boot(state: RouterState, sidecar_id: str, boot_id: str, moment: Moment) -> None:
    """The sidecar started again: what it owns stays with it, under the next terms."""
    for instance in state.instances_on(sidecar_id):
        if instance.boot_id == boot_id:
            continue
        renewed = replace(instance, boot_id=boot_id)
        own_instance(state, renewed, moment)
        for partition in state.partitions_of(instance.pipeline_id, instance.stage):
            if partition.sidecar_id == sidecar_id and partition.index == instance.index:
                own_partition(state, partition, renewed, moment)


def release_all(state: RouterState, sidecar_id: str, moment: Moment) -> None:
    """The sidecar is gone: so are its instances, and its partitions wait for an owner."""
    for instance in state.instances_on(sidecar_id):
        remove_instance(state, instance, moment)


def _owner(record: InstanceAssignment | PartitionOwner) -> tuple[str, str, str]:
    return (record.sidecar_id, record.boot_id, record.service_id)
