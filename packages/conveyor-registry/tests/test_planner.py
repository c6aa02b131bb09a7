"""What the planner decides, told through what is recorded afterwards."""

from __future__ import annotations

import pytest

from conveyor_raft.machines.router import PipelinePhase, RouterCommand

C = RouterCommand
P = "default/p"
RUNNING, PENDING = PipelinePhase.RUNNING, PipelinePhase.PENDING


def trio(world, **capabilities):
    world.sidecar("a", "source:src", **capabilities)
    world.sidecar("b", "transform:mid")
    world.sidecar("c", "sink:out", idempotent=True)


def test_a_pipeline_runs_when_all_its_services_are_there(world):
    """Stages and partitions are given in one atomic step, and planning again gives nothing."""
    world.pipeline()
    trio(world, partitions=("1", "2"))
    assert world.commands(world.settle()) == [
        "assign_pipeline",
        "assign_pipeline",
        "assign_pipeline",
        "assign_source_partitions",
        "set_pipeline_phase",
    ]
    assert world.phase() == (RUNNING, "")
    assert world.owners("mid") == {0: ("b", 1)}
    assert world.readers() == {"1": "a", "2": "a"}


def test_a_missing_service_is_named_with_the_nearest_one(world):
    """What waits says for what; what is there is prepared, but nothing is read."""
    world.pipeline()
    world.sidecar("a", "source:src")
    world.sidecar("b", "transform:midd", "sink:out")
    world.settle()
    assert world.phase() == (
        PENDING,
        "stage 'mid' waits: no Transform named 'mid' is registered;"
        " the nearest registered name is 'midd'",
    )
    assert world.owners("src") == {0: ("a", 1)}
    assert world.readers() == {}
    world.sidecar("d", "transform:mid")
    world.settle()
    assert world.phase() == (RUNNING, "")
    assert world.readers() == {"0": "a"}


def test_a_service_of_another_namespace_is_pointed_out(world):
    """A sidecar's NAMESPACE is easily another one than the pipeline's."""
    world.pipeline()
    world.sidecar("a", "source:src")
    world.sidecar("b", "sink:out")
    world.sidecar("c", "transform:mid", namespace="prod")
    world.settle()
    assert world.phase() == (
        PENDING,
        "stage 'mid' waits: no Transform named 'mid' is registered in namespace 'default', but in"
        " 'prod'; a pipeline uses the services of its own namespace",
    )


def test_a_document_without_a_match_says_so(world):
    """An applied document is no service."""
    world.pipeline()
    trio(world)
    world.sidecar("b")
    world.document("Transform", "mid")
    world.settle()
    assert "its document is applied, but no registered service matches it" in world.phase()[1]


def test_all_registered_instances_run_by_default(world):
    """A service that comes joins, one that goes leaves; the others stay as they are."""
    world.pipeline()
    trio(world)
    world.sidecar("d", "transform:mid")
    world.settle()
    assert world.owners("mid") == {0: ("b", 1), 1: ("d", 1)}
    world.sidecar("e", "transform:mid")
    world.settle()
    assert world.owners("mid") == {0: ("b", 1), 1: ("d", 1), 2: ("e", 1)}
    world.raft.apply(C.DeregisterSidecar(sidecar_id="b"))
    world.settle()
    assert world.owners("mid") == {1: ("d", 1), 2: ("e", 1)}
    assert world.phase() == (RUNNING, "")


def test_parallelism_is_honoured_and_a_shortage_is_told(world):
    """Two are wanted: one runs and says so, three are registered and two run."""
    world.pipeline(
        stages=[
            {"id": "src", "source": "src"},
            {"id": "mid", "transform": "mid", "parallelism": 2},
            {"id": "out", "sink": "out"},
        ]
    )
    trio(world)
    world.settle()
    assert world.phase() == (
        RUNNING,
        "stage 'mid' runs 1 of 2 instances: 1 usable services are registered",
    )
    world.sidecar("d", "transform:mid")
    world.sidecar("e", "transform:mid")
    world.settle()
    assert world.phase() == (RUNNING, "")
    assert world.owners("mid") == {0: ("b", 1), 1: ("d", 1)}


def test_a_lost_instance_is_replaced_under_its_index(world):
    """The next term, another sidecar, the same place."""
    test_parallelism_is_honoured_and_a_shortage_is_told(world)
    world.raft.apply(C.UpdateSidecarHealth(sidecar_id="b", health="Unhealthy", reason="silent"))
    world.settle()
    assert world.owners("mid") == {0: ("e", 2), 1: ("d", 1)}


