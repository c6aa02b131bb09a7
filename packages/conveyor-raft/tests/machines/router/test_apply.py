"""The table of commands, and all or nothing around it."""

from __future__ import annotations

import pytest

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import Moment, RouterCommand, UnknownCommand, apply_command
from conveyor_raft.machines.router.apply import RULES
from conveyor_raft.machines.router.commands import VARIANTS

C = RouterCommand


def test_the_table_is_the_vocabulary():
    """Every command has exactly one rule."""
    assert set(RULES) == set(VARIANTS)


def test_a_command_without_a_rule_stops_the_node(log):
    """Anything but `CommandRejected` is fatal to the node that applies."""

    class Teleport(RouterCommand):
        kind: str = "teleport"

    with pytest.raises(UnknownCommand, match="Teleport"):
        apply_command(log.state, Teleport(), Moment(1, 1))


def test_a_refused_batch_changes_nothing(log):
    """If the last of many documents is refused, the first is not recorded either."""
    log(C.CreatePipeline(pipeline_id="old", manifest=b"{}", digest="1"))
    before, revision = log.machine.snapshot(), log.state.revision
    with pytest.raises(CommandRejected, match=r"command 3 of 3: pipeline 'old' exists"):
        log(
            C.Batch(
                commands=(
                    C.PutManifest(document_kind="Sink", name="w", document=b"{}", digest="1"),
                    C.CreatePipeline(pipeline_id="new", manifest=b"{}", digest="1"),
                    C.CreatePipeline(pipeline_id="old", manifest=b"{}", digest="2"),
                )
            )
        )
    assert log.machine.snapshot() == before
    assert log.state.revision == revision
    assert log.state.changes_since(revision) == []


def test_a_batch_tells_of_its_parts(log):
    """Each command of a batch has an outcome of its own, in order."""
    outcome = log(
        C.Batch(
            commands=(
                C.DeregisterService(service_id="nobody"),
                C.PutManifest(document_kind="Sink", name="w", document=b"{}", digest="1"),
            )
        )
    )
    assert [part.changed for part in outcome.parts] == [False, True]
    assert outcome.changed
    assert outcome.revision == 1


def test_what_changes_nothing_moves_no_revision(log):
    """The revision is the index of the last entry that changed something."""
    log(C.PutManifest(document_kind="Sink", name="w", document=b"{}", digest="1"))
    outcome = log(C.PutManifest(document_kind="Sink", name="w", document=b"{}", digest="1"))
    assert not outcome.changed
    assert log(C.Noop()).revision == 1


def test_positions_and_renewals_leave_the_table_revision_alone(log):
    """No sidecar's table is rebuilt because positions move on or heartbeats are noted."""
    log.running()
    tables = log.state.table_revision
    commit = {"pipeline_id": "default/flights", "stage": "src", "partition": "1", "term": 1}
    outcome = log(C.CommitPositions(commits=({**commit, "ordinal": 5, "position": b"5"},)))
    assert outcome.changed
    assert log.state.revision > tables == log.state.table_revision
    revision = log.state.revision
    log(C.RenewLeases(sidecars=({"id": "a", "at_ms": 5_000},)))
    assert log.state.sidecars["a"].last_heartbeat_ms == 5_000
    assert log.state.revision == revision
