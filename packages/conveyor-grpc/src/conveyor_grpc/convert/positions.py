"""Positions of source partitions, both ways."""

from __future__ import annotations

from conveyor_grpc.convert.services import timestamp
from conveyor_grpc.wire import checkpoint_pb2 as wire
from conveyor_raft.machines.router import PositionCommit, PositionRecord


def commit_of(message: wire.PositionCommit) -> PositionCommit:
    """Return the commit, checked.

    Raises:
        pydantic.ValidationError: a name, number or the position is outside its bounds.
    """
    return PositionCommit(
        pipeline_id=message.pipeline,
        stage=message.stage,
        partition=message.partition,
        term=message.term,
        ordinal=message.ordinal,
        position=message.position if message.HasField("position") else None,
        finished=message.finished,
        replay_id=message.replay_id,
    )


def position_message(record: PositionRecord) -> wire.Position:
    """Return the message for a recorded position."""
    return wire.Position(
        pipeline=record.pipeline_id,
        stage=record.stage,
        partition=record.partition,
        replay_id=record.replay_id,
        term=record.term,
        ordinal=record.ordinal,
        position=record.position,
        finished=record.finished,
        committed_at=timestamp(record.committed_ms),
    )
