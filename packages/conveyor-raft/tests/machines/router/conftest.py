"""A log in the hand: commands applied one by one, with time and index under control."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from conveyor_raft.machines.base import Entry
from conveyor_raft.machines.router import (
    Outcome,
    RouterCommand,
    RouterState,
    RouterStateMachine,
    ServiceOffer,
    ServiceType,
    StageSlot,
)

C = RouterCommand
PIPELINE = "default/flights"


@dataclass
class Log:
    """Applies commands as entries and keeps them, so that another machine can replay them."""

    machine: RouterStateMachine = field(default_factory=RouterStateMachine)
    now_ms: int = 1_000
    entries: list[Entry[RouterCommand]] = field(default_factory=list)

    @property
    def state(self) -> RouterState:
        return self.machine.state

    def __call__(self, command: RouterCommand) -> Outcome:
        decoded = self.machine.decode_command(self.machine.encode_command(command))
        entry = Entry(len(self.entries) + 1, 1, self.now_ms, decoded)
        self.entries.append(entry)
        return self.machine.apply(entry)

    def sidecar(self, sidecar_id: str, *services: ServiceOffer, boot: str = "b1") -> Outcome:
        return self(
            C.RegisterSidecar(
                sidecar_id=sidecar_id,
                boot_id=boot,
                endpoint=f"{sidecar_id}.pod:9091",
                services=services,
            )
        )

    def running(self) -> None:
        """One pipeline whose source stage runs on sidecar `a`, with partitions `1` and `2`."""
        self.sidecar("a", offer("a-src"))
        self(C.CreatePipeline(pipeline_id=PIPELINE, manifest=b"{}", digest="d1"))
        self(
            C.AssignPipeline(
                pipeline_id=PIPELINE,
                sidecar_id="a",
                stages=(StageSlot(stage="src", index=0, service_id="a-src"),),
            )
        )
        self(
            C.AssignSourcePartitions(
                pipeline_id=PIPELINE,
                stage="src",
                partitions=(
                    {"partition": "1", "index": 0, "bounded": True},
                    {"partition": "2", "index": 0, "bounded": True},
                ),
            )
        )


def offer(service_id: str, endpoint: str = "127.0.0.1:50051", **more: object) -> ServiceOffer:
    return ServiceOffer(
        service_id=service_id, service_type=ServiceType.SOURCE, endpoint=endpoint, **more
    )


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def make_offer():
    return offer
