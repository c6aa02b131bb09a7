"""Proposes who runs what, whenever what exists has changed.

`conveyor_registry.planner.plan` decides, from the agreed state and a few soft facts; this duty
chooses the moments: at once after a change of documents, services, sidecars or assignments; a
little later after mere progress of positions (a finished partition may complete a pipeline); and
now and then in any case, often while something drains, because draining has a time limit.

A pipeline that was applied in a trace is planned in that trace, so one trace leads from the
command line to the assignment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan

from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import PipelinePhase, RouterCommand, RouterState
from conveyor_registry.planner import Observations, plan

IDLE_S = 5.0
DRAINING_S = 0.5
POSITIONS_PAUSE_S = 0.25
UNSETTLED_PAUSE_S = 1.0
ROUNDS_MAX = 8
"""Plans in a row without a pause; one is enough unless the log overtakes it."""

_log = logging.getLogger(__name__)
_tracer = trace.get_tracer("conveyor.router")


class Planner:
    """One leadership's planner."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._draining_since: dict[str, int] = {}

    async def run(self) -> None:
        """Plan for as long as this node leads and lives."""
        feed = self._plane.feed
        while not feed.revision.closed:
            state = await self._plane.node.state()
            planned, tables = state.revision, state.table_revision
            if not await self.settle():
                await asyncio.sleep(UNSETTLED_PAUSE_S)
            idle_s = DRAINING_S if self._draining_since else IDLE_S
            if await feed.revision.wait_above(planned, idle_s):
                state = await self._plane.node.state()
                if state.table_revision == tables:
                    await asyncio.sleep(POSITIONS_PAUSE_S)

    async def settle(self) -> bool:
        """Plan and propose until nothing is left to propose; tell whether it came to that."""
        for _ in range(ROUNDS_MAX):
            state = await self._plane.node.state()
            commands = plan(state, self._observe(state), self._plane.wall_ms())
            if not commands:
                return True
            for command in commands:
                await self._propose(command)
        _log.warning("the plan does not settle; going on after a pause")
        return False

    async def _propose(self, command: RouterCommand) -> None:
        pipeline_id = next(_pipelines_of(command), "")
        origin = self._plane.take_origin(pipeline_id)
        context = None if origin is None else trace.set_span_in_context(NonRecordingSpan(origin))
        with _tracer.start_as_current_span(
            "conveyor.router/plan", context=context, attributes={"conveyor.pipeline": pipeline_id}
        ):
            try:
                await self._plane.propose(command)
            except CommandRejected as refusal:
                _log.info("a plan for %s was overtaken: %s", pipeline_id, refusal)
            else:
                _log.info("planned %s: %s", pipeline_id, describe(command))

    def _observe(self, state: RouterState) -> Observations:
        """Tell which sidecars have nothing open of the pipelines that drain."""
        draining = {
            pipeline_id
            for pipeline_id, record in state.pipelines.items()
            if record.phase is PipelinePhase.DRAINING
        }
        self._draining_since = {
            pipeline_id: self._draining_since.get(pipeline_id, state.table_revision)
            for pipeline_id in draining
        }
        drained = set()
        for pipeline_id in draining:
            for instance in state.instances_of(pipeline_id):
                report = self._plane.counters.report(instance.sidecar_id)
                if report is None or report.boot_id != instance.boot_id:
                    continue
                told = report.revision_applied >= self._draining_since[pipeline_id]
                if told and not report.open_of(pipeline_id):
                    drained.add((pipeline_id, instance.sidecar_id))
        return Observations(drained=drained)


def _pipelines_of(command: RouterCommand) -> Iterator[str]:
    parts = command.commands if isinstance(command, RouterCommand.Batch) else (command,)
    for part in parts:
        pipeline_id = getattr(part, "pipeline_id", "")
        if pipeline_id:
            yield pipeline_id


def describe(command: RouterCommand) -> str:
    """Return the kinds of a command's parts, for the log."""
    parts = command.commands if isinstance(command, RouterCommand.Batch) else (command,)
    return ", ".join(str(getattr(part, "kind", "?")) for part in parts)
