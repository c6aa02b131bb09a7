"""A small world: sidecars with services, pipelines, and a planner that is asked until it rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from conveyor_raft.machines.router import (
    Outcome,
    PipelinePhase,
    RouterCommand,
    RouterState,
    ServiceOffer,
    ServiceType,
)
from conveyor_registry import Observations, SidecarTable, plan, table_for
from conveyor_registry.model import Pipeline, ServiceDocument
from conveyor_registry.testing import InProcessRaft

C = RouterCommand
KINDS = {"source": "Source", "transform": "Transform", "sink": "Sink", "lookup": "Lookup"}


@dataclass
class World:
    """What happens in the tests, by short names. Services are given as ``kind:name``."""

    raft: InProcessRaft = field(default_factory=InProcessRaft)
    drained: set[tuple[str, str]] = field(default_factory=set)

    @property
    def state(self) -> RouterState:
        return self.raft.machine.state

    def sidecar(
        self,
        sidecar_id: str,
        *services: str,
        boot: str = "b1",
        namespace: str = "default",
        **capabilities: Any,
    ) -> Outcome:
        """Register a sidecar; capabilities are those of its sources and sinks."""
        offers = []
        for port, text in enumerate(services, start=50_051):
            kind, _, name = text.partition(":")
            more = capabilities if kind in ("source", "sink") else {}
            offers.append(
                ServiceOffer(
                    service_id=f"{sidecar_id}/{port}/{name}",
                    service_name=name,
                    service_type=ServiceType(KINDS[kind]),
                    endpoint=f"127.0.0.1:{port}",
                    namespace=namespace,
                    **more,
                )
            )
        return self.raft.apply(
            C.RegisterSidecar(
                sidecar_id=sidecar_id,
                boot_id=boot,
                namespace=namespace,
                endpoint=f"{sidecar_id}:9091",
                services=tuple(offers),
            )
        )

    def pipeline(self, name: str = "p", update: bool = False, **spec: Any) -> str:
        """Create (or update) a pipeline: by default src -> mid -> out, parallelism 2 for mid."""
        if not spec:
            spec = {"source": "src", "steps": ["mid"], "sink": "out"}
        document = Pipeline.of(
            {
                "apiVersion": "conveyor/v1",
                "kind": "Pipeline",
                "metadata": {"name": name},
                "spec": spec,
            }
        )
        command = C.UpdatePipeline if update else C.CreatePipeline
        self.raft.apply(
            command(pipeline_id=document.id, manifest=document.canonical(), digest=document.digest)
        )
        return document.id

    def document(self, kind: str, name: str, **spec: Any) -> None:
        document = ServiceDocument.of(
            {
                "apiVersion": "conveyor/v1",
                "kind": kind,
                "metadata": {"name": name},
                "spec": spec,
            }
        )
        self.raft.apply(
            C.PutManifest(
                document_kind=kind,
                name=name,
                document=document.canonical(),
                digest=document.digest,
            )
        )

    def plan(self) -> list[RouterCommand]:
        return plan(self.state, Observations(drained=frozenset(self.drained)), self.raft.now_ms)

    def settle(self) -> list[RouterCommand]:
        """Apply plans until there is none; one round is enough for everything but wind-downs."""
        done: list[RouterCommand] = []
        for _ in range(5):
            commands = self.plan()
            if not commands:
                return done
            done += commands
            for command in commands:
                self.raft.apply(command)
        raise AssertionError(f"the planner does not come to rest: {commands}")

    def phase(self, pipeline_id: str = "default/p") -> tuple[PipelinePhase, str]:
        record = self.state.pipelines[pipeline_id]
        return record.phase, record.reason

    def owners(self, stage: str, pipeline_id: str = "default/p") -> dict[int, tuple[str, int]]:
        """Index to (sidecar, term)."""
        rows = self.state.instances_of(pipeline_id, stage)
        return {row.index: (row.sidecar_id, row.term) for row in rows}

    def readers(self, stage: str = "src", pipeline_id: str = "default/p") -> dict[str, str]:
        """Partition to sidecar; empty: nobody."""
        rows = self.state.partitions_of(pipeline_id, stage)
        return {row.partition: row.sidecar_id for row in rows}

    def finish(self, *partitions: str, stage: str = "src", pipeline_id: str = "default/p") -> None:
        commits = []
        for partition in partitions:
            owner = self.state.partitions[(pipeline_id, stage, partition)]
            commits.append(
                {
                    "pipeline_id": pipeline_id,
                    "stage": stage,
                    "partition": partition,
                    "term": owner.term,
                    "ordinal": 10,
                    "position": b"end",
                    "finished": True,
                }
            )
        outcome = self.raft.apply(C.CommitPositions(commits=tuple(commits)))
        assert not outcome.refused

    def table(self, sidecar_id: str) -> SidecarTable:
        return table_for(self.state, sidecar_id)

    def commands(self, commands: Sequence[RouterCommand]) -> list[str]:
        """The kinds of commands, batches opened."""
        kinds: list[str] = []
        for command in commands:
            parts = command.commands if isinstance(command, C.Batch) else (command,)
            kinds += [part.kind for part in parts]
        return kinds


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    return World
