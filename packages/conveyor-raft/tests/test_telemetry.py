"""One trace shows a proposal on every node; without a trace nothing is recorded or sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace

from conveyor_raft import KeyValueCommand, KeyValueStateMachine
from conveyor_raft.core.types import LogIndex, NodeId
from conveyor_raft.telemetry import TraceMarks
from conveyor_raft.testing.cluster import memory_cluster, wait_for_leader
from conveyor_raft.transport.base import EntryTrace

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder:
    """A span processor that keeps what ended."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None: ...

    def on_end(self, span: Any) -> None:
        self.spans.append(span)

    def _on_ending(self, span: Any) -> None: ...

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A provider for this test alone, in the place of the global one."""
    recorder = Recorder()
    provider = sdk.TracerProvider()
    provider.add_span_processor(recorder)
    monkeypatch.setattr("conveyor_raft.telemetry.tracer", provider.get_tracer("test"))
    recorder.tracer = provider.get_tracer("caller")  # type: ignore[attr-defined]
    yield recorder
    provider.shutdown()


@pytest.mark.asyncio
async def test_a_proposal_is_seen_on_every_node(recorder: Any) -> None:
    """propose on the leader, append on both followers, apply on all: one trace, one parent."""
    async with memory_cluster(3, KeyValueStateMachine) as nodes:
        leader = await wait_for_leader(nodes)
        with recorder.tracer.start_as_current_span("caller") as caller:
            await leader.propose(KeyValueCommand.put("a", b"1"))
        for node in nodes:
            await node.wait_applied(leader.commit_index, 5)
        await leader.propose(KeyValueCommand.put("b", b"1"))
    spans = [span for span in recorder.spans if span.name.startswith("raft.")]
    followers = {1, 2, 3} - {leader.node_id}
    assert {span.context.trace_id for span in spans} == {caller.get_span_context().trace_id}
    by_name: dict[str, list[Any]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    (propose,) = by_name["raft.propose"]
    nodes_of = {
        name: sorted(s.attributes["raft.node_id"] for s in by_name[name]) for name in by_name
    }
    assert nodes_of == {
        "raft.propose": [leader.node_id],
        "raft.append": sorted(followers),
        "raft.apply": [1, 2, 3],
    }
    for span in by_name["raft.append"] + by_name["raft.apply"]:
        assert span.parent.span_id == propose.context.span_id
        assert span.start_time <= span.end_time


@pytest.mark.asyncio
async def test_without_a_trace_nothing_is_recorded(recorder: Any) -> None:
    """No span of the caller, no span of ours."""
    async with memory_cluster(1, KeyValueStateMachine) as (node,):
        await node.propose(KeyValueCommand.put("a", b"1"))
    assert recorder.spans == []


def test_marks_are_bounded_and_bad_ones_do_no_harm(recorder: Any) -> None:
    """The oldest are forgotten; garbage of a peer is no span."""
    marks = TraceMarks(NodeId(1))
    marks.add([EntryTrace(LogIndex(n), PARENT) for n in range(10_000)], appending=True)
    marks.appended(LogIndex(20_000))
    assert len(recorder.spans) == 4_096
    marks.add(
        [EntryTrace(LogIndex(1), bad) for bad in ("", "a-b-c-d", PARENT[:30])], appending=True
    )
    marks.applied(LogIndex(0), LogIndex(20_000), 1)
    assert len(recorder.spans) == 4_096 + 4_095  # one mark was replaced by garbage


def test_the_api_alone_is_enough() -> None:
    """Without an SDK the current span does not record, and nothing is looked up further."""
    assert not trace.get_current_span().is_recording()