def test_instances_spread_over_sidecars(world):
    """Two services beside one sidecar come after one beside another."""
    world.pipeline(
        stages=[
            {"id": "src", "source": "src"},
            {"id": "mid", "transform": "mid", "parallelism": 2},
            {"id": "out", "sink": "out"},
        ]
    )
    world.sidecar("a", "source:src", "transform:mid", "transform:mid", "sink:out")
    world.sidecar("b", "transform:mid")
    world.settle()
    assert {sidecar for sidecar, _ in world.owners("mid").values()} == {"a", "b"}


def test_partitions_are_even_and_move_as_little_as_possible(world):
    """Twelve months over one, two and three instances; each step moves only what it must."""
    world.pipeline()
    months = tuple(str(month) for month in range(1, 13))
    trio(world, partitions=months)
    world.settle()
    before = world.readers()
    for sidecar_id, share in (("d", 6), ("e", 4)):
        world.sidecar(sidecar_id, "source:src", partitions=months)
        world.settle()
        after = world.readers()
        moved = {month for month in months if after[month] != before[month]}
        assert len(moved) == share
        assert {after[month] for month in moved} == {sidecar_id}
        assert sorted(list(after.values()).count(one) for one in set(after.values())) == [share] * (
            12 // share
        )
        before = after
    rows = world.state.partitions_of(P)
    assert [row.number for row in rows] == list(range(12))
    assert {row.term for row in rows if row.sidecar_id == "a"} == {1}


def test_a_restart_within_the_lease_moves_nothing(world):
    """The same sidecar id is the same owner under the next term."""
    world.pipeline()
    trio(world, partitions=("1", "2"))
    world.sidecar("d", "source:src", partitions=("1", "2"))
    world.settle()
    before = world.readers()
    world.sidecar("a", "source:src", partitions=("1", "2"), boot="b2")
    assert world.plan() == []
    assert world.readers() == before
    terms = {row.sidecar_id: row.term for row in world.state.partitions_of(P)}
    assert terms == {"a": 2, "d": 1}


def test_a_source_reads_only_the_partitions_that_it_offers(world):
    """Files on two machines: each is read where it is."""
    world.pipeline()
    trio(world, partitions=("x", "y", "z"))
    world.sidecar("d", "source:src", partitions=("z", "w"))
    world.settle()
    readers = world.readers()
    assert (readers["x"], readers["y"], readers["w"]) == ("a", "a", "d")
    assert readers["z"] == "d"
    world.raft.apply(C.DeregisterSidecar(sidecar_id="d"))
    world.settle()
    assert world.readers() == {"x": "a", "y": "a", "z": "a", "w": ""}


def test_a_silent_only_owner_keeps_its_stage(world):
    """Nobody else could do it, and it may still be at work; the reason is told."""
    world.pipeline()
    trio(world)
    world.settle()
    world.raft.apply(C.UpdateSidecarHealth(sidecar_id="b", health="Unhealthy", reason="silent"))
    assert world.commands(world.settle()) == ["set_pipeline_phase"]
    assert world.owners("mid") == {0: ("b", 1)}
    assert world.phase() == (
        RUNNING,
        "stage 'mid' has no other instance: b/50051/mid is unhealthy (sidecar b: silent)",
    )
    world.raft.apply(
        C.ExpireSidecars(
            sidecars=(
                {"id": "b", "registered_revision": world.state.sidecars["b"].registered_revision},
            )
        )
    )
    world.settle()
    assert world.phase()[0] is PENDING
    assert world.readers() == {"0": "a"}, "the source waits with what it has"


def test_a_draining_sidecar_gives_what_others_can_take(world):
    """A drain moves stages to others, and leaves what only it can do until it is gone."""
    world.pipeline()
    trio(world)
    world.sidecar("d", "transform:mid")
    world.settle()
    world.raft.apply(C.DrainSidecar(sidecar_id="b"))
    world.raft.apply(C.DrainSidecar(sidecar_id="c"))
    world.settle()
    assert world.owners("mid") == {1: ("d", 1)}
    assert world.owners("out") == {0: ("c", 1)}
    assert world.table("b").pipelines == ()


