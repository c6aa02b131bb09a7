"""Documents, pipelines and their assignments."""

from __future__ import annotations

import pytest

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import PipelinePhase, RouterCommand, StageSlot
from conveyor_raft.machines.router.pipelines import STEPS

C = RouterCommand
P = "default/flights"


def create(digest="d1", **more):
    return C.CreatePipeline(pipeline_id=P, manifest=b"{}", digest=digest, **more)


def update(digest, **more):
    return C.UpdatePipeline(pipeline_id=P, manifest=b'{"v":2}', digest=digest, **more)


def give(*partitions, stage="src"):
    return C.AssignSourcePartitions(
        pipeline_id=P,
        stage=stage,
        partitions=tuple({"partition": name, "index": index} for name, index in partitions),
    )


def assign(sidecar_id, index=0, service_id=None, stage="src"):
    slot = StageSlot(stage=stage, index=index, service_id=service_id or f"{sidecar_id}-src")
    return C.AssignPipeline(pipeline_id=P, sidecar_id=sidecar_id, stages=(slot,))


def test_documents_count_their_changes(log):
    """Equal digests are no change."""

    def put(digest):
        return C.PutManifest(document_kind="Sink", name="w", document=b"{}", digest=digest)

    log(put("1"))
    log(put("1"))
    log(put("2"))
    record = log.state.manifests[("Sink", "default", "w")]
    assert (record.version, record.digest, record.revision) == (2, "2", 3)
    log(C.DeleteManifest(document_kind="Sink", name="w"))
    assert not log(C.DeleteManifest(document_kind="Sink", name="w")).changed


def test_an_update_is_another_version(log):
    """The version rises with the digest, and a wrong expectation is refused."""
    log(create())
    assert not log(update("d1")).changed
    log(update("d2", expected_version=1))
    assert log.state.pipelines[P].version == 2
    with pytest.raises(CommandRejected, match="at version 2, not 1"):
        log(update("d3", expected_version=1))
    with pytest.raises(CommandRejected, match="exists"):
        log(create())
    with pytest.raises(CommandRejected, match="there is no pipeline"):
        log(C.EnablePipeline(pipeline_id="default/other"))


def test_disabling_leaves_the_document_alone(log):
    """Enable and disable are wishes about the same version."""
    log(create())
    log(C.DisablePipeline(pipeline_id=P))
    assert not log.state.pipelines[P].enabled
    log(C.EnablePipeline(pipeline_id=P))
    assert log.state.pipelines[P].enabled
    assert log.state.pipelines[P].version == 1
    log(update("d1", enabled=False))
    assert (log.state.pipelines[P].enabled, log.state.pipelines[P].version) == (False, 1)


@pytest.mark.parametrize("ended", [PipelinePhase.FAILED, PipelinePhase.COMPLETED])
@pytest.mark.parametrize("again", [update("d2"), C.EnablePipeline(pipeline_id=P)])
def test_what_ended_is_looked_at_again_on_request(log, ended, again):
    """A new document or an operator's word begins a failed or completed pipeline anew."""
    log(create())
    log(C.SetPipelinePhase(pipeline_id=P, phase=ended, reason="so"))
    log(again)
    assert log.state.pipelines[P].phase is PipelinePhase.PENDING


def test_the_life_of_a_pipeline_is_a_table(log):
    """Steps that the table does not have are refused; a new reason always goes."""
    assert set(STEPS) == set(PipelinePhase)
    log(create())
    log.now_ms = 2_000
    log(C.SetPipelinePhase(pipeline_id=P, phase="Completed"))
    log.now_ms = 3_000
    log(C.SetPipelinePhase(pipeline_id=P, phase="Completed", reason="all finished"))
    record = log.state.pipelines[P]
    assert (record.reason, record.phase_since_ms) == ("all finished", 2_000)
    with pytest.raises(CommandRejected, match="is Completed; it cannot become Draining"):
        log(C.SetPipelinePhase(pipeline_id=P, phase="Draining"))


