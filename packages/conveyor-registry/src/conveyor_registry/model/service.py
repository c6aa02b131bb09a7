"""Documents of services, and what a registered service offers.

A document is optional: a pipeline may name any registered service. It adds what the service cannot
say itself (configuration, limits), pins an address, or binds a foreign service that has no
``ServiceInfo`` and therefore cannot describe itself.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from conveyor_registry.model.document import Absent, Config, Document
from conveyor_registry.model.names import DEFAULT_NAMESPACE, Endpoint, Labels
from conveyor_registry.model.policies import (
    TIMEOUT_MAX_MS,
    BatchPolicy,
    Noun,
    ServiceKind,
)
from conveyor_registry.model.units import Count, DurationMs, Flag

PARTITIONS_MAX = 4_096
PARTITION_LENGTH_MAX = 253

_GRPC_SERVICE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def _check_grpc_service(text: str) -> str:
    if len(text) > 253 or _GRPC_SERVICE.fullmatch(text) is None:
        raise PydanticCustomError(
            "grpc_service",
            "{text} is not the full name of a gRPC service, such as acme.Enricher",
            {"text": f"{text[:80]!r}"},
        )
    return text


def _check_partitions(names: tuple[str, ...]) -> tuple[str, ...]:
    if not 1 <= len(names) <= PARTITIONS_MAX:
        raise PydanticCustomError("partitions", "between 1 and 4096 partitions are needed")
    if len(set(names)) != len(names):
        raise PydanticCustomError("partitions", "a partition is named twice")
    if any(not 1 <= len(name) <= PARTITION_LENGTH_MAX for name in names):
        raise PydanticCustomError("partitions", "a partition's name has 1 to 253 characters")
    return names


class Match(Noun):
    """How a process is recognised as this service; all given keys must hold."""

    port: Annotated[Count, Field(ge=1, le=65_535)] | None = None
    grpc_service: Annotated[str, AfterValidator(_check_grpc_service)] | None = None
    labels: Labels = Field(default_factory=dict)


class Declares(Noun):
    """What a service without ``ServiceInfo`` promises."""

    idempotent: Flag = False
    stable_offsets: Flag = False
    bounded: Flag = False
    partitions: Annotated[tuple[str, ...], AfterValidator(_check_partitions)] = ("0",)


class ServiceSpec(Noun):
    """What a service document adds."""

    match: Match | None = None
    declares: Declares | None = None
    endpoint: Endpoint | None = None
    config: Config = Field(default_factory=dict)
    timeout_ms: Annotated[DurationMs, Field(ge=1, le=TIMEOUT_MAX_MS)] | None = None
    batch: BatchPolicy | None = None


class ServiceDocument(Document):
    """A document of kind Source, Transform, Sink or Lookup."""

    kind: Literal["Source", "Transform", "Sink", "Lookup"]
    spec: Annotated[ServiceSpec, Absent] = ServiceSpec()

    @property
    def service_kind(self) -> ServiceKind:
        """The kind as an enumeration."""
        return ServiceKind(self.kind)

    @model_validator(mode="after")
    def _check_declares(self) -> Self:
        declares = self.spec.declares
        if declares is None:
            return self
        if declares.idempotent and self.service_kind is not ServiceKind.SINK:
            raise PydanticCustomError("declares", "only a Sink can declare idempotent")
        of_source = declares.stable_offsets or declares.bounded or declares.partitions != ("0",)
        if of_source and self.service_kind is not ServiceKind.SOURCE:
            raise PydanticCustomError(
                "declares", "only a Source can declare stableOffsets, bounded or partitions"
            )
        return self

    def offer(self) -> "ServiceOffer | None":
        """What the document declares, or None when it leaves that to the service."""
        declares = self.spec.declares
        if declares is None:
            return None
        return ServiceOffer(
            kind=self.service_kind,
            name=self.name,
            namespace=self.namespace,
            partitions=declares.partitions,
            stable_offsets=declares.stable_offsets,
            bounded=declares.bounded,
            idempotent=declares.idempotent,
        )


class ServiceOffer(NamedTuple):
    """What a registered service says about itself, as far as validation and planning ask."""

    kind: ServiceKind
    name: str
    namespace: str = DEFAULT_NAMESPACE
    labels: Mapping[str, str] = {}
    partitions: tuple[str, ...] = ("0",)
    stable_offsets: bool = False
    bounded: bool = False
    idempotent: bool = False
    transactional: bool = False
