"""The last events of a run, for who wants to see how a rule came to break.

Rules kept: nothing is put into words before somebody looks; a run that keeps no trace pays for one
comparison.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from conveyor_raft.core.messages import Message
from conveyor_raft.testing.wording import describe_message

if TYPE_CHECKING:
    from conveyor_raft.testing.world import Event


class Trace:
    """What happened last. `kept` is None unless somebody has asked for it."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        """Begin without keeping anything."""
        self.kept: deque[Event | tuple[int, str]] | None = None

    def keep(self, events: int) -> None:
        """Remember the last events, from now on."""
        self.kept = deque(maxlen=events) if events else None

    def note(self, now: int, what: str) -> None:
        """Have something stand among the events."""
        if self.kept is not None:
            self.kept.append((now, what))

    def lines(self) -> Iterator[str]:
        """Describe the remembered events, oldest first."""
        for event in self.kept or ():
            if len(event) == 2:
                yield f"{event[0]:>8} ms  ======  {event[1]}"
                continue
            time, _, handler, node, _, data = event
            what = handler.__name__.strip("_").replace("_", " ")
            details = describe_message(data) if isinstance(data, Message) else data or ""
            yield f"{time:>8} ms  node {node.node_id}  {what}  {details}"
