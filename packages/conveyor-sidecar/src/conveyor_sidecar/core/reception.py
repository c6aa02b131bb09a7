"""What producers say: which of their lanes belong here, and who gets their frames.

A lane belongs here if this sidecar runs the consuming instance under the very term that the
producer means, and the same version of the pipeline. If not, one of the two has an older table and
the producer asks again. A producer whose own term is older than the one known here has been
replaced: it is fenced, whatever it still has to send.
"""

from __future__ import annotations

from collections.abc import Mapping

from conveyor_sdk.carrier.frame import Frame
from conveyor_sidecar.core.context import LOCAL, Context
from conveyor_sidecar.core.effects import CloseLink
from conveyor_sidecar.core.lane import LaneConsumer, LaneName
from conveyor_sidecar.core.messages import (
    End,
    Fenced,
    Hello,
    HelloAck,
    LaneAccept,
    LaneOpen,
    LaneStatus,
    StableMark,
)
from conveyor_sidecar.core.routes import InstanceKey, Table
from conveyor_sidecar.core.runner import Runner


class Reception:
    """All links on which this sidecar is the consumer.

    Args:
        context: The engine's.
        runners: The engine's instances.
    """

    def __init__(self, context: Context, runners: Mapping[InstanceKey, Runner]) -> None:
        self.table = Table(revision=-1)
        self._context = context
        self._runners = runners
        self._links: dict[str, dict[int, tuple[LaneConsumer, Runner]]] = {}

    def on_hello(self, link: str, hello: Hello) -> None:
        """Answer for every lane that a producer opens or resumes."""
        lanes = self._links.setdefault(link, {})
        answers: list[LaneAccept] = []
        for opening in hello.lanes:
            lane, runner, answer = self._open(opening, hello.boot_id, link)
            answers.append(answer)
            if lane is not None and runner is not None:
                lanes[opening.lane] = (lane, runner)
            else:
                lanes.pop(opening.lane, None)
        bundle = self._context.bundle(link)
        if bundle.hello_ack is None:
            options = self._context.options
            bundle.hello_ack = HelloAck(options.sidecar_id, options.boot_id, [])
        bundle.hello_ack.lanes += answers

    def on_data(self, link: str, frame: Frame) -> None:
        """Take a frame, or its repetition; refuse what cannot be."""
        lane, runner = self._links.get(link, {}).get(frame.lane, (None, None))
        if lane is None or runner is None:
            return
        present = max(lane.producer_term, lane.newer_term)
        if frame.producer_term < present:
            self._context.bundle(link).fenced.append(Fenced(frame.lane, present))
            return
        if lane.closed or self._runners.get(runner.key) is not runner:
            return
        if frame.sequence > lane.next_sequence:
            self._context.note(
                "a frame is missing on a lane; its link is closed so that it resumes",
                pipeline=lane.name.pipeline,
                edge=lane.name.edge,
                wanted=lane.next_sequence,
                got=frame.sequence,
            )
            self._close(link)
            return
        runner.receive(lane, frame)

    def on_stable(self, link: str, mark: StableMark) -> None:
        """Everything of an origin below a mark has ended."""
        runners = {runner.key: runner for _, runner in self._links.get(link, {}).values()}
        for key, runner in runners.items():
            if key.pipeline == mark.origin.pipeline and self._runners.get(key) is runner:
                runner.raise_stable(mark.origin, mark.below)

    def on_end(self, link: str, end: End) -> None:
        """A producer gives a lane up."""
        lane, runner = self._links.get(link, {}).pop(end.lane, (None, None))
        if lane is not None and runner is not None:
            runner.intake.end(lane)

    def on_down(self, link: str) -> None:
        """A link broke; its lanes are kept until their producer comes back or is replaced.

        Links overtake each other: the hello of a broken link may be handled after that of its
        successor. So frames are taken from every link that has the lane, their sequences keep
        the order, and when a link breaks the lane is answered on another one that has it.
        """
        for number, (lane, runner) in self._links.pop(link, {}).items():
            if lane.link != link:
                continue
            others = (
                other
                for other, lanes in self._links.items()
                if number in lanes and lanes[number][0] is lane
            )
            lane.link = next(others, None)
            if lane.link is not None:
                # A late hello had won over the producer's present link: say everything again.
                lane.repeat = True
                self._context.bundle(lane.link).credits.append(lane.limits())
                self._context.touch(runner)

    def _close(self, link: str) -> None:
        self.on_down(link)
        if link != LOCAL:
            self._context.drop_bundle(link)
            self._context.emit(CloseLink(link, "a frame is missing"))

    def _open(
        self, opening: LaneOpen, boot_id: str, link: str
    ) -> tuple[LaneConsumer | None, Runner | None, LaneAccept]:
        not_mine = LaneAccept(opening.lane, LaneStatus.NOT_MINE, table_revision=self.table.revision)
        pipeline = self.table.pipelines.get(opening.pipeline)
        key = InstanceKey(opening.pipeline, opening.consumer.stage, opening.consumer.index)
        runner = self._runners.get(key)
        if (
            pipeline is None
            or runner is None
            or pipeline.version != opening.pipeline_version
            or runner.term != opening.consumer.term
        ):
            return None, None, not_mine
        known = [
            instance.term
            for instance in pipeline.instances_of(opening.producer.stage)
            if instance.index == opening.producer.index
        ]
        if known and known[0] > opening.producer.term:
            fenced = LaneAccept(opening.lane, LaneStatus.FENCED, newer_term=known[0])
            return None, None, fenced
        producer = InstanceKey(opening.pipeline, opening.producer.stage, opening.producer.index)
        name = LaneName(opening.pipeline, pipeline.version, opening.edge, producer, key)
        lane, answer = runner.intake.open(opening, name, boot_id, link)
        return lane, runner, answer
