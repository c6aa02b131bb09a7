"""Links between simulated sidecars: ordered, sometimes slow, sometimes broken.

A link delivers in order or breaks. When it breaks, each end hears of it in its own time; what was
under way may still arrive until the receiving end has heard, so that words on an old link overtake
those on its successor, as they do between real sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

from conveyor_sidecar.core.events import Event, LaneMessageReceived, LinkDown, LinkUp
from conveyor_sidecar.core.messages import LaneMessage
from conveyor_sidecar.testing.world import World

Report = Callable[[Event], None]


class _End:
    """One end of a link: who hears on it, under which id, and what is on its way there."""

    def __init__(self, link: str, report: Report) -> None:
        self.link = link
        self.report = report
        self.open = True
        self.arrives_ms = 0


class SimLink:
    """One connected link."""

    def __init__(self, near: _End, far: _End) -> None:
        self.near = near
        self.far = far
        self.broken = False

    def end(self, link: str) -> _End | None:
        """The end that has this id."""
        return next((end for end in (self.near, self.far) if end.link == link), None)

    def other(self, end: _End) -> _End:
        """The opposite end."""
        return self.far if end is self.near else self.near


class Network:
    """All links of a world.

    Args:
        world: The clock.
        latency_ms: Of one message, at most.
        repeats: Share of messages that arrive twice.
    """

    def __init__(self, world: World, latency_ms: int, repeats: float) -> None:
        self._world = world
        self._latency_ms = latency_ms
        self.repeats = repeats
        self.links: list[SimLink] = []

    def connect(self, link: str, report: Report, far: Report) -> None:
        """Connect two ends; the opener hears `LinkUp`."""
        number = self._world.happened
        made = SimLink(_End(link, report), _End(f"from:{link}:{number}", far))
        self.links.append(made)
        report(LinkUp(link))

    def send(self, report: Report, link: str, message: LaneMessage) -> None:
        """Send a message from the end that `report` has under this id."""
        for candidate in self.links:
            end = candidate.end(link)
            if end is not None and end.report is report and not candidate.broken:
                self._deliver(candidate.other(end), message)
                return

    def close(self, report: Report, link: str) -> None:
        """One end closes; the other hears of it."""
        for candidate in self.links:
            end = candidate.end(link)
            if end is not None and end.report is report and end.open:
                end.open = False
                self.cut(candidate)
                return

    def cut(self, link: SimLink, gone: bool = False) -> None:
        """Break a link: both ends hear of it, each in its own time."""
        if link.broken:
            return
        link.broken = True
        self.links.remove(link)
        for end in (link.near, link.far):
            wait = self._world.chance.choice((0, self._latency_ms, 5 * self._latency_ms, 400))
            self._world.after(wait, self._downer(end, gone))

    def cut_all(self, report: Report) -> None:
        """A process is gone, with all its ends."""
        for link in list(self.links):
            for end in (link.near, link.far):
                if end.report is report:
                    end.open = False
                    self.cut(link, gone=True)

    def _downer(self, end: _End, gone: bool) -> Callable[[], None]:
        def down() -> None:
            if end.open:
                end.open = False
                end.report(LinkDown(end.link, gone, "cut"))

        return down

    def _deliver(self, end: _End, message: LaneMessage) -> None:
        times = 2 if self._world.odds(self.repeats) else 1
        for _ in range(times):
            wait = self._world.chance.randint(0, self._latency_ms)
            end.arrives_ms = max(end.arrives_ms, self._world.now_ms + wait)
            copy = _copy(message)

            def arrive(copy: LaneMessage = copy) -> None:
                if end.open:
                    end.report(LaneMessageReceived(end.link, copy))

            self._world.after(end.arrives_ms - self._world.now_ms, arrive)


def _copy(message: LaneMessage) -> LaneMessage:
    """What the far end gets shares nothing that could change with what was sent."""
    return replace(
        message,
        hello=deepcopy(message.hello),
        hello_ack=deepcopy(message.hello_ack),
        fenced=list(message.fenced),
        credits=list(message.credits),
        done=list(message.done),
        stable=list(message.stable),
        data=list(message.data),
        ends=list(message.ends),
    )
