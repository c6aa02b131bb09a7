"""What holds of plans in every world (seeded; a failure names its example)."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor_raft.machines.router import PipelinePhase, RouterCommand, ServiceHealth
from conveyor_registry import table_for

C = RouterCommand
SIDECARS = ("a", "b", "c", "d")
KINDS = ("source:src", "transform:mid", "sink:out")
P = "default/p"

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("register"),
            st.sampled_from(SIDECARS),
            st.lists(st.sampled_from(KINDS), max_size=3),
            st.sampled_from(["1", "2"]),
        ),
        st.tuples(st.just("register"), st.sampled_from(SIDECARS), st.just(KINDS), st.just("1")),
        st.tuples(st.just("gone"), st.sampled_from(SIDECARS)),
        st.tuples(st.just("silent"), st.sampled_from(SIDECARS)),
        st.tuples(st.just("heard"), st.sampled_from(SIDECARS)),
        st.tuples(st.just("drain"), st.sampled_from(SIDECARS)),
        st.tuples(st.just("finish"), st.sampled_from(["1", "2", "3", "4", "5"])),
        st.tuples(st.sampled_from(["enable", "disable", "wait", "parallel", "all"])),
    ),
    min_size=5,
    max_size=25,
)


def act(world, step):
    known = world.state.sidecars
    match step:
        case ("register", sidecar_id, services, boot):
            world.sidecar(
                sidecar_id, *services, boot=boot, partitions=("1", "2", "3", "4", "5"), bounded=True
            )
        case ("gone", sidecar_id):
            world.raft.apply(C.DeregisterSidecar(sidecar_id=sidecar_id))
        case (("silent" | "heard") as what, sidecar_id) if sidecar_id in known:
            health = "Unhealthy" if what == "silent" else "Healthy"
            world.raft.apply(
                C.UpdateSidecarHealth(sidecar_id=sidecar_id, health=health, reason=what)
            )
        case ("drain", sidecar_id) if sidecar_id in known:
            world.raft.apply(C.DrainSidecar(sidecar_id=sidecar_id))
        case ("finish", partition) if (P, "src", partition) in world.state.partitions:
            if (P, "src", partition, "") not in world.state.positions:
                world.finish(partition)
        case ("enable",):
            world.raft.apply(C.EnablePipeline(pipeline_id=P))
        case ("disable",):
            world.raft.apply(C.DisablePipeline(pipeline_id=P))
        case ("wait",):
            world.raft.now_ms += 30_000
        case (("parallel" | "all") as what,):
            mid = {"id": "mid", "transform": "mid"}
            if what == "parallel":
                mid["parallelism"] = 2
            world.pipeline(
                update=True,
                stages=[{"id": "src", "source": "src"}, mid, {"id": "out", "sink": "out"}],
            )


def check(world):
    state = world.state
    record = state.pipelines[P]
    usable = {
        one
        for one, row in state.sidecars.items()
        if row.health is not ServiceHealth.UNHEALTHY and not row.draining
    }
    for row in state.instances.values():
        service = state.services[row.service_id]
        assert (service.sidecar_id, service.service_name) == (row.sidecar_id, row.stage)
        assert row.boot_id == state.sidecars[row.sidecar_id].boot_id
    for stage in ("src", "mid", "out"):
        rows = state.instances_of(P, stage)
        assert len({row.service_id for row in rows}) == len(rows), "one instance per service"
        anybody = any(
            one.service_name == stage and one.sidecar_id in usable
            for one in state.services.values()
        )
        if anybody:
            assert all(row.sidecar_id in usable for row in rows)
    if record.phase is PipelinePhase.RUNNING:
        finished = {key[2] for key, row in state.positions.items() if row.finished}
        open_rows = [row for row in state.partitions_of(P, "src") if row.partition not in finished]
        load = Counter(row.index for row in open_rows)
        assert all(row.owned for row in open_rows)
        shares = [load[row.index] for row in state.instances_of(P, "src")]
        assert max(shares) - min(shares) <= 1
    for row in state.partitions_of(P):
        if row.owned:
            instance = state.instances[(P, row.stage, row.index)]
            assert (instance.sidecar_id, instance.service_id) == (row.sidecar_id, row.service_id)
    for sidecar_id in SIDECARS:
        table = table_for(state, sidecar_id)
        mine = [one for p in table.pipelines for one in p.instances if one.sidecar_id == sidecar_id]
        assert len(mine) == len(state.instances_on(sidecar_id))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(history=steps)
def test_plans_come_to_rest_and_keep_the_promises(make_world, history):
    """After every event one plan is enough, and what is recorded is what was promised."""
    world = make_world()
    world.pipeline()
    for step in history:
        act(world, step)
        for command in world.plan():
            world.raft.apply(command)
        assert world.plan() == []
        check(world)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(history=steps, stranger=st.sampled_from(["transform:other", "sink:other"]))
def test_what_does_not_concern_a_pipeline_changes_nothing(make_world, history, stranger):
    """A sidecar with other services comes and goes: nothing is planned."""
    world = make_world()
    world.pipeline()
    for step in history:
        act(world, step)
        world.settle()
    world.sidecar("z", stranger)
    assert world.plan() == [] or world.phase()[0] is PipelinePhase.PENDING
    world.settle()
    before = {**world.state.instances, **world.state.partitions}
    world.raft.apply(C.DeregisterSidecar(sidecar_id="z"))
    world.settle()
    assert {**world.state.instances, **world.state.partitions} == before
