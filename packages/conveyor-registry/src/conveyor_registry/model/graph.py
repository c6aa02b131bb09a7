"""The shape of a pipeline: a directed graph of stages, which must have no cycle.

Orders are deterministic: wherever the graph leaves a choice, the document's order decides, so that
every process that looks at the same pipeline walks it alike.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conveyor_registry.model.pipeline import Edge, Pipeline


class Graph:
    """Stages and edges, indexed both ways.

    Edges that name an unknown stage are left out (validation reports them).
    """

    def __init__(self, stages: Sequence[str], edges: Iterable["Edge"]) -> None:
        self.stages = tuple(dict.fromkeys(stages))
        outgoing: dict[str, list[Edge]] = {stage: [] for stage in self.stages}
        incoming: dict[str, list[Edge]] = {stage: [] for stage in self.stages}
        for edge in edges:
            if edge.from_stage in outgoing and edge.to_stage in incoming:
                outgoing[edge.from_stage].append(edge)
                incoming[edge.to_stage].append(edge)
        self._outgoing = {stage: tuple(found) for stage, found in outgoing.items()}
        self._incoming = {stage: tuple(found) for stage, found in incoming.items()}

    @classmethod
    def of(cls, pipeline: "Pipeline") -> "Graph":
        """The graph of a pipeline."""
        return cls([stage.id for stage in pipeline.stages], pipeline.edges)

    def outgoing(self, stage: str) -> tuple["Edge", ...]:
        """The edges that leave a stage: more than one is a fan-out."""
        return self._outgoing[stage]

    def incoming(self, stage: str) -> tuple["Edge", ...]:
        """The edges that enter a stage: more than one is a fan-in."""
        return self._incoming[stage]

    def order(self) -> tuple[str, ...]:
        """The stages so that every edge points forward (Kahn 1962).

        Raises:
            ValueError: the graph has a cycle, which the message names.
        """
        waiting = {stage: len(self._incoming[stage]) for stage in self.stages}
        ordered: list[str] = []
        while len(ordered) < len(self.stages):
            ready = next((stage for stage, count in waiting.items() if count == 0), None)
            if ready is None:
                raise ValueError(f"cycle: {' -> '.join(self.cycle() or ())}")
            del waiting[ready]
            ordered.append(ready)
            for edge in self._outgoing[ready]:
                waiting[edge.to_stage] -= 1
        return tuple(ordered)

    def cycle(self) -> tuple[str, ...] | None:
        """One cycle as a path that ends where it begins, or None."""
        finished: set[str] = set()
        for start in self.stages:
            found = self._cycle_from(start, finished)
            if found is not None:
                return found
        return None

    def _cycle_from(self, start: str, finished: set[str]) -> tuple[str, ...] | None:
        path: list[str] = []
        walks = [iter((start,))]
        while walks:
            stage = next(walks[-1], None)
            if stage is None:
                walks.pop()
                if path:
                    finished.add(path.pop())
            elif stage in path:
                return (*path[path.index(stage) :], stage)
            elif stage not in finished:
                path.append(stage)
                walks.append(iter(tuple(edge.to_stage for edge in self._outgoing[stage])))
        return None

    def descendants(self, stages: Iterable[str]) -> frozenset[str]:
        """All that can be reached from these stages, themselves included."""
        return self._closure(
            stages, {s: [e.to_stage for e in self._outgoing[s]] for s in self.stages}
        )

    def ancestors(self, stages: Iterable[str]) -> frozenset[str]:
        """All from which these stages can be reached, themselves included."""
        return self._closure(
            stages, {s: [e.from_stage for e in self._incoming[s]] for s in self.stages}
        )

    @staticmethod
    def _closure(start: Iterable[str], following: dict[str, list[str]]) -> frozenset[str]:
        seen = set(start)
        pending = list(seen)
        while pending:
            for stage in following[pending.pop()]:
                if stage not in seen:
                    seen.add(stage)
                    pending.append(stage)
        return frozenset(seen)
