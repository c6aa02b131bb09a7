"""A pipeline: stages, edges between them, and what it promises about records.

Both spellings of a manifest end here in the same object: the short form
(``source``, ``steps``, ``sink``) is expanded to stages named after their services, and absent
edges become a straight line. This module holds what a single document can be wrong about by
itself in its parts; what concerns the whole (graph, predicates, promises) is in ``validate``.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from conveyor_registry.model.document import Absent, Config, Document
from conveyor_registry.model.names import NAME_PATTERN, Name, is_name, nearest
from conveyor_registry.model.policies import (
    BATCH_DEFAULT,
    TIMEOUT_DEFAULT_MS,
    TIMEOUT_MAX_MS,
    Batch,
    BatchPolicy,
    DeadLetterPolicy,
    Delivery,
    Miss,
    Noun,
    Order,
    RetryPolicy,
    ServiceKind,
    Slow,
    SpillPolicy,
)
from conveyor_registry.model.problem import Path
from conveyor_registry.model.service import ServiceDocument
from conveyor_registry.model.units import Count, DurationMs, Flag

STAGES_MAX = 256
EDGES_MAX = 1_024
PARALLELISM_MAX = 1_024
PREDICATE_LENGTH_MAX = 4_096
DEAD_LETTER_AFTER_DEFAULT_MS = 600_000
SHORT_KEYS = ("source", "steps", "sink")
_DAY_MS = 86_400_000


class ResolvedStage(NamedTuple):
    """What a stage's calls use, after its document and the defaults have filled the gaps."""

    config: Mapping[str, str]
    timeout_ms: int
    batch: Batch


class Stage(Noun):
    """A node of a pipeline: one service, named by exactly one of the four kinds."""

    id: Name
    source: Name | None = None
    transform: Name | None = None
    sink: Name | None = None
    lookup: Name | None = None
    parallelism: Annotated[Count, Field(ge=1, le=PARALLELISM_MAX)] | None = None
    retry: Annotated[RetryPolicy, Absent] = RetryPolicy()
    config: Config | None = None
    timeout_ms: Annotated[DurationMs, Field(ge=1, le=TIMEOUT_MAX_MS)] | None = None
    batch: BatchPolicy | None = None
    cache_ms: Annotated[DurationMs, Field(ge=0, le=_DAY_MS)] | None = None
    miss: Miss | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        named = [kind for kind in ServiceKind if getattr(self, kind.lower()) is not None]
        if len(named) != 1:
            raise PydanticCustomError(
                "stage",
                "a stage names exactly one of source, transform, sink or lookup; this one names "
                "{named}",
                {"named": " and ".join(kind.lower() for kind in named) or "none"},
            )
        if named[0] is not ServiceKind.LOOKUP and (self.cache_ms, self.miss) != (None, None):
            raise PydanticCustomError("stage", "cache and miss belong to lookup stages")
        return self

    @property
    def kind(self) -> ServiceKind:
        """Which of the four kinds the stage names."""
        return next(kind for kind in ServiceKind if getattr(self, kind.lower()) is not None)

    @property
    def service(self) -> str:
        """The name of the service that runs the stage."""
        name: str = getattr(self, self.kind.lower())
        return name

    @property
    def on_miss(self) -> Miss:
        """What happens to a record without a value (lookup stages)."""
        return self.miss or Miss.PASS

    def resolved(self, document: ServiceDocument | None = None) -> ResolvedStage:
        """Configuration, timeout and batch: the stage over the document over the defaults."""
        config, timeout_ms, batch = {}, TIMEOUT_DEFAULT_MS, BATCH_DEFAULT
        if document is not None:
            spec = document.spec
            config = dict(spec.config)
            timeout_ms = timeout_ms if spec.timeout_ms is None else spec.timeout_ms
            batch = batch if spec.batch is None else spec.batch.over(batch)
        config.update(self.config or {})
        return ResolvedStage(
            config=config,
            timeout_ms=timeout_ms if self.timeout_ms is None else self.timeout_ms,
            batch=batch if self.batch is None else self.batch.over(batch),
        )


class Edge(Noun):
    """An arrow from one stage to another; at most one for each pair."""

    from_stage: Annotated[Name, Field(alias="from")]
    to_stage: Annotated[Name, Field(alias="to")]
    when: Annotated[str, Field(min_length=1, max_length=PREDICATE_LENGTH_MAX)] | None = None
    order: Order = Order.NONE
    slow: Slow = Slow.BLOCK
    spill: SpillPolicy | None = None
    dead_letter_after_ms: Annotated[DurationMs, Field(ge=1_000, le=7 * _DAY_MS)] | None = None
    allow_loss: Flag = False

    @property
    def id(self) -> str:
        """``from->to``: unique within the pipeline."""
        return f"{self.from_stage}->{self.to_stage}"

    @property
    def spill_bytes_max(self) -> int:
        """How much may be spilled when ``slow`` is ``spill``."""
        return (self.spill or SpillPolicy()).bytes

    @property
    def patience_ms(self) -> int:
        """How long a record waits for its consumer when ``slow`` is ``dead-letter``."""
        after = self.dead_letter_after_ms
        return DEAD_LETTER_AFTER_DEFAULT_MS if after is None else after