def test_a_pipeline_is_purged_only_after_it_was_deleted_and_stopped(log):
    """Then nothing of it is left, but its terms are never given again."""
    log.running()
    log(
        C.CommitPositions(
            commits=({"pipeline_id": P, "stage": "src", "partition": "1", "term": 1, "ordinal": 1},)
        )
    )
    with pytest.raises(CommandRejected, match="not being deleted"):
        log(C.PurgePipeline(pipeline_id=P))
    log(C.DeletePipeline(pipeline_id=P))
    with pytest.raises(CommandRejected, match="wait until it is gone"):
        log(update("d2"))
    with pytest.raises(CommandRejected, match="not stopped yet"):
        log(C.PurgePipeline(pipeline_id=P))
    log(C.RevokePipeline(pipeline_id=P, sidecar_id="a"))
    log(C.PurgePipeline(pipeline_id=P))
    state = log.state
    assert not (state.pipelines or state.partitions or state.positions or state.instances)
    log(create())
    log(assign("a"))
    log(give(("1", 0)))
    assert state.instances[(P, "src", 0)].term == 2
    assert state.partitions[(P, "src", "1")].term == 2


def test_the_term_rises_with_the_owner_and_only_then(log, make_offer):
    """Sidecar or service: another owner is the next term; the same one is no change."""
    log.running()
    log.sidecar("b", make_offer("b-src"), make_offer("b-two", "127.0.0.1:2"))
    assert not log(assign("a")).changed
    log(assign("b"))
    assert log.state.instances[(P, "src", 0)].term == 2
    assert log.state.instances_on("a") == []
    log(assign("b", service_id="b-two"))
    assert log.state.instances[(P, "src", 0)].term == 3
    log(give(("1", 0)))
    assert log.state.partitions[(P, "src", "1")].term == 2
    assert not log(give(("1", 0))).changed


def test_another_instance_of_the_same_owner_is_another_place_not_another_term(log):
    """The owner is sidecar, boot and service; the index is where it works."""
    log.running()
    log(assign("a", index=1))
    log(give(("1", 1)))
    row = log.state.partitions[(P, "src", "1")]
    assert (row.index, row.term) == (1, 1)


def test_removed_instances_release_their_partitions(log, make_offer):
    """A partition that lost its owner keeps its term until the next one."""
    log.running()
    log.sidecar("b", make_offer("b-src"))
    log(assign("b", index=1))
    log(give(("2", 1)))
    one = StageSlot(stage="src", index=0)
    log(C.RevokePipeline(pipeline_id=P, sidecar_id="b", stages=(one,)))
    assert (P, "src", 0) in log.state.instances, "another sidecar's instance is left alone"
    log(C.RevokePipeline(pipeline_id=P, sidecar_id="a", stages=(one,)))
    rows = {row.partition: row for row in log.state.partitions_of(P)}
    assert (rows["1"].owned, rows["1"].term) == (False, 1)
    assert (rows["2"].owned, rows["2"].sidecar_id) == (True, "b")
    log(give(("1", 1)))
    assert log.state.partitions[(P, "src", "1")].term == 2
    log(assign("a"))
    assert log.state.instances[(P, "src", 0)].term == 2, "an index used again is another term"


def test_partitions_are_numbered_once(log):
    """Numbers follow the first mention and never change."""
    log.running()
    log(give(("9", 0), ("2", None), ("0", None)))
    numbers = {row.partition: row.number for row in log.state.partitions_of(P)}
    assert numbers == {"1": 0, "2": 1, "9": 2, "0": 3}
    assert not log.state.partitions[(P, "src", "2")].owned


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (assign("nobody"), "no sidecar 'nobody'"),
        (assign("a", service_id="b-src"), "has no service 'b-src' for stage 'src'"),
        (
            C.AssignPipeline(pipeline_id=P, sidecar_id="a", stages=(StageSlot(stage="s"),)),
            "neither a service nor an endpoint",
        ),
        (give(("1", 7)), "has no instance 7"),
    ],
)
def test_decisions_that_the_log_overtook_are_refused(log, command, words):
    """An owner that is not there gets nothing, and the state is as it was."""
    log.running()
    before = log.machine.snapshot()
    with pytest.raises(CommandRejected, match=words):
        log(command)
    assert log.machine.snapshot() == before


def test_a_static_endpoint_needs_no_service(log):
    """A document may say where the service is; any sidecar can call it."""
    log.running()
    slot = StageSlot(stage="sink", endpoint="10.0.0.7:50053")
    log(C.AssignPipeline(pipeline_id=P, sidecar_id="a", stages=(slot,)))
    row = log.state.instances[(P, "sink", 0)]
    assert (row.service_id, row.endpoint) == ("", "10.0.0.7:50053")
