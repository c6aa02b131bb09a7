"""From a command to its effect: the one table, and all-or-nothing around it.

Rules kept: one literal dictionary of commands and functions, held equal to the command union by a
test; a command that is not in it stops the node. A command that is refused (`CommandRejected`) has
changed nothing, a batch as a whole included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import (
    commands as c,
)
from conveyor_raft.machines.router import (
    groups,
    pipelines,
    positions,
    services,
    sidecars,
)
from conveyor_raft.machines.router.outcome import Moment, Outcome
from conveyor_raft.machines.router.state import RouterState
from conveyor_raft.machines.router.unreadable import UnknownCommand

Rule = Callable[[RouterState, Any, Moment], Outcome]


def apply_command(state: RouterState, command: c.RouterCommand, moment: Moment) -> Outcome:
    """Apply one command of the log; raise `CommandRejected` with the state as it was."""
    mark = state.begin()
    try:
        outcome = _run(state, command, moment)
    except CommandRejected:
        state.roll_back(mark)
        raise
    changed = state.commit(moment.index, moment.timestamp_ms)
    return replace(outcome, changed=changed, revision=state.revision)


def _run(state: RouterState, command: c.RouterCommand, moment: Moment) -> Outcome:
    rule = RULES.get(type(command))
    if rule is None:
        raise UnknownCommand(f"{type(command).__name__} has no rule in this release; upgrade")
    return rule(state, command, moment)


def _noop(state: RouterState, command: c.Noop, moment: Moment) -> Outcome:
    return Outcome()


def _batch(state: RouterState, command: c.Batch, moment: Moment) -> Outcome:
    parts = []
    for place, one in enumerate(command.commands):
        mark = state.begin()
        try:
            part = _run(state, one, moment)
        except CommandRejected as refusal:
            raise CommandRejected(
                refusal.code, f"command {place + 1} of {len(command.commands)}: {refusal.message}"
            ) from refusal
        parts.append(replace(part, changed=state.begin() > mark))
    return Outcome(parts=tuple(parts))


RULES: Mapping[type[c.RouterCommand], Rule] = {
    c.Noop: _noop,
    c.Batch: _batch,
    c.RegisterService: services.register_service,
    c.DeregisterService: services.deregister_service,
    c.UpdateServiceHealth: services.update_service_health,
    c.RenewLeases: services.renew_leases,
    c.ExpireServices: services.expire_services,
    c.RegisterSidecar: sidecars.register_sidecar,
    c.DeregisterSidecar: sidecars.deregister_sidecar,
    c.DrainSidecar: sidecars.drain_sidecar,
    c.UpdateSidecarHealth: sidecars.update_sidecar_health,
    c.ExpireSidecars: sidecars.expire_sidecars,
    c.PutManifest: pipelines.put_manifest,
    c.DeleteManifest: pipelines.delete_manifest,
    c.CreatePipeline: pipelines.create_pipeline,
    c.UpdatePipeline: pipelines.update_pipeline,
    c.DeletePipeline: pipelines.delete_pipeline,
    c.PurgePipeline: pipelines.purge_pipeline,
    c.EnablePipeline: pipelines.enable_pipeline,
    c.DisablePipeline: pipelines.disable_pipeline,
    c.SetPipelinePhase: pipelines.set_pipeline_phase,
    c.AssignPipeline: pipelines.assign_pipeline,
    c.RevokePipeline: pipelines.revoke_pipeline,
    c.AssignSourcePartitions: pipelines.assign_source_partitions,
    c.CommitPositions: positions.commit_positions,
    c.JoinGroup: groups.join_group,
    c.LeaveGroup: groups.leave_group,
    c.AssignPartitions: groups.assign_partitions,
    c.CommitGroupOffset: groups.commit_group_offset,
}
"""The only way from a command to its effect."""