def _both_forms(schema: dict[str, Any]) -> None:
    """Tell the schema what :func:`expand` does: the short form, and edges left out."""
    name = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}
    schema["properties"] |= {
        "source": name,
        "steps": {"type": "array", "items": name},
        "sink": name,
    }
    del schema["required"]
    schema["oneOf"] = [
        {"required": ["stages"], "not": {"anyOf": [{"required": [key]} for key in SHORT_KEYS]}},
        {
            "required": ["source", "sink"],
            "not": {"anyOf": [{"required": ["stages"]}, {"required": ["edges"]}]},
        },
    ]


class PipelineSpec(Noun):
    """What a pipeline is made of."""

    model_config = ConfigDict(json_schema_extra=_both_forms)
    short_keys: ClassVar[tuple[str, ...]] = SHORT_KEYS
    """Keys that are written out before the fields are looked at, yet known to an author."""

    delivery: Delivery = Delivery.AT_LEAST_ONCE
    enabled: Flag = True
    stages: tuple[Stage, ...]
    edges: tuple[Edge, ...]
    dead_letters: Annotated[DeadLetterPolicy, Absent] = DeadLetterPolicy()

    @field_validator("stages")
    @classmethod
    def _check_stages(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if not 1 <= len(stages) <= STAGES_MAX:
            raise ValueError(f"a pipeline has 1 to {STAGES_MAX} stages, not {len(stages)}")
        return stages

    @field_validator("edges")
    @classmethod
    def _check_edges(cls, edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
        if len(edges) > EDGES_MAX:
            raise ValueError(f"a pipeline has at most {EDGES_MAX} edges, not {len(edges)}")
        return edges

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        return expand(data)


class Pipeline(Document):
    """A document of kind Pipeline."""

    kind: Literal["Pipeline"]
    spec: PipelineSpec

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in the document's order."""
        return self.spec.stages

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges, in the document's order."""
        return self.spec.edges

    @property
    def delivery(self) -> Delivery:
        """What the pipeline promises."""
        return self.spec.delivery

    @property
    def enabled(self) -> bool:
        """Whether the pipeline is wanted to run."""
        return self.spec.enabled

    def stage(self, stage_id: str) -> Stage:
        """The stage with this id.

        Raises:
            KeyError: there is none.
        """
        for stage in self.spec.stages:
            if stage.id == stage_id:
                return stage
        raise KeyError(stage_id)


def expand(spec: Any) -> Any:
    """The long form of a spec's plain data: short form written out, straight line drawn."""
    if not isinstance(spec, dict):
        return spec
    spec = dict(spec)
    if is_short(spec):
        _write_out(spec)
    stages = spec.get("stages")
    if spec.get("edges") is None:
        spec["edges"] = []
        ids = [_id_of(stage) for stage in stages] if isinstance(stages, list | tuple) else []
        if all(isinstance(stage, str) and is_name(stage) for stage in ids):
            spec["edges"] = [{"from": a, "to": b} for a, b in pairwise(ids)]
    return spec


def is_short(spec: Any) -> bool:
    """Whether plain data are a spec in the short form."""
    return isinstance(spec, dict) and any(key in spec for key in SHORT_KEYS)


def _write_out(spec: dict[str, Any]) -> None:
    if "stages" in spec or "edges" in spec:
        raise PydanticCustomError(
            "short_form", "write either stages and edges, or source, steps and sink; not both"
        )
    missing = [key for key in ("source", "sink") if spec.get(key) is None]
    if missing:
        raise PydanticCustomError(
            "short_form",
            "the short form (source, steps, sink) has no {missing}{hint}",
            {"missing": " and no ".join(missing), "hint": _misspelt(missing, spec)},
        )
    source, steps, sink = (spec.pop(key, None) for key in SHORT_KEYS)
    steps = [] if steps is None else steps
    if not isinstance(steps, list | tuple):
        raise PydanticCustomError("short_form", "steps is a list of names of transforms")
    spec["stages"] = [
        {"id": source, "source": source},
        *({"id": step, "transform": step} for step in steps),
        {"id": sink, "sink": sink},
    ]


def _misspelt(missing: list[str], spec: dict[str, Any]) -> str:
    others = [key for key in spec if isinstance(key, str) and key not in SHORT_KEYS]
    close = [nearest(key, others) for key in missing]
    return "".join(f"; is {key!r} meant to be it?" for key in close if key is not None)


def _id_of(stage: Any) -> Any:
    return (
        stage.id
        if isinstance(stage, Stage)
        else stage.get("id")
        if isinstance(stage, dict)
        else None
    )


def as_written(path: Path, spec: Any) -> Path:
    """A problem's path in terms of what the author wrote, where that was the short form."""
    if not is_short(spec) or path[:2] != ("spec", "stages") or len(path) < 3:
        return path
    steps = spec.get("steps") or ()
    index = path[2]
    if index == 0:
        return ("spec", "source")
    if isinstance(index, int) and index <= len(steps):
        return ("spec", "steps", index - 1)
    return ("spec", "sink")
