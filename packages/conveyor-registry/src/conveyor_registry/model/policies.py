"""How records are handled: delivery, retries, batches, slow consumers, dead letters.

Every number is bounded here, so that no later part has to ask whether a value makes sense. A stage
overrides its service's document key by key, which is why a batch policy may be partial: the gaps
are filled by :meth:`BatchPolicy.over`.
"""

from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from conveyor_registry.model.units import ByteCount, Count, DurationMs, Ratio

RETRY_ATTEMPTS_MAX = 100
TIMEOUT_DEFAULT_MS = 30_000
TIMEOUT_MAX_MS = 600_000
FRAME_BYTES_MAX = (4 << 20) - (64 << 10)
BATCH_RECORDS_MAX = 10_000


def _key_of(field: str) -> str:
    return to_camel(field.removesuffix("_ms"))


class Noun(BaseModel):
    """Base of all nouns: frozen, unknown keys refused, camelCase keys in documents.

    A document's ``timeout: 30s`` is the field ``timeout_ms``: the unit is the field's business.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=_key_of,
        populate_by_name=True,
    )


class ServiceKind(StrEnum):
    """The four kinds of user services; the values are the ``kind`` of their documents."""

    SOURCE = "Source"
    TRANSFORM = "Transform"
    SINK = "Sink"
    LOOKUP = "Lookup"


class Delivery(StrEnum):
    """What a pipeline promises about each record."""

    AT_LEAST_ONCE = "at-least-once"
    EFFECTIVELY_ONCE = "effectively-once"
    EXACTLY_ONCE = "exactly-once"


class Order(StrEnum):
    """What order an edge keeps. ``KEY`` makes the edge keyed: equal keys share an instance."""

    NONE = "none"
    KEY = "key"
    PARTITION = "partition"


class Slow(StrEnum):
    """What an edge does when its consumer cannot keep up."""

    BLOCK = "block"
    SPILL = "spill"
    DEAD_LETTER = "dead-letter"
    DROP = "drop"


class Miss(StrEnum):
    """What a lookup stage does with a record whose key has no value."""

    PASS = "pass"  # noqa: S105
    RETRY = "retry"
    DEAD_LETTER = "dead-letter"


class RetryPolicy(Noun):
    """Attempts and exponential back-off of one stage: backoff * 2**n, at most max, with jitter."""

    attempts: Annotated[Count, Field(ge=1, le=RETRY_ATTEMPTS_MAX)] = 5
    backoff_ms: Annotated[DurationMs, Field(ge=1, le=3_600_000)] = 100
    max_ms: Annotated[DurationMs, Field(ge=1, le=3_600_000)] = 10_000
    jitter: Annotated[Ratio, Field(ge=0, le=1)] = 0.2

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.backoff_ms > self.max_ms:
            raise PydanticCustomError("retry", "backoff is longer than max")
        return self

    def delay_ms(self, failures: int) -> int:
        """The pause before the attempt after so many failures (>= 1), without jitter."""
        return min(self.max_ms, self.backoff_ms << min(failures - 1, 32))


class Batch(NamedTuple):
    """A batch policy without gaps."""

    records: int
    bytes: int
    linger_ms: int


BATCH_DEFAULT = Batch(records=500, bytes=256 << 10, linger_ms=5)


class BatchPolicy(Noun):
    """How many records a call or frame collects; absent keys are inherited."""

    records: Annotated[Count, Field(ge=1, le=BATCH_RECORDS_MAX)] | None = None
    bytes: Annotated[ByteCount, Field(ge=1, le=FRAME_BYTES_MAX)] | None = None
    linger_ms: Annotated[DurationMs, Field(ge=0, le=60_000)] | None = None

    def over(self, base: Batch = BATCH_DEFAULT) -> Batch:
        """This policy with its gaps filled from the base."""
        return Batch(
            records=base.records if self.records is None else self.records,
            bytes=base.bytes if self.bytes is None else self.bytes,
            linger_ms=base.linger_ms if self.linger_ms is None else self.linger_ms,
        )


class DeadLetterPolicy(Noun):
    """How long and how many dead letters each sidecar keeps for the pipeline."""

    keep_ms: Annotated[DurationMs, Field(ge=1_000, le=366 * 86_400_000)] = 7 * 86_400_000
    bytes: Annotated[ByteCount, Field(ge=1 << 16, le=1 << 40)] = 1 << 30


class SpillPolicy(Noun):
    """How many bytes an edge may spill to disk while its consumer is slow."""

    bytes: Annotated[ByteCount, Field(ge=1 << 16, le=1 << 40)] = 1 << 30
