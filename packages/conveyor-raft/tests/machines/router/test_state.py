"""Snapshots, history and indexes of the state."""

from __future__ import annotations

import json

import pytest

from conveyor_raft.machines.router import RouterCommand, RouterState, SnapshotRefused, Table
from conveyor_raft.machines.router import state as module

C = RouterCommand
P = "default/flights"


def test_a_snapshot_is_the_state(log):
    """Restored elsewhere, it answers and encodes alike, indexes included."""
    log.running()
    commit = {"pipeline_id": P, "stage": "src", "partition": "1", "term": 1, "ordinal": 3}
    log(C.CommitPositions(commits=({**commit, "position": b"\x00\xff"},)))
    log(C.JoinGroup(group_id="g", member_id="m", service_name="s", partition_names=("0",)))
    member = {"member_id": "m", "partitions": (0,)}
    log(C.AssignPartitions(group_id="g", generation=1, assignments=(member,)))
    log(C.CommitGroupOffset(group_id="g", member_id="m", generation=1, partition=0, offset=9))
    data = log.machine.snapshot()
    again = RouterState.from_bytes(data)
    assert again.to_bytes() == data
    assert (again.revision, again.table_revision) == (log.state.revision, log.state.table_revision)
    assert again.instances_on("a") == log.state.instances_on("a") != []
    assert again.groups == log.state.groups
    assert again.groups["g"].offsets == {0: 9}
    assert again.partitions_of(P) == log.state.partitions_of(P)
    assert again.positions[(P, "src", "1", "")].position == b"\x00\xff"


def test_a_restored_state_knows_no_past(log):
    """A watcher from before the snapshot lists again; from the snapshot on it can follow."""
    log.running()
    log.machine.restore(log.machine.snapshot())
    revision = log.state.revision
    assert log.state.changes_since(revision - 1) is None
    assert log.state.changes_since(revision) == []
    log(C.DeregisterSidecar(sidecar_id="a"))
    assert log.state.changes_since(revision) != []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps({"version": 2}).encode(),
        json.dumps(
            {"version": 1, "revision": 1, "table_revision": 1, "tables": {"x": []}}
        ).encode(),
        json.dumps(
            {"version": 1, "revision": 1, "table_revision": 1, "tables": {"services": [{}]}}
        ).encode(),
    ],
)
def test_what_is_no_snapshot_is_refused_and_leaves_the_state_alone(log, data):
    """A damaged snapshot never replaces a good state."""
    log.running()
    before = log.machine.snapshot()
    with pytest.raises(SnapshotRefused):
        log.machine.restore(data)
    assert log.machine.snapshot() == before


def test_history_is_bounded_and_never_tells_half_a_revision(log, monkeypatch):
    """Who is too far behind is told so, instead of missing something."""
    monkeypatch.setattr(module, "HISTORY_MAX", 4)
    for number in range(4):
        put = C.PutManifest(document_kind="Sink", name="w", document=b"{}", digest=str(number))
        other = C.PutManifest(document_kind="Source", name="s", document=b"{}", digest=str(number))
        log(C.Batch(commands=(put, other)))
    assert log.state.changes_since(1) is None
    changes = log.state.changes_since(2)
    assert [(one.revision, one.table) for one in changes] == [
        (3, Table.MANIFESTS),
        (3, Table.MANIFESTS),
        (4, Table.MANIFESTS),
        (4, Table.MANIFESTS),
    ]


def test_changes_say_what_happened(log):
    """Made, changed, removed; once per record and entry."""
    log(C.CreatePipeline(pipeline_id=P, manifest=b"{}", digest="1"))
    log(C.SetPipelinePhase(pipeline_id=P, phase="Pending", reason="no sink"))
    log(C.Batch(commands=(C.DeletePipeline(pipeline_id=P), C.PurgePipeline(pipeline_id=P))))
    assert [(one.created, one.dropped, one.reason) for one in log.state.changes_since(0)] == [
        (True, False, ""),
        (False, False, "no sink"),
        (False, True, ""),
    ]