def test_a_bounded_pipeline_completes(world):
    """When every partition of every source is recorded as finished, and not before."""
    world.pipeline()
    trio(world, partitions=("1", "2"), bounded=True)
    world.settle()
    world.finish("1")
    assert world.plan() == []
    world.finish("2")
    assert world.commands(world.settle()) == ["revoke_pipeline"] * 3 + ["set_pipeline_phase"]
    assert world.phase() == (
        PipelinePhase.COMPLETED,
        "every partition of every source is finished",
    )
    assert not world.state.instances
    world.sidecar("a", "source:src", partitions=("1", "2", "3"), bounded=True, boot="b2")
    assert world.plan() == [], "complete is complete until somebody asks again"
    world.raft.apply(C.EnablePipeline(pipeline_id=P))
    world.settle()
    assert world.phase() == (RUNNING, "")
    assert world.readers() == {"1": "", "2": "", "3": "a"}


def test_completion_needs_no_process_any_more(world):
    """A source that exits after its end has still finished."""
    world.pipeline()
    trio(world, bounded=True)
    world.settle()
    world.finish("0")
    world.raft.apply(C.DeregisterSidecar(sidecar_id="a"))
    world.settle()
    assert world.phase()[0] is PipelinePhase.COMPLETED


def test_an_unbounded_source_never_completes(world):
    """Its partitions may say finished; there may be more tomorrow."""
    world.pipeline()
    trio(world)
    world.settle()
    world.finish("0")
    world.settle()
    assert world.phase()[0] is RUNNING


def test_disabling_drains_then_stops(world):
    """The owners keep their partitions while they end what was read; then all is taken."""
    world.pipeline()
    trio(world)
    world.settle()
    world.raft.apply(C.DisablePipeline(pipeline_id=P))
    world.settle()
    assert world.phase() == (PipelinePhase.DRAINING, "disabled")
    (pipeline,) = world.table("a").pipelines
    assert [one.draining for one in pipeline.partitions] == [True]
    world.drained = {(P, "a"), (P, "b")}
    assert world.plan() == []
    world.drained.add((P, "c"))
    world.settle()
    assert world.phase() == (PipelinePhase.STOPPED, "disabled")
    assert not world.state.instances
    assert world.readers() == {"0": ""}


def test_draining_is_bounded_in_time(world):
    """A sink that hangs does not keep a pipeline for ever; what was open is read again later."""
    world.pipeline()
    trio(world)
    world.settle()
    world.raft.apply(C.DisablePipeline(pipeline_id=P))
    world.settle()
    world.raft.now_ms += 24_999
    assert world.plan() == []
    world.raft.now_ms += 1
    world.settle()
    assert world.phase() == (
        PipelinePhase.STOPPED,
        "disabled; it was not drained after 25 s",
    )


def test_enabling_in_the_middle_of_a_drain_begins_again_under_the_next_term(world):
    """The owner has stopped reading; its next beginning must not look like the last one."""
    world.pipeline()
    trio(world)
    world.settle()
    world.raft.apply(C.DisablePipeline(pipeline_id=P))
    world.settle()
    world.raft.apply(C.EnablePipeline(pipeline_id=P))
    world.settle()
    assert world.phase() == (RUNNING, "")
    (row,) = world.state.partitions_of(P)
    assert (row.sidecar_id, row.term) == ("a", 2)


def test_a_deleted_pipeline_leaves_nothing(world):
    """It drains, stops and is purged; made anew, it begins anew, above all old terms."""
    world.pipeline()
    trio(world)
    world.settle()
    world.finish("0")
    world.raft.apply(C.DeletePipeline(pipeline_id=P))
    world.raft.now_ms += 60_000
    world.settle()
    assert world.phase()[0] is PipelinePhase.DRAINING
    world.raft.now_ms += 60_000
    world.settle()
    assert not (world.state.pipelines or world.state.instances or world.state.partitions)
    world.pipeline()
    world.settle()
    assert world.owners("src") == {0: ("a", 2)}
    (partition,) = world.table("a").pipelines[0].partitions
    assert (partition.term, partition.resume_position, partition.next_ordinal) == (2, None, 0)


def test_a_pipeline_that_never_ran_goes_at_once(world):
    """Nothing is to be drained."""
    world.pipeline()
    world.settle()
    world.raft.apply(C.DisablePipeline(pipeline_id=P))
    world.settle()
    assert world.phase() == (PipelinePhase.STOPPED, "disabled")
    world.raft.apply(C.DeletePipeline(pipeline_id=P))
    world.settle()
    assert not world.state.pipelines


