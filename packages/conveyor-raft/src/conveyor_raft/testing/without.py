"""What a seed would do, less what is left out: the handle by which a run is made smaller.

Every fault that strikes and every proposal is an event with a name and a number; it draws from a
source of chance of its own, so leaving one out does not change what the others are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from conveyor_raft.testing.swarm import Knobs


@dataclass(frozen=True, slots=True)
class Without:
    """What does not happen: events (a name and a number), and knobs that stand at their calm."""

    events: frozenset[tuple[str, int]] = frozenset()
    knobs: frozenset[str] = frozenset()

    def calmed(self, knobs: Knobs) -> Knobs:
        """Return the knobs with those that are left out at their defaults."""
        return dataclasses.replace(knobs, **{name: CALM[name] for name in self.knobs})

    def __str__(self) -> str:
        parts = sorted(self.knobs)
        names = sorted({name for name, _ in self.events})
        for name in names:
            numbers = sorted(number for other, number in self.events if other == name)
            parts += [f"{name.replace(' ', '-')}:{span}" for span in _spans(numbers)]
        return ",".join(parts)

    @classmethod
    def parse(cls, text: str) -> Without:
        """Return what `str` has written.

        Raises:
            ValueError: the text names what there is not.
        """
        events, knobs = set(), set()
        for part in filter(None, text.split(",")):
            name, colon, span = part.partition(":")
            if not colon:
                if name not in CALM:
                    raise ValueError(f"there is no {name!r} to leave out")
                knobs.add(name)
                continue
            first, _, last = span.partition("-")
            numbers = range(int(first), int(last or first) + 1)
            events |= {(name.replace("-", " "), number) for number in numbers}
        return cls(frozenset(events), frozenset(knobs))


_SHAPE = {"nodes", "spares", "clock_permille"}
CALM = {
    field.name: field.default
    for field in dataclasses.fields(Knobs)
    if field.default is not dataclasses.MISSING and field.name not in _SHAPE
}
"""What each knob stands at where its fault is off; the cluster keeps its shape."""


def _spans(numbers: Sequence[int]) -> Iterable[str]:
    """Yield runs of consecutive numbers, which ascend."""
    first = numbers[0]
    for number, following in zip(numbers, (*numbers[1:], None), strict=True):
        if following != number + 1:
            yield f"{first}-{number}"
            first = following or 0
