"""Commit and read the positions of sources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from conveyor_grpc.channel import TIMEOUT_S, LeaderChannel
from conveyor_grpc.wire import checkpoint_pb2 as wire
from conveyor_grpc.wire.checkpoint_pb2_grpc import CheckpointServiceStub


class CheckpointClient:
    """Calls `CheckpointService` on the leader."""

    def __init__(self, channel: LeaderChannel) -> None:
        self._channel = channel

    async def commit_positions(
        self,
        sidecar_id: str,
        commits: Iterable[wire.PositionCommit],
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> wire.CommitPositionsResponse:
        """Record how far partitions are done; one result per commit, in order.

        Idempotent and monotone, so an unknown outcome is repeated within the deadline. A fenced
        commit is a result, not an exception.
        """
        request = wire.CommitPositionsRequest(sidecar_id=sidecar_id, commits=commits)
        return await self._channel.call(
            lambda channel: CheckpointServiceStub(channel).CommitPositions,
            request,
            timeout_s=timeout_s,
            repeatable=True,
        )

    async def get_positions(
        self, pipeline: str, stage: str = "", *, timeout_s: float = TIMEOUT_S
    ) -> Sequence[wire.Position]:
        """Read the recorded positions of a pipeline's source stages, or of one of them."""
        response = await self._channel.call(
            lambda channel: CheckpointServiceStub(channel).GetPositions,
            wire.GetPositionsRequest(pipeline=pipeline, stage=stage),
            timeout_s=timeout_s,
            repeatable=True,
        )
        return response.positions
