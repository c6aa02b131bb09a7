"""One engine on a bench: tables from a line of stages, events in, effects by kind out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from conveyor_sdk.carrier.frame import Frame, from_records, write_u32
from conveyor_sdk.carrier.lineage import Origin
from conveyor_sidecar.core.effects import Effect, OpenLink, OpenSource, SendLaneMessage
from conveyor_sidecar.core.engine import Engine
from conveyor_sidecar.core.events import (
    Event,
    LaneMessageReceived,
    LinkUp,
    Outputs,
    ServiceUp,
    SourceBatchRead,
    TableChanged,
)
from conveyor_sidecar.core.messages import (
    Hello,
    HelloAck,
    LaneAccept,
    LaneCredit,
    LaneMessage,
    LaneOpen,
    LaneStatus,
    StageInstance,
)
from conveyor_sidecar.core.options import EngineOptions
from conveyor_sidecar.core.routes import (
    Edge,
    Instance,
    InstanceKey,
    Pipeline,
    RetryPolicy,
    SourcePartition,
    Stage,
    StageKind,
    Table,
)

_Kind = TypeVar("_Kind")

PIPELINE = "p"
"""Name of the pipeline on the bench."""


class Harness:
    """The engine of sidecar `me` on a bench.

    Args:
        me: Id of the sidecar.
        options: Differences from the default options.
    """

    def __init__(self, me: str = "me", **options: Any) -> None:
        self.me = me
        self.now_ms = 0
        self.engine = Engine(EngineOptions(me, f"{me}-boot", **options), Random(0))
        self.effects: list[Effect] = []

    def do(self, event: Event, after_ms: int = 0) -> list[Effect]:
        """Let an event happen some time from now; its effects are kept in `effects`, too."""
        self.now_ms += after_ms
        self.effects = self.engine.handle(event, self.now_ms)
        return self.effects

    def got(self, kind: type[_Kind]) -> list[_Kind]:
        """The last effects of one kind."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def one(self, kind: type[_Kind]) -> _Kind:
        """The only one of the last effects of a kind."""
        found = self.got(kind)
        assert len(found) == 1, f"one {kind.__name__} expected among {self.effects}"
        return found[0]

    def said(self, link: str | None = None) -> LaneMessage:
        """All that the last effects say on a link, or on any, in one bundle."""
        together = LaneMessage()
        for effect in self.got(SendLaneMessage):
            if link is None or effect.link == link:
                message = effect.message
                together.hello = message.hello or together.hello
                together.hello_ack = message.hello_ack or together.hello_ack
                for name in ("fenced", "credits", "done", "stable", "data", "ends"):
                    getattr(together, name).extend(getattr(message, name))
        return together

    def services_up(self, *stages: str, concurrency: int = 1) -> None:
        """The services of these stages answer."""
        for stage in stages:
            self.do(ServiceUp(f"{self.me}/{stage}", concurrency))

    def table(
        self,
        line: str,
        runs: Mapping[str, str],
        *,
        revision: int = 1,
        version: int = 1,
        terms: Mapping[str, int] | None = None,
        partitions: tuple[SourcePartition, ...] = (),
        **stage_options: Any,
    ) -> list[Effect]:
        """Give the engine a table.

        Args:
            line: Stages and arrows, "src>t>k"; several lines separated by commas.
            runs: The sidecar of each instance, "t" or "t.1" for further ones.
            revision: Of the table.
            version: Of the pipeline.
            terms: Of the instances, default 1.
            partitions: What this sidecar reads.
            stage_options: For every stage.
        """
        policy = stage_options.pop("retry", RetryPolicy(attempts=3, backoff_ms=10, jitter=0))
        lines = [part.split(">") for part in line.split(",")]
        names = list(dict.fromkeys(name for part in lines for name in part))
        arrows = [arrow for part in lines for arrow in itertools.pairwise(part)]
        stages = {
            name: Stage(
                name,
                StageKind.SOURCE
                if name not in [to for _, to in arrows]
                else StageKind.TRANSFORM
                if name in [of for of, _ in arrows]
                else StageKind.SINK,
                policy,
                **stage_options,
            )
            for name in names
        }
        instances = tuple(
            self._instance(name, sidecar, (terms or {}).get(name, 1))
            for name, sidecar in runs.items()
        )
        edges = tuple(Edge(of, to) for of, to in dict.fromkeys(arrows))
        pipeline = Pipeline(PIPELINE, version, stages, edges, instances, partitions)
        return self.do(TableChanged(Table(revision, {PIPELINE: pipeline})))

    def link_up(self, records: int = 10**9, size: int = 10**9) -> str:
        """Connect the only link that was asked for, and accept its lanes with credit."""
        link = self.one(OpenLink).link
        self.do(LinkUp(link))
        self.accept(link, records=records, size=size)
        return link

    def accept(
        self,
        link: str,
        boot: str = "peer-boot",
        next_sequence: int = 1,
        records: int = 10**9,
        size: int = 10**9,
    ) -> None:
        """Answer the last hello on a link: all its lanes are open."""
        hello = self.said(link).hello
        assert hello is not None
        lanes = [
            LaneAccept(
                lane.lane,
                LaneStatus.OPEN,
                next_sequence,
                credit=LaneCredit(lane.lane, records, size),
            )
            for lane in hello.lanes
        ]
        self.hear(link, LaneMessage(hello_ack=HelloAck("peer", boot, lanes)))

    def hear(self, link: str, message: LaneMessage, after_ms: int = 0) -> list[Effect]:
        """A peer says something."""
        return self.do(LaneMessageReceived(link, message), after_ms)

    def hello(
        self,
        edge: str,
        *,
        link: str = "in",
        lane: int = 1,
        boot: str = "up-boot",
        terms: tuple[int, int] = (1, 1),
        first: int = 1,
        version: int = 1,
        producer: int = 0,
    ) -> LaneAccept:
        """A producer opens a lane to this sidecar; return the answer."""
        of, to = edge.split(">")
        opening = LaneOpen(
            lane,
            PIPELINE,
            version,
            edge,
            StageInstance(of, producer, terms[0]),
            StageInstance(to, 0, terms[1]),
            first,
            first,
        )
        self.hear(link, LaneMessage(hello=Hello("up", boot, [opening])))
        answer = self.said(link).hello_ack
        assert answer is not None
        return answer.lanes[0]

    def frame(self, sequence: int, *names: str, link: str = "in", **fields: Any) -> list[Effect]:
        """A frame comes on lane 1 of a link."""
        made = replace(frame_of(*names, **fields), lane=1, sequence=sequence, producer_term=1)
        return self.hear(link, LaneMessage(data=[made]))

    def read(self, *names: str, partition: str = "0", position: bytes = b"pos") -> list[Effect]:
        """The source of stage `src` sends a batch on the stream that was opened last."""
        body, lengths = records_of(*names)
        event = SourceBatchRead(self.source, self.stream, partition, body, lengths, position)
        return self.do(event)

    def open_source(self) -> OpenSource:
        """Take note of the source stream that was just opened."""
        opened = self.one(OpenSource)
        self.source, self.stream = opened.source, opened.stream
        return opened

    source = InstanceKey(PIPELINE, "src", 0)
    stream = 0

    def _instance(self, name: str, sidecar: str, term: int) -> Instance:
        stage, _, index = name.partition(".")
        service = f"{sidecar}/{stage}"
        return Instance(stage, int(index or 0), term, sidecar, f"{sidecar}:1", service)


def records_of(*names: str) -> tuple[bytes, bytes]:
    """Records whose bytes are their names: body and lengths."""
    return "".join(names).encode(), write_u32([len(name) for name in names])


def frame_of(
    *names: str, offsets: tuple[int, ...] = (), partition: str = "0", term: int = 1
) -> Frame:
    """A frame of such records of source stage `src`, straight from the source."""
    body, lengths = records_of(*names)
    origin = Origin(PIPELINE, "src", partition, 0, term)
    return from_records(body, lengths, origin, offsets or range(len(names)))


def outputs_of(*pairs: tuple[str, int]) -> Outputs:
    """A transform's outputs: each a name and the place of its parent."""
    body, lengths = records_of(*[name for name, _ in pairs])
    return Outputs(body, lengths, [parent for _, parent in pairs])
