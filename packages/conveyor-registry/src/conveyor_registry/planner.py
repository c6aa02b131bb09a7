"""The planner: from what exists to who should run what, as commands.

What for: after each change of the agreed state the leader asks `plan` what should be recorded, and
proposes it. The function is pure: the same state, the same observations and the same time give the
same commands, so it can be asked "what would you do" about any state.

Rules kept:

* Decisions are recorded as a whole: everything about one pipeline is one atomic batch, and one that
  the log overtook is refused as a whole and planned again.
* As little as possible moves: stage instances stay on usable services (`core/placement`), source
  partitions stay with their instances as far as evenness allows (`core/assignors`).
* A plan that was applied needs no other: planning again gives nothing.
* A pipeline begins to read when every stage has an instance; one that loses a stage later keeps
  what it has, because the records on their way are safe with whoever has them.
* The life of a pipeline: Pending (with what is missing) -> Running -> Draining -> Stopped, and
  Completed when every partition of every source stage is bounded and recorded as finished.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from conveyor_raft.machines.router import (
    InstanceAssignment,
    PartitionOwner,
    PartitionSlot,
    PipelinePhase,
    PipelineRecord,
    RouterCommand,
    RouterState,
    StageSlot,
)
from conveyor_raft.machines.router.commands import SingleCommand
from conveyor_registry.core.assignors import assign
from conveyor_registry.core.matching import Candidate, Matcher, parsed_pipeline
from conveyor_registry.core.placement import place
from conveyor_registry.model import (
    DocumentRefused,
    Pipeline,
    Severity,
    Stage,
    nearest,
    validate,
)
from conveyor_registry.model.policies import ServiceKind

DRAIN_MAX_MS = 25_000
"""A pipeline that has not drained by then is stopped; what was open is read again later."""
REASON_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Observations:
    """What only the leader knows: soft facts that no log entry holds.

    `drained` are (pipeline, sidecar) pairs whose heartbeats, sent under a table in which the
    pipeline drains, say that nothing is open any more.
    """

    drained: Collection[tuple[str, str]] = frozenset()
    drain_max_ms: int = DRAIN_MAX_MS


def plan(
    state: RouterState, observations: Observations | None = None, now_ms: int = 0
) -> list[RouterCommand]:
    """What should be recorded now: one command (usually a batch) for each pipeline that moves.

    Args:
        state: The agreed state.
        observations: The leader's soft facts.
        now_ms: The wall time, comparable with the log's timestamps; only draining looks at it.
    """
    seen = observations or Observations()
    matcher = Matcher(state)
    load = Counter(row.sidecar_id for row in state.instances.values())
    commands: list[RouterCommand] = []
    for pipeline_id in sorted(state.pipelines):
        record = state.pipelines[pipeline_id]
        steps = _Steps(state, record, matcher, load)
        if not record.enabled or record.deleting:
            steps.wind_down(seen, now_ms)
        elif record.phase in (PipelinePhase.FAILED, PipelinePhase.COMPLETED):
            steps.revoke_all()
        else:
            steps.run()
        command = steps.command()
        if command is not None:
            commands.append(command)
    return commands


@dataclass(slots=True)
class _Steps:
    """The commands of one pipeline, in the making."""

    state: RouterState
    record: PipelineRecord
    matcher: Matcher
    load: Counter[str]
    _commands: list[SingleCommand] = field(default_factory=list)

    def command(self) -> RouterCommand | None:
        """What was decided, as one command."""
        if len(self._commands) < 2:
            return self._commands[0] if self._commands else None
        return RouterCommand.Batch(commands=tuple(self._commands))

    # A pipeline that shall run

    def run(self) -> None:
        """Place its stages, give out its partitions, record where it stands."""
        try:
            pipeline = parsed_pipeline(self.record.manifest)
        except DocumentRefused as error:
            self._phase(PipelinePhase.PENDING, f"this release cannot read the document: {error}")
            return
        wrong = self._errors(pipeline)
        placement, candidates = self._place(pipeline)
        missing = [stage for stage in pipeline.stages if not placement[stage.id]]
        ready = not missing and not wrong
        sources = [stage for stage in pipeline.stages if stage.kind is ServiceKind.SOURCE]
        if self._completed(sources, placement):
            self.revoke_all()
            self._phase(PipelinePhase.COMPLETED, "every partition of every source is finished")
            return
        self._assign_stages(placement)
        for stage in sources:
            self._assign_partitions(stage, placement[stage.id], ready=ready)
        if wrong:
            self._phase(PipelinePhase.PENDING, wrong)
        elif missing:
            reason = self._missing(pipeline, missing[0], candidates[missing[0].id])
            self._phase(PipelinePhase.PENDING, reason)
        else:
            self._phase(PipelinePhase.RUNNING, self._shortage(pipeline, placement, candidates))

    def _errors(self, pipeline: Pipeline) -> str:
        offers = self.matcher.offers(pipeline)
        problems = validate(pipeline, offers, self.matcher.documents)
        return "; ".join(one.message for one in problems if one.severity is Severity.ERROR)

    def _place(
        self, pipeline: Pipeline
    ) -> tuple[dict[str, dict[int, Candidate]], dict[str, list[Candidate]]]:
        placement: dict[str, dict[int, Candidate]] = {}
        candidates: dict[str, list[Candidate]] = {}
        for stage in pipeline.stages:
            found = self.matcher.candidates(pipeline.namespace, stage)
            rows = self.state.instances_of(self.record.pipeline_id, stage.id)
            self.load.subtract(row.sidecar_id for row in rows)
            wanted = stage.parallelism
            if wanted is None and self.matcher.is_static(pipeline.namespace, stage):
                wanted = 1
            current = {row.index: (row.sidecar_id, row.service_id) for row in rows}
            chosen = place(current, found, wanted, self.load)
            self.load.update(one.sidecar_id for one in chosen.values())
            placement[stage.id], candidates[stage.id] = chosen, found
        return placement, candidates

    def _assign_stages(self, placement: Mapping[str, Mapping[int, Candidate]]) -> None:
        gone: dict[str, list[StageSlot]] = defaultdict(list)
        for row in self.state.instances_of(self.record.pipeline_id):
            if row.index not in placement.get(row.stage, {}):
                gone[row.sidecar_id].append(StageSlot(stage=row.stage, index=row.index))
        for sidecar_id in sorted(gone):
            self._commands.append(
                RouterCommand.RevokePipeline(
                    pipeline_id=self.record.pipeline_id,
                    sidecar_id=sidecar_id,
                    stages=tuple(gone[sidecar_id]),
                )
            )
        given: dict[str, list[StageSlot]] = defaultdict(list)
        for stage, chosen in placement.items():
            for index, one in chosen.items():
                now = self.state.instances.get((self.record.pipeline_id, stage, index))
                if now is None or not self._runs(now, one):
                    slot = StageSlot(
                        stage=stage, index=index, service_id=one.service_id, endpoint=one.endpoint
                    )
                    given[one.sidecar_id].append(slot)
        for sidecar_id in sorted(given):
            self._commands.append(
                RouterCommand.AssignPipeline(
                    pipeline_id=self.record.pipeline_id,
                    sidecar_id=sidecar_id,
                    stages=tuple(given[sidecar_id]),
                )
            )

    def _runs(self, row: InstanceAssignment, one: Candidate) -> bool:
        sidecar = self.state.sidecars[one.sidecar_id]
        wanted = (one.sidecar_id, sidecar.boot_id, one.service_id, one.endpoint)
        return (row.sidecar_id, row.boot_id, row.service_id, row.endpoint) == wanted

    def _assign_partitions(
        self, stage: Stage, chosen: Mapping[int, Candidate], *, ready: bool
    ) -> None:
        known = {row.partition: row for row in self._partitions(stage)}
        offered = _offered(chosen)
        names = [*known, *(name for name in offered if name not in known)]
        again = self.record.phase is PipelinePhase.DRAINING
        owner = {
            name: row.index for name, row in known.items() if row.owned and row.index in chosen
        }
        open_names = [name for name in names if not self._finished(stage, name)]
        wanted: dict[str, int] = {}
        if ready:
            everywhere = all(len(who) == len(chosen) for who in offered.values())
            everywhere = everywhere and all(name in offered for name in open_names)
            wanted = assign(open_names, list(chosen), owner, None if everywhere else offered)
        else:
            wanted = {name: owner[name] for name in open_names if name in owner}
        released, slots = [], []
        for name in names:
            row = known.get(name)
            index = wanted.get(name)
            bounded = _bounded(name, chosen, offered, row)
            if row is None:
                if ready:
                    slots.append(PartitionSlot(partition=name, index=index, bounded=bounded))
                continue
            if name not in open_names:
                if row.owned and not (row.index in chosen and self._reads(row, row.index, chosen)):
                    slots.append(PartitionSlot(partition=name, index=None, bounded=row.bounded))
                continue
            if again and row.owned and index is not None:
                # Its owner has stopped reading it: it begins again, under the next term.
                released.append(PartitionSlot(partition=name, index=None, bounded=bounded))
            if again or row.bounded != bounded or not self._reads(row, index, chosen):
                slots.append(PartitionSlot(partition=name, index=index, bounded=bounded))
        for part in (released, slots):
            if part:
                self._commands.append(
                    RouterCommand.AssignSourcePartitions(
                        pipeline_id=self.record.pipeline_id, stage=stage.id, partitions=tuple(part)
                    )
                )

    def _reads(
        self, row: PartitionOwner, index: int | None, chosen: Mapping[int, Candidate]
    ) -> bool:
        if index is None:
            return not row.owned
        one = chosen[index]
        boot_id = self.state.sidecars[one.sidecar_id].boot_id
        wanted = (index, one.sidecar_id, boot_id, one.service_id)
        return (row.index, row.sidecar_id, row.boot_id, row.service_id) == wanted

    def _partitions(self, stage: Stage) -> list[PartitionOwner]:
        return self.state.partitions_of(self.record.pipeline_id, stage.id)

    def _finished(self, stage: Stage, partition: str) -> bool:
        key = (self.record.pipeline_id, stage.id, partition, "")
        position = self.state.positions.get(key)
        return position is not None and position.finished

    def _completed(
        self, sources: list[Stage], placement: Mapping[str, Mapping[int, Candidate]]
    ) -> bool:
        for stage in sources:
            rows = self._partitions(stage)
            if not rows or not all(row.bounded for row in rows):
                return False
            names = {row.partition for row in rows} | set(_offered(placement[stage.id]))
            if not all(self._finished(stage, name) for name in names):
                return False
        return bool(sources)

    # Reasons

    def _missing(self, pipeline: Pipeline, stage: Stage, candidates: list[Candidate]) -> str:
        what = f"stage {stage.id!r} waits: "
        if candidates:
            return what + "; ".join(one.obstacle for one in candidates)
        names = self.matcher.names(pipeline.namespace, stage.kind)
        if self.matcher.is_static(pipeline.namespace, stage):
            return what + f"no sidecar of namespace {pipeline.namespace!r} is registered"
        reason = f"no {stage.kind.value} named {stage.service!r} is registered"
        if self.matcher.document(pipeline.namespace, stage.kind, stage.service) is not None:
            reason += " (its document is applied, but no registered service matches it)"
        elsewhere = self.matcher.namespaces(stage.kind, stage.service)
        if elsewhere:
            reason += (
                f" in namespace {pipeline.namespace!r}, but in {elsewhere[0]!r};"
                " a pipeline uses the services of its own namespace"
            )
            return what + reason
        close = nearest(stage.service, [name for name in names if name != stage.service])
        return what + reason + (f"; the nearest registered name is {close!r}" if close else "")

    @staticmethod
    def _shortage(
        pipeline: Pipeline,
        placement: Mapping[str, Mapping[int, Candidate]],
        candidates: Mapping[str, list[Candidate]],
    ) -> str:
        short = []
        for stage in pipeline.stages:
            chosen, found = placement[stage.id], candidates[stage.id]
            ailing = [one.obstacle for one in chosen.values() if one.obstacle]
            if ailing:
                short.append(f"stage {stage.id!r} has no other instance: {'; '.join(ailing)}")
            elif stage.parallelism is not None and len(chosen) < stage.parallelism:
                usable = sum(one.usable for one in found)
                short.append(
                    f"stage {stage.id!r} runs {len(chosen)} of {stage.parallelism} instances:"
                    f" {usable} usable services are registered"
                )
        return "; ".join(short)

    # A pipeline that shall not run

    def wind_down(self, seen: Observations, now_ms: int) -> None:
        """Let it drain, stop it, and purge it if it was deleted."""
        record, why = self.record, "deleted" if self.record.deleting else "disabled"
        rows = self.state.instances_of(record.pipeline_id)
        if not rows:
            if record.deleting:
                self._commands.append(RouterCommand.PurgePipeline(pipeline_id=record.pipeline_id))
            elif record.phase not in (
                PipelinePhase.STOPPED,
                PipelinePhase.COMPLETED,
                PipelinePhase.FAILED,
            ):
                self._phase(PipelinePhase.STOPPED, why)
            return
        reading = any(row.owned for row in self.state.partitions_of(record.pipeline_id))
        if record.phase in (PipelinePhase.PENDING, PipelinePhase.RUNNING) and reading:
            self._phase(PipelinePhase.DRAINING, why)
            return
        if record.phase is PipelinePhase.DRAINING:
            late = now_ms - record.phase_since_ms >= seen.drain_max_ms
            busy = {row.sidecar_id for row in rows}
            if not late and any((record.pipeline_id, one) not in seen.drained for one in busy):
                return
            if late:
                why += f"; it was not drained after {seen.drain_max_ms / 1_000:g} s"
        self.revoke_all()
        if record.phase not in (PipelinePhase.COMPLETED, PipelinePhase.FAILED):
            self._phase(PipelinePhase.STOPPED, why)

    def revoke_all(self) -> None:
        """Take all its stages away."""
        rows = self.state.instances_of(self.record.pipeline_id)
        for sidecar_id in sorted({row.sidecar_id for row in rows}):
            self._commands.append(
                RouterCommand.RevokePipeline(
                    pipeline_id=self.record.pipeline_id, sidecar_id=sidecar_id
                )
            )

    def _phase(self, phase: PipelinePhase, reason: str) -> None:
        reason = reason[:REASON_MAX]
        if (self.record.phase, self.record.reason) != (phase, reason):
            self._commands.append(
                RouterCommand.SetPipelinePhase(
                    pipeline_id=self.record.pipeline_id, phase=phase, reason=reason
                )
            )


def _offered(chosen: Mapping[int, Candidate]) -> dict[str, frozenset[int]]:
    """Partition to the instances whose services have it, in the order of the first mention."""
    offered: dict[str, set[int]] = defaultdict(set)
    for index, one in chosen.items():
        for name in one.partitions:
            offered[name].add(index)
    return {name: frozenset(who) for name, who in offered.items()}


def _bounded(
    name: str,
    chosen: Mapping[int, Candidate],
    offered: Mapping[str, frozenset[int]],
    row: PartitionOwner | None,
) -> bool:
    who = offered.get(name)
    if not who:
        return row is not None and row.bounded
    return all(chosen[index].service.bounded for index in who)
