"""What all parts of one engine share: numbers, the present, and where effects go.

The parts change their own state when something happens and `touch` themselves; the engine then
settles every part that was touched, until nothing is left to do. So each consequence (calls to
start, frames to send, credit to renew, acknowledgements to flush) is worked out at one place, in
`settle`, however it came about.

Words for peers are gathered per link and leave as one bundle at the end of the turn; those for the
sidecar's own lanes are handled within the turn.
"""

from __future__ import annotations

from itertools import count
from typing import Protocol

from conveyor_sdk.carrier.frame import Frame
from conveyor_sidecar.core.buffer import Budget
from conveyor_sidecar.core.effects import Effect, Note, SendLaneMessage
from conveyor_sidecar.core.messages import LaneMessage
from conveyor_sidecar.core.options import Chance, EngineOptions
from conveyor_sidecar.core.positions import LeftOff
from conveyor_sidecar.core.routes import InstanceKey, PartitionKey
from conveyor_sidecar.core.statistics import StageCounters
from conveyor_sidecar.core.timers import Timers

LOCAL = "local"
"""The link of lanes that begin and end on this sidecar."""

BUNDLE_BYTES = 1024 * 1024
"""Bytes of bodies after which a bundle leaves before the end of the turn."""


class Part(Protocol):
    """Something that settles after a change."""

    def settle(self) -> None:
        """Work out the consequences of what has changed."""
        ...


class Context:
    """The shared state of one engine."""

    def __init__(self, options: EngineOptions, chance: Chance) -> None:
        self.options = options
        self.chance = chance
        self.now_ms = 0
        self.draining = False
        self.timers = Timers()
        self.budget = Budget(
            options.records_max, options.retained_bytes_max, options.backpressure_threshold
        )
        self.stages: dict[tuple[str, str], StageCounters] = {}
        self.numbers = count(1)
        self.lane_numbers = count(1)
        self.touched: dict[Part, None] = {}
        self.starved: dict[Part, None] = {}
        self.left_off: dict[PartitionKey, LeftOff] = {}
        self.fenced: list[tuple[InstanceKey, int]] = []
        self._effects: list[Effect] = []
        self._bundles: dict[str, LaneMessage] = {}
        self._bundle_bytes: dict[str, int] = {}

    def counters(self, instance: InstanceKey) -> StageCounters:
        """The counters of an instance's stage."""
        return self.stages.setdefault((instance.pipeline, instance.stage), StageCounters())

    def touch(self, part: Part) -> None:
        """Settle `part` before this turn ends."""
        self.touched[part] = None

    def emit(self, effect: Effect) -> None:
        """Have something done."""
        self._effects.append(effect)

    def note(self, text: str, problem: bool = True, **fields: str | int) -> None:
        """Leave a word for an operator."""
        self._effects.append(Note(problem, text, fields))

    def bundle(self, link: str) -> LaneMessage:
        """The bundle that will leave on `link`."""
        found = self._bundles.get(link)
        if found is None:
            found = self._bundles[link] = LaneMessage()
        return found

    def has_bundle(self, link: str) -> bool:
        """Whether something leaves on `link` in this turn anyway."""
        return link in self._bundles

    def send_frame(self, link: str, frame: Frame) -> None:
        """Put a frame into the bundle of `link`; a large bundle leaves at once."""
        self.bundle(link).data.append(frame)
        size = self._bundle_bytes.get(link, 0) + len(frame.body)
        if size >= BUNDLE_BYTES and link != LOCAL:
            self._effects.append(SendLaneMessage(link, self._bundles.pop(link)))
            size = 0
        self._bundle_bytes[link] = size

    def take_local(self) -> LaneMessage | None:
        """Take what was said on the sidecar's own lanes."""
        self._bundle_bytes.pop(LOCAL, None)
        return self._bundles.pop(LOCAL, None)

    def drop_bundle(self, link: str) -> None:
        """The link is gone: what was to leave on it goes nowhere."""
        self._bundles.pop(link, None)
        self._bundle_bytes.pop(link, None)

    def take_effects(self) -> list[Effect]:
        """Take the effects of this turn, the bundles last."""
        effects, self._effects = self._effects, []
        for link, message in self._bundles.items():
            effects.append(SendLaneMessage(link, message))
        self._bundles.clear()
        self._bundle_bytes.clear()
        return effects
