"""The one loop of the data plane: events into the engine, its effects out, in order.

Everything that happens to records passes through ``post``: what peers send, what services answer,
what the disk and the routers confirm, the passing of time. The engine is pure and takes one event
at a time; its effects are performed right away, in their order, before the next event is looked at.
Performing never waits: an effect is queued on a stream, or begun as a task that posts its outcome
later. So the loop needs no task and no queue of its own: the caller's turn of the event loop is the
turn of the engine, and an event that is posted while effects are performed waits for its turn in
``_inbox``.

The order in which effects are performed is the engine's. What the pump adds is only:

* sends go to the side that owns the link (asked for here, or accepted by the data plane); on a link
  that has just gone they are dropped, and its ``LinkDown`` is on the way;
* one timer, set to the engine's next deadline after every turn;
* an exception inside the engine is a mistake of ours, and fatal: the process ends rather than going
  on with a state that nobody understands. Whatever was not done is still with its senders.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from conveyor_sidecar.core import effects
from conveyor_sidecar.core.events import Event, Tick
from conveyor_sidecar.core.messages import LaneMessage

logger = logging.getLogger(__name__)


class Machine(Protocol):
    """The engine, as far as the pump sees it."""

    @property
    def next_deadline(self) -> int | None:
        """When a ``Tick`` is due; None: only when something happens."""
        ...

    def handle(self, event: Event, now_ms: int) -> list[effects.Effect]:
        """Take one event; the effects are to be performed in their order."""
        ...


class Links(Protocol):
    """One owner of links: those asked for here, or those accepted from peers."""

    def send(self, link: str, message: LaneMessage) -> bool:
        """Queue a bundle; False if the link is not this owner's."""
        ...

    def close_link(self, link: str) -> bool:
        """Let a link go; False if it is not this owner's."""
        ...


class Pump:
    """Runs an engine. ``perform`` maps each kind of effect to what does it."""

    def __init__(
        self,
        engine: Machine,
        *,
        links: tuple[Links, ...],
        perform: dict[type[effects.Effect], Callable[..., None]],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._links = links
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Event] = deque()
        self._turning = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms: int | None = None
        self._stopped = False
        self._perform: dict[type[effects.Effect], Callable[..., None]] = {
            effects.SendLaneMessage: self._send,
            effects.CloseLink: self._close_link,
            effects.Note: _note,
            **perform,
        }
        self.events_total = 0
        self.effects_total = 0

    def post(self, event: Event) -> None:
        """Let the engine have an event and perform what it wants done."""
        if self._stopped:
            return
        self._inbox.append(event)
        if self._turning:
            return
        self._turning = True
        try:
            while self._inbox:
                self._turn(self._inbox.popleft())
            self._set_timer()
        except Exception as error:
            logger.exception("the engine failed; the sidecar stops")
            self.stop()
            self._on_fatal(error)
        finally:
            self._turning = False

    def stop(self) -> None:
        """Take no more events."""
        self._stopped = True
        self._inbox.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self, event: Event) -> None:
        wanted = self._engine.handle(event, self._now_ms())
        self.events_total += 1
        self.effects_total += len(wanted)
        for effect in wanted:
            self._perform[type(effect)](effect)

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def _set_timer(self) -> None:
        deadline = self._engine.next_deadline
        if deadline == self._timer_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ms = deadline
        if deadline is not None:
            # The next whole millisecond: a timer that fires early would only be set again.
            self._timer = self._loop.call_at((deadline + 1) / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_ms = None
        self.post(Tick())

    def _send(self, effect: effects.SendLaneMessage) -> None:
        for owner in self._links:
            if owner.send(effect.link, effect.message):
                return

    def _close_link(self, effect: effects.CloseLink) -> None:
        for owner in self._links:
            if owner.close_link(effect.link):
                return


def _note(effect: effects.Note) -> None:
    level = logging.WARNING if effect.problem else logging.INFO
    reason = effect.fields.get("reason")
    text = effect.text if reason is None else f"{effect.text}: {reason}"
    logger.log(level, "%s", text, extra=dict(effect.fields))
