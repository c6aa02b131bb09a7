"""How position commits change the state.

Rules kept: the fence is the partition's assignment term, and nothing else. A commit is judged by
itself: one of an old owner is refused without harming the others in its batch. Under one term
positions only move on (a repeated or older commit is taken and changes nothing), and `finished`
never ends.
"""

from __future__ import annotations

from conveyor_raft.machines.router.commands import CommitPositions
from conveyor_raft.machines.router.outcome import Moment, Outcome, Refusal, RefusalCode
from conveyor_raft.machines.router.parts import PositionCommit
from conveyor_raft.machines.router.records import PositionRecord
from conveyor_raft.machines.router.state import RouterState


def commit_positions(state: RouterState, command: CommitPositions, moment: Moment) -> Outcome:
    """Record what is done, item by item."""
    refused = []
    for place, commit in enumerate(command.commits):
        refusal = _commit(state, place, commit, moment)
        if refusal is not None:
            refused.append(refusal)
    return Outcome(refused=tuple(refused))


def _commit(
    state: RouterState, place: int, commit: PositionCommit, moment: Moment
) -> Refusal | None:
    item = f"{commit.pipeline_id} {commit.stage} {commit.partition}"
    owner = state.partitions.get((commit.pipeline_id, commit.stage, commit.partition))
    if owner is None:
        return Refusal(place, item, RefusalCode.UNKNOWN, f"there is no partition {item}")
    if commit.term < owner.term:
        message = f"term {commit.term} of {item} has ended; its owner has term {owner.term}"
        return Refusal(place, item, RefusalCode.FENCED, message, current_term=owner.term)
    if commit.term > owner.term:
        message = f"term {commit.term} of {item} was never given; the last one is {owner.term}"
        return Refusal(place, item, RefusalCode.INVALID, message, current_term=owner.term)
    key = (commit.pipeline_id, commit.stage, commit.partition, commit.replay_id)
    old = state.positions.get(key)
    if old is not None and not _moves_on(old, commit):
        return None
    if old is not None and old.finished:
        message = f"{item} is recorded as finished at ordinal {old.ordinal}"
        return Refusal(place, item, RefusalCode.INVALID, message)
    position = commit.position
    if position is None and old is not None:
        position = old.position
    state.put(
        PositionRecord(
            pipeline_id=commit.pipeline_id,
            stage=commit.stage,
            partition=commit.partition,
            replay_id=commit.replay_id,
            term=commit.term,
            ordinal=commit.ordinal,
            position=position,
            finished=commit.finished,
            committed_ms=moment.timestamp_ms,
        )
    )
    return None


def _moves_on(old: PositionRecord, commit: PositionCommit) -> bool:
    if commit.ordinal != old.ordinal:
        return commit.ordinal > old.ordinal
    return commit.finished and not old.finished
