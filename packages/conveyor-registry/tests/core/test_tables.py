"""What a sidecar is told."""

from __future__ import annotations

from conveyor_raft.machines.router import PipelinePhase, RouterCommand, ServiceHealth
from conveyor_registry import table_for

C = RouterCommand
P = "default/p"


def running(world):
    world.pipeline()
    world.sidecar("a", "source:src", partitions=("1", "2"), stable_offsets=True)
    world.sidecar("b", "transform:mid")
    world.sidecar("c", "sink:out")
    world.document("Transform", "mid", config={"k": "v"})
    world.document("Transform", "other")
    world.settle()


def test_everything_of_the_pipelines_it_takes_part_in(world):
    """All instances of all stages, the documents that the stages name, its own partitions."""
    running(world)
    table = world.table("b")
    (pipeline,) = table.pipelines
    assert (table.sidecar_id, table.boot_id, table.revision) == (
        "b",
        "b1",
        world.state.table_revision,
    )
    assert (pipeline.pipeline_id, pipeline.version, pipeline.phase) == (P, 1, PipelinePhase.RUNNING)
    assert [(one.kind, one.name) for one in pipeline.documents] == [("Transform", "mid")]
    assert [
        (one.stage, one.index, one.term, one.sidecar_id, one.sidecar_endpoint, one.service_endpoint)
        for one in pipeline.instances
    ] == [
        ("mid", 0, 1, "b", "b:9091", "127.0.0.1:50051"),
        ("out", 0, 1, "c", "c:9091", "127.0.0.1:50051"),
        ("src", 0, 1, "a", "a:9091", "127.0.0.1:50051"),
    ]
    assert pipeline.instances[2].service.stable_offsets
    assert pipeline.partitions == ()


def test_partitions_go_on_where_they_were_committed(world):
    """Position, next ordinal and end; nothing for what was never committed."""
    running(world)
    commit = {"pipeline_id": P, "stage": "src", "partition": "2", "term": 1, "ordinal": 7}
    world.raft.apply(C.CommitPositions(commits=({**commit, "position": b"\x07"},)))
    one, two = world.table("a").pipelines[0].partitions
    assert (one.partition, one.number, one.resume_position, one.next_ordinal, one.finished) == (
        "1",
        0,
        None,
        0,
        False,
    )
    assert (two.partition, two.term, two.resume_position, two.next_ordinal) == ("2", 1, b"\x07", 7)


def test_equal_facts_are_equal_tables(world):
    """Positions, renewals and other sidecars' arrivals do not make another table."""
    running(world)
    before = world.table("a")
    commit = {"pipeline_id": P, "stage": "src", "partition": "2", "term": 1, "ordinal": 7}
    world.raft.apply(C.CommitPositions(commits=({**commit, "position": b"\x07"},)))
    world.raft.apply(C.RenewLeases(sidecars=({"id": "b", "at_ms": 1 << 50},)))
    world.sidecar("z", "transform:stranger")
    world.sidecar("b", "transform:mid")
    after = world.table("a")
    assert after == before
    assert after.revision > before.revision
    world.sidecar("b", "transform:mid", boot="b2")
    assert world.table("a") != before


def test_a_silent_sidecars_instances_are_shown_as_unhealthy(world):
    """Producers may look for others before the routers have decided."""
    running(world)
    world.raft.apply(C.UpdateSidecarHealth(sidecar_id="c", health="Unhealthy", reason="silent"))
    health = {one.stage: one.health for one in world.table("a").pipelines[0].instances}
    assert health["out"] is ServiceHealth.UNHEALTHY
    assert health["mid"] is ServiceHealth.HEALTHY


def test_nobody_has_an_empty_table(world):
    """Unknown, or without anything to do."""
    running(world)
    assert (world.table("nobody").boot_id, world.table("nobody").pipelines) == ("", ())
    world.sidecar("idle")
    assert (world.table("idle").boot_id, world.table("idle").pipelines) == ("b1", ())


def test_a_document_of_another_release_does_not_hide_the_instances(world):
    """The assignment speaks for itself."""
    running(world)
    record = world.state.pipelines[P]
    world.raft.apply(C.UpdatePipeline(pipeline_id=P, manifest=b'{"kind":"Later"}', digest="later"))
    (pipeline,) = table_for(world.state, "a").pipelines
    assert len(pipeline.instances) == 3
    assert pipeline.version == record.version + 1