def test_a_new_version_moves_only_what_it_names(world):
    """A stage that goes is taken, one that comes is given, the rest keeps its terms."""
    world.pipeline()
    trio(world)
    world.sidecar("d", "transform:more")
    world.settle()
    world.pipeline(update=True, source="src", steps=["more"], sink="out")
    assert world.commands(world.settle()) == ["revoke_pipeline", "assign_pipeline"]
    assert world.owners("mid") == {}
    assert world.owners("more") == {0: ("d", 2)}, "above the term of what went"
    assert world.owners("src") == {0: ("a", 1)}
    assert world.table("a").pipelines[0].version == 2


def test_a_promise_that_is_broken_stops_the_beginning(world):
    """Effectively-once waits, with the reason, while a sink does not make its promise."""
    spec = {
        "delivery": "effectively-once",
        "stages": [{"id": "src", "source": "src"}, {"id": "out", "sink": "out"}],
    }
    world.pipeline(**spec)
    world.sidecar("a", "source:src", stable_offsets=True)
    world.sidecar("c", "sink:out")
    world.settle()
    phase, reason = world.phase()
    assert phase is PENDING
    assert "declare idempotent" in reason
    assert world.readers() == {}
    world.sidecar("c", "sink:out", idempotent=True)
    world.settle()
    assert world.phase() == (RUNNING, "")


def test_a_failed_pipeline_has_nothing(world):
    """An operator's decision; enabling gives another chance."""
    world.pipeline()
    trio(world)
    world.settle()
    world.raft.apply(C.SetPipelinePhase(pipeline_id=P, phase="Failed", reason="poison"))
    world.settle()
    assert not world.state.instances
    assert world.phase() == (PipelinePhase.FAILED, "poison")
    world.raft.apply(C.EnablePipeline(pipeline_id=P))
    world.settle()
    assert world.phase()[0] is RUNNING


def test_a_document_binds_a_foreign_service(world):
    """By port, by a reflected gRPC service, by labels; its declarations count."""
    world.pipeline()
    trio(world)
    world.document(
        "Source",
        "src",
        match={"port": 50099},
        declares={"partitions": ["k", "l"], "bounded": True},
    )
    world.settle()
    assert world.phase()[0] is PENDING
    world.raft.apply(
        C.RegisterSidecar(
            sidecar_id="f",
            endpoint="f:9091",
            services=(
                {
                    "service_id": "f/50099/source",
                    "service_name": "source-50099",
                    "service_type": "Source",
                    "endpoint": "127.0.0.1:50099",
                    "described": False,
                },
            ),
        )
    )
    world.settle()
    assert world.readers() == {"k": "f", "l": "f"}
    assert all(row.bounded for row in world.state.partitions_of(P))
    instance = world.table("f").pipelines[0].instances[-1]
    assert (instance.stage, instance.service.partitions) == ("src", ("k", "l"))


def test_a_static_endpoint_is_called_by_one_sidecar(world):
    """A document that says where the service is needs no registration; one instance by default."""
    world.pipeline()
    trio(world)
    world.sidecar("b")
    world.document("Transform", "mid", endpoint="10.0.0.7:50053")
    world.settle()
    assert world.phase() == (RUNNING, "")
    (row,) = world.state.instances_of(P, "mid")
    assert (row.sidecar_id, row.service_id, row.endpoint) == ("b", "", "10.0.0.7:50053")


@pytest.mark.parametrize("namespace", ["other", "default"])
def test_namespaces_do_not_mix(world, namespace):
    """A pipeline uses the services of its own namespace."""
    world.pipeline()
    trio(world)
    world.sidecar("b")
    world.raft.apply(
        C.RegisterSidecar(
            sidecar_id="n",
            endpoint="n:9091",
            namespace=namespace,
            services=(
                {
                    "service_id": "n/mid",
                    "service_name": "mid",
                    "service_type": "Transform",
                    "endpoint": "127.0.0.1:1",
                    "namespace": namespace,
                },
            ),
        )
    )
    world.settle()
    assert (world.phase()[0] is RUNNING) is (namespace == "default")


def test_an_unreadable_document_waits_for_the_release_that_can(world):
    """A manifest of a newer release stops nothing else."""
    world.raft.apply(C.CreatePipeline(pipeline_id="default/q", manifest=b"{}", digest="1"))
    world.pipeline()
    trio(world)
    world.settle()
    phase, reason = world.phase("default/q")
    assert phase is PENDING
    assert reason.startswith("this release cannot read the document")
    assert world.phase()[0] is RUNNING
