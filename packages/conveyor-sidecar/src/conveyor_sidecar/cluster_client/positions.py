"""Position commits: the engine's batches to the routers, and the routers' decisions back.

Idempotent and monotone on the routers' side, so a commit whose outcome is unknown is reported as
failed and the engine sends it again. A commit that was refused because somebody else owns the
partition is a decision, not a failure. No router is needed for records to move: without one,
commits fail, records flow, and the window that a crash would read again grows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import grpc
from opentelemetry import trace

from conveyor_grpc.clients import CheckpointClient
from conveyor_grpc.errors import ControlError
from conveyor_grpc.wire import checkpoint_pb2 as wire
from conveyor_sidecar.core.effects import CommitPositions, PositionCommit
from conveyor_sidecar.core.events import (
    Event,
    PositionRefusal,
    PositionsCommitted,
    PositionsFailed,
)
from conveyor_sidecar.owned_tasks import OwnedTasks
from conveyor_sidecar.routing.routing_table import RoutingTable

logger = logging.getLogger(__name__)
_tracer = trace.get_tracer("conveyor.sidecar")

_REFUSED = (
    wire.COMMIT_OUTCOME_FENCED,
    wire.COMMIT_OUTCOME_UNKNOWN_PARTITION,
    wire.COMMIT_OUTCOME_REFUSED,
)


class PositionCommitter:
    """Performs ``CommitPositions``; the engine has at most one outstanding."""

    def __init__(
        self,
        client: CheckpointClient,
        table: RoutingTable,
        post: Callable[[Event], None],
        *,
        sidecar_id: str,
        timeout_s: float = 5.0,
    ) -> None:
        self._client = client
        self._table = table
        self._post = post
        self._sidecar_id = sidecar_id
        self._timeout_s = timeout_s
        self._tasks = OwnedTasks()
        self.committed_total = 0
        self.failed_total = 0

    def start(self, effect: CommitPositions) -> None:
        """Begin a commit; ``PositionsCommitted`` or ``PositionsFailed`` follows."""
        self._tasks.start(self._run(effect), f"commit {effect.request_id}")

    async def close(self) -> None:
        """Give up what is under way, without events."""
        await self._tasks.close()

    async def _run(self, effect: CommitPositions) -> None:
        commits = [self._message(position) for position in effect.positions]
        with _tracer.start_as_current_span(
            "conveyor.commit", attributes={"conveyor.positions": len(commits)}
        ):
            try:
                response = await self._client.commit_positions(
                    self._sidecar_id, commits, timeout_s=self._timeout_s
                )
            except (ControlError, grpc.RpcError) as error:
                self.failed_total += 1
                self._post(PositionsFailed(effect.request_id, str(error)))
                return
        self.committed_total += len(commits)
        refused = tuple(
            PositionRefusal(position.partition, result.current_term)
            for position, result in zip(effect.positions, response.results, strict=False)
            if self._is_refused(position, result)
        )
        if len(response.results) != len(commits):
            reason = f"{len(commits)} commits were answered with {len(response.results)} results"
            self._post(PositionsFailed(effect.request_id, reason))
            return
        self._post(PositionsCommitted(effect.request_id, refused))

    def _is_refused(self, position: PositionCommit, result: wire.CommitResult) -> bool:
        if result.outcome not in _REFUSED:
            return False
        logger.warning(
            "position of %s was refused: %s %s",
            "/".join(position.partition),
            wire.CommitOutcome.Name(result.outcome),
            result.message,
        )
        return True

    def _message(self, position: PositionCommit) -> wire.PositionCommit:
        return wire.PositionCommit(
            pipeline=position.partition.pipeline,
            stage=position.partition.stage,
            partition=position.partition.partition,
            replay_id=self._table.routes.replays.get(position.partition, ""),
            term=position.term,
            ordinal=position.ordinal,
            position=position.position,
            finished=position.finished,
        )
