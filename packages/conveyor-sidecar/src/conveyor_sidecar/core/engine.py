"""The engine of one sidecar: `handle` takes what happened and answers what to do."""

from __future__ import annotations

from conveyor_sidecar.core.effects import Effect
from conveyor_sidecar.core.events import Event
from conveyor_sidecar.core.options import Chance, EngineOptions


class Engine:
    """Delivers records from local sources and incoming lanes to local services and outgoing lanes.

    Args:
        options: Bounds and identity.
        chance: Jitter comes from it.
    """

    def __init__(self, options: EngineOptions, chance: Chance) -> None:
        self.options = options
        self.next_deadline: int | None = None
        """When a `Tick` is due, in the same milliseconds as `now_ms`; None:

        only when something happens.
        """

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event and return the effects of it, to be performed in their order.

        Args:
            event: What happened.
            now_ms: A clock that never goes back, in milliseconds; its zero means nothing.
        """
        return []
