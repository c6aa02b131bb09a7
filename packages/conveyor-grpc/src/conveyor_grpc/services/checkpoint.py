"""`CheckpointService`: how far the source partitions are done.

A commit of an old owner is no error of the call but the answer to one item (`FENCED`): the others
of the same request count.
"""

from __future__ import annotations

from conveyor_grpc.convert.positions import commit_of, position_message
from conveyor_grpc.errors import InvalidRequestError, NotFoundError
from conveyor_grpc.interceptors import Context
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_grpc.wire import checkpoint_pb2 as wire
from conveyor_grpc.wire.checkpoint_pb2_grpc import CheckpointServiceServicer
from conveyor_raft.machines.router import Refusal, RefusalCode

COMMITS_MAX = 4_096

_OUTCOMES = {
    RefusalCode.FENCED: wire.COMMIT_OUTCOME_FENCED,
    RefusalCode.UNKNOWN: wire.COMMIT_OUTCOME_UNKNOWN_PARTITION,
}


class CheckpointServicer(CheckpointServiceServicer):
    """Commits go through the leader's committer, reads come from the leader's state."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def CommitPositions(  # noqa: N802
        self, request: wire.CommitPositionsRequest, context: Context
    ) -> wire.CommitPositionsResponse:
        """Record positions; answers each item."""
        self._plane.require_leading()
        if len(request.commits) > COMMITS_MAX:
            raise InvalidRequestError(
                f"{len(request.commits)} commits in one request; the most is {COMMITS_MAX}"
            )
        commits = [commit_of(message) for message in request.commits]
        if not commits:
            return wire.CommitPositionsResponse(revision=self._plane.feed.revision.value)
        revision, refusals = await self._plane.committer.commit(commits)
        return wire.CommitPositionsResponse(
            revision=revision, results=[_result(refusal) for refusal in refusals]
        )

    async def GetPositions(  # noqa: N802
        self, request: wire.GetPositionsRequest, context: Context
    ) -> wire.GetPositionsResponse:
        """Return what is recorded of a pipeline's partitions."""
        state = await self._plane.leader_state()
        if request.pipeline not in state.pipelines:
            raise NotFoundError(f"there is no pipeline {request.pipeline!r} (namespace/name)")
        positions = [
            position_message(record)
            for record in state.positions_of(request.pipeline)
            if not request.stage or record.stage == request.stage
        ]
        return wire.GetPositionsResponse(positions=positions, revision=state.revision)


def _result(refusal: Refusal | None) -> wire.CommitResult:
    if refusal is None:
        return wire.CommitResult(outcome=wire.COMMIT_OUTCOME_COMMITTED)
    return wire.CommitResult(
        outcome=_OUTCOMES.get(refusal.code, wire.COMMIT_OUTCOME_REFUSED),
        current_term=refusal.current_term,
        message=refusal.message,
    )
