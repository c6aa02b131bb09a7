"""The kinds that ``get`` lists, one entry each: how it is fetched, shown and written as data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conveyor_cli.resources import (
    Data,
    Fetch,
    document_of,
    document_row,
    group_data,
    group_row,
    listed,
    pipeline_data,
    pipeline_row,
    service_data,
    service_row,
    sidecar_data,
    sidecar_row,
)
from conveyor_cli.running import (
    assignment_data,
    assignment_row,
    assignments,
    position_data,
    position_row,
    positions,
)
from conveyor_registry.model import KINDS, ServiceKind


@dataclass(frozen=True, slots=True)
class View:
    """How one kind is listed."""

    kind: str
    columns: Sequence[str]
    fetch: Fetch
    row: Callable[[Any, float], Sequence[object]]
    data: Callable[[Any], Data]


VIEWS: Mapping[str, View] = {
    "pipelines": View(
        "Pipeline",
        ("NAMESPACE", "NAME", "PHASE", "VERSION", "SINCE", "REASON"),
        listed("Pipeline"),
        pipeline_row,
        pipeline_data,
    ),
    "services": View(
        "Service",
        ("NAMESPACE", "NAME", "KIND", "HEALTH", "ENDPOINT", "SIDECAR", "ID", "HEARD", "REASON"),
        listed("Service"),
        service_row,
        service_data,
    ),
    "sidecars": View(
        "Sidecar",
        ("NAMESPACE", "ID", "HEALTH", "ENDPOINT", "POD", "SERVICES", "LOAD", "HEARD", "REASON"),
        listed("Sidecar"),
        sidecar_row,
        sidecar_data,
    ),
    "groups": View(
        "Group",
        ("ID", "SERVICE", "GENERATION", "MEMBERS", "PARTITIONS", "TOPICS"),
        listed("Group"),
        group_row,
        group_data,
    ),
    "assignments": View(
        "Assignment",
        (
            "PIPELINE",
            "STAGE",
            "KIND",
            "INSTANCE",
            "SIDECAR",
            "SERVICE",
            "TERM",
            "PARTITIONS",
            "HEALTH",
        ),
        assignments,
        assignment_row,
        assignment_data,
    ),
    "positions": View(
        "Position",
        ("PIPELINE", "STAGE", "PARTITION", "ORDINAL", "POSITION", "TERM", "FINISHED", "COMMITTED"),
        positions,
        position_row,
        position_data,
    ),
    "documents": View(
        "Document",
        ("KIND", "NAMESPACE", "NAME", "VERSION", "DIGEST"),
        listed(*KINDS),
        document_row,
        document_of,
    ),
    **{
        f"{kind.lower()}s": View(
            kind,
            ("KIND", "NAMESPACE", "NAME", "VERSION", "DIGEST"),
            listed(kind),
            document_row,
            document_of,
        )
        for kind in ServiceKind
    },
}
