"""A table of the routers becomes routes: whole, frozen, and with compiled conditions."""

from __future__ import annotations

from conveyor_grpc.wire import table_pb2
from conveyor_registry.model import Miss, Pipeline, ServiceDocument
from conveyor_sdk.carrier import Origin, from_records, key_hash, record_field
from conveyor_sdk.carrier.frame import read_u64, write_u32
from conveyor_sdk.wire import info_pb2, record_pb2
from conveyor_sidecar.core.routes import PartitionKey, StageKind
from conveyor_sidecar.routing import RoutingTable, translate
from conveyor_sidecar.routing.routing_table import replay_number


def pipeline(**spec: object) -> Pipeline:
    return Pipeline.of(
        {
            "apiVersion": "conveyor/v1",
            "kind": "Pipeline",
            "metadata": {"name": "p"},
            "spec": spec,
        }
    )


def entry(document: Pipeline, **more: object) -> table_pb2.TablePipeline:
    return table_pb2.TablePipeline(
        version=3,
        manifest=document.canonical(),
        **{"pipeline": document.id, "phase": "Running", **more},
    )


DOCUMENT = pipeline(
    stages=[
        {"id": "in", "source": "numbers"},
        {"id": "find", "lookup": "users", "cache": "60s", "miss": "dead-letter"},
        {"id": "work", "transform": "work", "timeout": "2s", "config": {"a": "stage"}},
        {"id": "out", "sink": "store", "retry": {"attempts": 7}},
    ],
    edges=[
        {"from": "in", "to": "find"},
        {"from": "find", "to": "work", "when": 'headers["kind"] == "x"'},
        {"from": "work", "to": "out", "order": "key"},
    ],
    deadLetters={"keep": "1h", "bytes": "1MiB"},
)


def table() -> table_pb2.SidecarTable:
    found = entry(DOCUMENT)
    work = ServiceDocument.of(
        {
            "apiVersion": "conveyor/v1",
            "kind": "Transform",
            "metadata": {"name": "work"},
            "spec": {"config": {"a": "document", "b": "document"}, "timeout": "9s"},
        }
    )
    found.documents.add(kind="Transform", name="work", document=work.canonical())
    said = info_pb2.ServiceDescription(name="work", concurrency_max=4, batch_records_max=50)
    found.instances.add(
        stage="work",
        index=1,
        term=5,
        sidecar_id="me",
        sidecar_endpoint="127.0.0.1:1",
        service_id="me/2/work",
        service_endpoint="127.0.0.1:2",
        capabilities=said,
    )
    stable = info_pb2.ServiceDescription(name="numbers", stable_offsets=True)
    stable.call_timeout.FromSeconds(4)
    found.instances.add(
        stage="in",
        index=0,
        term=2,
        sidecar_id="other",
        sidecar_endpoint="127.0.0.1:3",
        service_id="other/4/numbers",
        service_endpoint="127.0.0.1:4",
        capabilities=stable,
    )
    found.partitions.add(stage="in", partition="a", term=9, replay_id="r1", next_ordinal=4)
    found.partitions.add(stage="in", partition="b", term=9, resume_position=b"", draining=True)
    return table_pb2.SidecarTable(revision=12, sidecar_id="me", pipelines=[found])


def test_a_pipeline_is_translated_whole() -> None:
    """Stages, policies, instances, partitions, local services and limits."""
    routes = translate(table())
    found = routes.table.pipelines["default/p"]
    assert (routes.table.revision, found.version) == (12, 3)
    work = found.stages["work"]
    assert (work.kind, work.timeout_ms) == (StageKind.TRANSFORM, 2_000)
    assert work.config == {"a": "stage", "b": "document"}
    assert found.stages["out"].retry.attempts == 7
    assert found.stages["in"].stable_offsets
    assert found.stages["in"].timeout_ms == 4_000
    assert found.stages["find"].kind is StageKind.TRANSFORM
    (service,) = routes.services.values()
    assert (service.endpoint, service.concurrency_max) == ("127.0.0.1:2", 4)
    assert routes.dead_letters["default/p"].bytes_max == 1024 * 1024
    first, second = found.partitions
    assert (first.from_start, first.next_ordinal, first.replay_id) == (True, 4, replay_number("r1"))
    assert (second.from_start, second.draining) == (False, True)
    assert routes.replays[PartitionKey("default/p", "in", "a")] == "r1"
    assert routes.stages["default/p", "find"].miss is Miss.DEAD_LETTER
    assert routes.stages["default/p", "work"].keyed
    assert routes.peer_endpoints == {"127.0.0.1:1", "127.0.0.1:3"}
    assert routes.service_endpoints == {"127.0.0.1:2"}


def test_conditions_and_key_hashes_open_records() -> None:
    """A condition answers with the places it takes; keys hash as the SDK hashes them."""
    routes = translate(table())
    (edge,) = [e for e in routes.table.pipelines["default/p"].edges if e.consumer == "work"]
    fields = [
        record_field(
            record_pb2.Record(key=key.encode(), headers={"kind": kind}).SerializeToString()
        )
        for key, kind in (("1", "x"), ("2", "y"), ("1", "x"))
    ]
    frame = from_records(
        b"".join(fields), write_u32(map(len, fields)), Origin("p", "s", "0"), range(3)
    )
    assert edge.condition is not None
    assert list(edge.condition(frame)) == [0, 2]
    assert list(read_u64(routes.records.key_hashes(frame.body))) == [
        key_hash(b"1"),
        key_hash(b"2"),
        key_hash(b"1"),
    ]


def test_a_pipeline_that_cannot_be_read_is_left_out_and_the_others_run(caplog) -> None:
    """A manifest of a newer release costs its own pipeline; what does not run has no routes."""
    good = entry(DOCUMENT)
    bad = table_pb2.TablePipeline(pipeline="default/new", manifest=b"{}", phase="Running")
    stopped = entry(DOCUMENT, pipeline="default/stopped", phase="Stopped")
    routes = translate(table_pb2.SidecarTable(revision=1, pipelines=[bad, good, stopped]))
    assert set(routes.table.pipelines) == {"default/p"}
    assert any("default/new cannot run here" in line for line in caplog.messages)


def test_a_swap_is_one_step() -> None:
    """The old routes stay whole for whoever still holds them."""
    holder = RoutingTable()
    before = holder.routes
    new = translate(table())
    assert holder.swap(new) is before
    assert holder.routes is new
    assert holder.endpoints("default/p", "work") == ("127.0.0.1:1",)
    assert holder.endpoints("default/other", "work") == ()
    assert not before.services
