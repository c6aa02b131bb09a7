"""The routing table as the engine needs it: plain, frozen, complete.

The router agrees on pipelines and assignments; the shell turns the table of its sidecar into
these dataclasses and hands them to the engine in one event. The engine compares the new table
with the one it runs on and changes its own runtime in one step. Nothing here is mutable and
nothing is looked up elsewhere, so a table that was logged explains every decision that was
taken under it.

Two identities carry all the fencing of the data plane:

* an **instance** (pipeline, stage, index) runs under an assignment **term**; a higher term is
  another owner;
* a source **partition** has a term of its own; positions are committed under it, and a commit
  under an older term is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from conveyor_sdk.carrier.frame import Frame


class StageKind(Enum):
    """What a stage does with records."""

    SOURCE = "source"
    TRANSFORM = "transform"
    SINK = "sink"


class InstanceKey(NamedTuple):
    """One instance of a stage. Its assignment term is kept beside it, because it changes."""

    pipeline: str
    stage: str
    number: int


class PartitionKey(NamedTuple):
    """One partition of a source stage; fenced by its own term."""

    pipeline: str
    stage: str
    partition: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon records are tried again.

    Attributes:
        attempts: Deliveries before a record becomes a dead letter; an answer "busy" does not count.
        backoff_ms: Wait before the second attempt; doubled for each further one.
        backoff_max_ms: No wait is longer, jitter included.
        jitter: Share of the wait that is left to chance, 0 to 1.
    """

    attempts: int = 5
    backoff_ms: int = 100
    backoff_max_ms: int = 10_000
    jitter: float = 0.2


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How many records one call to the service, or one frame, carries at most."""

    records: int = 500
    bytes: int = 262_144
    linger_ms: int = 5


@dataclass(frozen=True, slots=True)
class Stage:
    """A node of the pipeline.

    Attributes:
        name: Id of the stage in its pipeline.
        kind: Source, transform or sink.
        retry: Retry policy of its records.
        batch: Limits of one call.
        timeout_ms: A call that has not answered by then has failed.
        config: Strings handed to the service in every call.
        stable_offsets: Sources: an offset names the same record on every replay, so identity
            leaves out the term.
    """

    name: str
    kind: StageKind
    retry: RetryPolicy = RetryPolicy()
    batch: BatchPolicy = BatchPolicy()
    timeout_ms: int = 30_000
    config: Mapping[str, str] = field(default_factory=dict)
    stable_offsets: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow between two stages.

    Attributes:
        producer: Stage that records come from.
        consumer: Stage that records go to.
        keyed: Records with the same key go to the same instance; the frame's key hashes decide.
        condition: Answers for a frame with the places of the records that the edge takes, in
            order; None takes all. It is compiled by the shell from the edge's predicate and
            must neither fail nor remember anything.
    """

    producer: str
    consumer: str
    keyed: bool = False
    condition: Callable[[Frame], Sequence[int]] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Id of the edge in its pipeline."""
        return f"{self.producer}>{self.consumer}"


@dataclass(frozen=True, slots=True)
class Instance:
    """Who runs one instance of a stage.

    Attributes:
        stage: Id of the stage.
        index: Number of the instance, from 0.
        term: Assignment term.
        sidecar_id: The sidecar that runs it.
        endpoint: Where that sidecar accepts lanes.
        service_id: The service instance beside it.
        boot_id: Of that sidecar's process, where the router knows it; empty otherwise.
    """

    stage: str
    index: int
    term: int
    sidecar_id: str
    endpoint: str
    service_id: str
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class SourcePartition:
    """A source partition that this sidecar owns.

    Attributes:
        stage: Id of the source stage.
        index: Instance of the stage that reads it.
        partition: The source's name of it.
        term: Assignment term of the partition.
        replay_id: 0 for live records.
        resume: Committed position, where reading goes on; empty with `from_start`.
        from_start: Nothing has been committed yet.
        next_ordinal: First ordinal to give out under this term: one above the committed one.
        finished: The partition is finished and its end is committed.
        draining: Stop reading, end what was read, commit, give it back.
    """

    stage: str
    index: int
    partition: str
    term: int
    replay_id: int = 0
    resume: bytes = b""
    from_start: bool = True
    next_ordinal: int = 0
    finished: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One version of a pipeline, with all instances of all its stages and this sidecar's own
    source partitions.
    """

    name: str
    version: int
    stages: Mapping[str, Stage]
    edges: tuple[Edge, ...]
    instances: tuple[Instance, ...]
    partitions: tuple[SourcePartition, ...] = ()

    def edges_from(self, stage: str) -> tuple[Edge, ...]:
        """The out-edges of a stage, in the order of the manifest."""
        return tuple(edge for edge in self.edges if edge.producer == stage)

    def instances_of(self, stage: str) -> tuple[Instance, ...]:
        """The instances of a stage, by index."""
        found = (instance for instance in self.instances if instance.stage == stage)
        return tuple(sorted(found, key=lambda instance: instance.index))


@dataclass(frozen=True, slots=True)
class Table:
    """All that a sidecar takes part in, at one revision of the router's state."""

    revision: int = 0
    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)
