"""What holds for every sequence of commands (seeded; a failure names its example)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.base import Entry
from conveyor_raft.machines.router import RouterCommand, RouterStateMachine

C = RouterCommand
ids = st.sampled_from(["a", "b", "c"])
pipelines = st.sampled_from(["p", "p", "q"])
stages = st.sampled_from(["src", "src", "sink"])
small = st.integers(0, 2)
partitions = st.sampled_from(["0", "1", "2"])


def offers(sidecar_id: str):
    return st.lists(small, max_size=2, unique=True).map(
        lambda numbers: tuple(
            {
                "service_id": f"{sidecar_id}-{n}",
                "service_type": "Source",
                "endpoint": f"127.0.0.1:{n + 1}",
            }
            for n in numbers
        )
    )


registrations = ids.flatmap(
    lambda one: st.builds(
        C.RegisterSidecar,
        sidecar_id=st.just(one),
        endpoint=st.sampled_from([f"{one}:9091", f"{one}:9091", "shared:9091"]),
        boot_id=st.sampled_from(["1", "2"]),
        services=offers(one),
    )
)
assignments = ids.flatmap(
    lambda one: st.builds(
        C.AssignPipeline,
        pipeline_id=pipelines,
        sidecar_id=st.just(one),
        stages=st.lists(
            st.builds(
                lambda stage, index, n: {
                    "stage": stage,
                    "index": index,
                    "service_id": f"{one}-{n}",
                },
                stages,
                st.sampled_from([0, 0, 1, 2]),
                small,
            ),
            min_size=1,
            max_size=2,
        ),
    )
)
slots = st.builds(
    lambda name, index: {"partition": name, "index": index},
    partitions,
    st.sampled_from([0, 0, 0, 1, 1, 2, None]),
)
commits = st.builds(
    lambda pipeline_id, partition, term, ordinal, finished: {
        "pipeline_id": pipeline_id,
        "stage": "src",
        "partition": partition,
        "term": term,
        "ordinal": ordinal,
        "finished": finished,
        "position": str(ordinal).encode(),
    },
    pipelines,
    partitions,
    st.integers(0, 6),
    st.integers(0, 9),
    st.booleans(),
)
expiries = st.builds(
    lambda one, revision: {"id": one, "registered_revision": revision}, ids, st.integers(1, 20)
)
singles = st.one_of(
    registrations,
    registrations,
    assignments,
    assignments,
    st.builds(
        C.AssignSourcePartitions,
        pipeline_id=pipelines,
        stage=st.just("src"),
        partitions=st.lists(slots, min_size=1, max_size=2),
    ),
    st.builds(C.CommitPositions, commits=st.lists(commits, max_size=3)),
    st.builds(C.DeregisterSidecar, sidecar_id=ids),
    st.builds(C.ExpireSidecars, sidecars=st.lists(expiries, max_size=2)),
    st.builds(
        C.UpdateSidecarHealth, sidecar_id=ids, health=st.sampled_from(["Healthy", "Unhealthy"])
    ),
    st.builds(C.CreatePipeline, pipeline_id=pipelines, manifest=st.just(b"{}"), digest=ids),
    st.builds(C.DeletePipeline, pipeline_id=pipelines),
    st.builds(C.PurgePipeline, pipeline_id=pipelines),
    st.builds(C.RevokePipeline, pipeline_id=pipelines, sidecar_id=ids),
    st.builds(C.RevokePipeline, pipeline_id=pipelines, sidecar_id=ids),
    st.builds(
        C.JoinGroup,
        group_id=st.just("g"),
        member_id=ids,
        service_name=st.just("s"),
        partition_names=st.lists(partitions, max_size=2),
    ),
    st.builds(C.LeaveGroup, group_id=st.just("g"), member_id=ids),
)
commands = st.one_of(
    singles, singles, singles, st.builds(C.Batch, commands=st.lists(singles, max_size=3))
)
PROLOGUE = [
    *(C.CreatePipeline(pipeline_id=one, manifest=b"{}", digest="d") for one in ("p", "q")),
    *(
        C.RegisterSidecar(
            sidecar_id=one,
            endpoint=f"{one}:9091",
            boot_id="1",
            services=tuple(
                {
                    "service_id": f"{one}-{n}",
                    "service_type": "Source",
                    "endpoint": f"127.0.0.1:{n + 1}",
                }
                for n in range(3)
            ),
        )
        for one in ("a", "b")
    ),
]
"""So that most of what follows has something to work on."""
histories = st.lists(commands, min_size=40, max_size=60).map(lambda more: [*PROLOGUE, *more])


def apply(machine: RouterStateMachine, index: int, command: RouterCommand) -> bool:
    decoded = machine.decode_command(machine.encode_command(command))
    try:
        machine.apply(Entry(index, 1, 1_000 + index, decoded))
    except CommandRejected:
        return False
    return True


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True)
@given(history=histories, cut=st.integers(0, 50))
def test_every_replica_has_the_same_bytes(history, cut):
    """Live, or restored from a snapshot somewhere on the way: the same state, byte for byte.

    And a refused command leaves no trace.
    """
    live, late = RouterStateMachine(), RouterStateMachine()
    for index, command in enumerate(history, start=1):
        if index == cut:
            late.restore(live.snapshot())
        before = live.snapshot() if index % 3 == 0 else None
        accepted = apply(live, index, command)
        assert accepted or before is None or live.snapshot() == before
        if index >= cut:
            assert apply(late, index, command) is accepted
    if len(history) >= cut:
        assert late.snapshot() == live.snapshot()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(history=histories)
def test_terms_only_rise_and_tell_owners_apart(history):
    """Of one instance or partition, each term has had one owner, whatever came between.

    And indexes say what the tables say.
    """
    machine = RouterStateMachine()
    highest: dict[tuple, int] = {}
    owners: dict[tuple, tuple] = {}
    ordinals: dict[tuple, int] = {}
    for index, command in enumerate(history, start=1):
        gone = set(machine.state.pipelines)
        apply(machine, index, command)
        state = machine.state
        for table in (state.instances, state.partitions):
            for key, row in table.items():
                assert row.term >= highest.get(key, 0)
                highest[key] = row.term
                owner = (row.sidecar_id, row.boot_id, row.service_id)
                if row.sidecar_id:
                    assert owners.setdefault((key, row.term), owner) == owner
        for key, position in state.positions.items():
            assert position.ordinal >= ordinals.get(key, 0)
            ordinals[key] = position.ordinal
        for purged in gone - set(state.pipelines):
            ordinals = {key: value for key, value in ordinals.items() if key[0] != purged}
    check_indexes(machine.state)


def check_indexes(state):
    for pipeline_id in ("p", "q"):
        rows = [row for row in state.instances.values() if row.pipeline_id == pipeline_id]
        assert sorted(rows, key=repr) == sorted(state.instances_of(pipeline_id), key=repr)
        parts = [row for row in state.partitions.values() if row.pipeline_id == pipeline_id]
        assert sorted(parts, key=repr) == sorted(state.partitions_of(pipeline_id), key=repr)
        by_stage = {}
        for row in parts:
            by_stage.setdefault(row.stage, []).append(row.number)
        assert all(sorted(n) == list(range(len(n))) for n in by_stage.values())
    for sidecar_id in ("a", "b", "c"):
        rows = [row for row in state.instances.values() if row.sidecar_id == sidecar_id]
        assert sorted(rows, key=repr) == sorted(state.instances_on(sidecar_id), key=repr)
        sidecar = state.sidecars.get(sidecar_id)
        mine = sorted(s.service_id for s in state.services.values() if s.sidecar_id == sidecar_id)
        assert mine == (list(sidecar.service_ids) if sidecar else [])
