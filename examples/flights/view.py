"""The live picture of the demo: stages and their rates, the leader, the kills, the progress."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

RATE_WINDOW_SECONDS = 3.0


@dataclass
class StageFigures:
    """One stage as the routers report it."""

    stage: str
    instances: int = 0
    records_in: int = 0
    records_out: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    open_records: int = 0
    rate: float = 0.0


@dataclass
class Scene:
    """What the view shows; the demo writes it, the view reads it."""

    expected: int
    started: float = field(default_factory=time.monotonic)
    written: int = 0
    phase: str = "starting"
    leader: str = "none"
    stages: dict[str, StageFigures] = field(default_factory=dict)
    events: deque[str] = field(default_factory=lambda: deque(maxlen=8))
    _history: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=200))

    def event(self, text: str) -> None:
        """Note something worth showing, with the seconds since the start."""
        self.events.append(f"{time.monotonic() - self.started:6.1f} s  {text}")

    def rate(self) -> float:
        """Return the records written per second over the last seconds."""
        now = time.monotonic()
        self._history.append((now, self.written))
        while len(self._history) > 1 and now - self._history[0][0] > RATE_WINDOW_SECONDS:
            self._history.popleft()
        since, before = self._history[0]
        return max(0.0, (self.written - before) / (now - since)) if now > since else 0.0

    def __rich__(self) -> Group:
        """Return the picture of this moment."""
        table = Table(expand=True, box=None, padding=(0, 1))
        for column in ("stage", "instances", "in", "out", "filtered", "dead", "open", "records/s"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for figures in self.stages.values():
            table.add_row(
                figures.stage,
                str(figures.instances),
                f"{figures.records_in:,}",
                f"{figures.records_out:,}",
                f"{figures.filtered:,}",
                f"{figures.dead_lettered:,}",
                f"{figures.open_records:,}",
                f"{figures.rate:,.0f}",
            )
        summary = Text.assemble(
            ("pipeline ", "dim"),
            (self.phase, "bold"),
            ("   leader ", "dim"),
            (self.leader, "bold cyan"),
            ("   written ", "dim"),
            (f"{self.written:,} of {self.expected:,}", "bold"),
            ("   at ", "dim"),
            (f"{self.rate():,.0f}/s", "bold"),
        )
        bar = ProgressBar(total=max(1, self.expected), completed=self.written)
        events = Text("\n".join(self.events) or "nothing yet", style="yellow")
        return Group(
            Panel(Group(summary, bar), title="flights", border_style="blue"),
            table,
            Panel(events, title="events", border_style="dim"),
        )
