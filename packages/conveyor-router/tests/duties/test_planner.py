"""The planner's moments: what it proposes is the registry's business."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from conveyor_grpc.testing import InProcessRouter, router_cluster
from conveyor_grpc.wire.sidecar_pb2 import SidecarHeartbeatRequest, StageCounters
from conveyor_raft.machines.router import PipelinePhase, PositionCommit, RouterCommand
from conveyor_raft.machines.router.parts import ServiceOffer
from conveyor_registry.model import Pipeline
from conveyor_router.duties.planner import Planner

ID = "default/p"


def pipeline(**spec: Any) -> Pipeline:
    document = {"apiVersion": "conveyor/v1", "kind": "Pipeline", "metadata": {"name": "p"}}
    spec = {"source": "in", "steps": [], "sink": "out", **spec}
    return Pipeline.parse(json.dumps({**document, "spec": spec}).encode())


def sidecar(sidecar_id: str, kind: str, name: str) -> RouterCommand:
    offer = ServiceOffer(
        service_id=f"{sidecar_id}-{name}",
        service_type=kind,  # type: ignore[arg-type]  # pydantic reads text
        endpoint="127.0.0.1:1",
        service_name=name,
        bounded=True,
    )
    return RouterCommand.RegisterSidecar(
        sidecar_id=sidecar_id, endpoint=f"{sidecar_id}:1", services=(offer,), boot_id="1"
    )


def create(document: Pipeline) -> RouterCommand:
    return RouterCommand.CreatePipeline(
        pipeline_id=ID, manifest=document.canonical(), digest=document.digest
    )


@pytest_asyncio.fixture
async def router() -> AsyncIterator[InProcessRouter]:
    async with router_cluster() as (router,):
        yield router


async def phase(router: InProcessRouter, wanted: PipelinePhase) -> None:
    """Wait until the pipeline is in a phase."""
    level = router.plane.feed.revision
    async with asyncio.timeout(10):
        while (record := (await router.state()).pipelines.get(ID)) is None or (
            record.phase is not wanted
        ):
            await level.wait_above(level.value, 10)


@pytest.mark.asyncio
async def test_it_plans_whenever_something_changed(router: InProcessRouter) -> None:
    """Documents, sidecars, the last position, and what is disabled."""
    plane = router.plane
    async with asyncio.TaskGroup() as group:
        duty = group.create_task(Planner(plane).run())
        await plane.propose(create(pipeline()))
        await plane.propose(sidecar("a", "Source", "in"))
        await phase(router, PipelinePhase.PENDING)
        await plane.propose(sidecar("b", "Sink", "out"))
        await phase(router, PipelinePhase.RUNNING)
        (owner,) = (await router.state()).partitions_of(ID)
        end = PositionCommit(
            pipeline_id=ID,
            stage="in",
            partition=owner.partition,
            term=owner.term,
            ordinal=1,
            finished=True,
        )
        await plane.propose(RouterCommand.CommitPositions(commits=(end,)))
        await phase(router, PipelinePhase.COMPLETED)
        duty.cancel()


@pytest.mark.asyncio
async def test_a_pipeline_stops_when_its_sidecars_have_drained(router: InProcessRouter) -> None:
    """What a heartbeat says under the draining table counts, and nothing earlier."""
    plane, planner = router.plane, Planner(router.plane)
    for command in (create(pipeline()), sidecar("a", "Source", "in"), sidecar("b", "Sink", "out")):
        await plane.propose(command)
    await planner.settle()
    await plane.propose(RouterCommand.DisablePipeline(pipeline_id=ID))
    await planner.settle()
    state = await router.state()
    assert state.pipelines[ID].phase is PipelinePhase.DRAINING

    def beat(sidecar_id: str, revision: int, held: int = 0) -> None:
        stage = StageCounters(pipeline=ID, stage="s", open_records=held)
        plane.counters.take(
            SidecarHeartbeatRequest(
                sidecar_id=sidecar_id, boot_id="1", revision_applied=revision, stages=[stage]
            ),
            plane.now_ms(),
        )

    beat("a", state.table_revision - 1)
    beat("b", state.table_revision)
    await planner.settle()
    assert (await router.state()).pipelines[ID].phase is PipelinePhase.DRAINING
    beat("a", state.table_revision, held=1)
    await planner.settle()
    assert (await router.state()).pipelines[ID].phase is PipelinePhase.DRAINING
    beat("a", state.table_revision)
    await planner.settle()
    assert (await router.state()).pipelines[ID].phase is PipelinePhase.STOPPED


@pytest.mark.asyncio
async def test_a_plan_continues_the_trace_of_the_apply(
    router: InProcessRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: later plans are nobody's consequence."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr("conveyor_router.duties.planner._tracer", tracer)
    plane, planner = router.plane, Planner(router.plane)
    with tracer.start_as_current_span("apply") as span:
        await plane.propose(create(pipeline()))
        plane.note_origin(ID)
    await planner.settle()
    await plane.propose(sidecar("a", "Source", "in"))
    await planner.settle()
    _, first, second = exporter.get_finished_spans()
    assert first.context.trace_id == span.get_span_context().trace_id
    assert second.context.trace_id != first.context.trace_id
    assert trace.get_current_span().get_span_context().is_valid is False
    provider.shutdown()


@pytest.mark.asyncio
async def test_an_overtaken_plan_is_made_again(
    router: InProcessRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log refuses what it overtook, and the next plan fits."""
    from conveyor_router.duties import planner as module

    plane, planner = router.plane, Planner(router.plane)
    for command in (create(pipeline()), sidecar("a", "Source", "in"), sidecar("b", "Sink", "out")):
        await plane.propose(command)
    real, stale = module.plan, []

    def plan(*arguments: Any) -> Any:
        commands = real(*arguments)
        if not stale:
            stale.append(True)
            return [RouterCommand.EnablePipeline(pipeline_id="default/gone")]
        return commands

    monkeypatch.setattr(module, "plan", plan)
    await planner.settle()
    assert (await router.state()).pipelines[ID].phase is PipelinePhase.RUNNING
