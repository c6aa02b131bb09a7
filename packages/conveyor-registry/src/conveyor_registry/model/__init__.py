"""The nouns: pipelines and services as pure, frozen, validated objects.

Nothing here knows of processes, clocks or sockets. Text becomes these objects in
``conveyor_config``; the router validates them before it proposes them; planner and sidecars read
them back from their canonical bytes.
"""

from conveyor_registry.model.changes import Change, changes
from conveyor_registry.model.document import (
    API_VERSION,
    DOCUMENT_BYTES_MAX,
    Document,
    Metadata,
)
from conveyor_registry.model.graph import Graph
from conveyor_registry.model.kinds import (
    KINDS,
    AnyDocument,
    document_of,
    parse_document,
)
from conveyor_registry.model.names import (
    DEFAULT_NAMESPACE,
    DocumentKey,
    Endpoint,
    is_name,
    nearest,
    split_endpoint,
)
from conveyor_registry.model.pipeline import Edge, Pipeline, PipelineSpec, ResolvedStage, Stage
from conveyor_registry.model.policies import (
    BATCH_DEFAULT,
    TIMEOUT_DEFAULT_MS,
    Batch,
    BatchPolicy,
    DeadLetterPolicy,
    Delivery,
    Miss,
    Order,
    RetryPolicy,
    ServiceKind,
    Slow,
    SpillPolicy,
)
from conveyor_registry.model.predicate import Predicate, PredicateError, parse_predicate
from conveyor_registry.model.problem import (
    DocumentRefused,
    Problem,
    Severity,
    errors_of,
    parse_path,
    render_path,
)
from conveyor_registry.model.service import (
    Declares,
    Match,
    ServiceDocument,
    ServiceOffer,
    ServiceSpec,
)
from conveyor_registry.model.units import (
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration_ms,
)
from conveyor_registry.model.validate import check, validate

__all__ = [
    "API_VERSION",
    "BATCH_DEFAULT",
    "DEFAULT_NAMESPACE",
    "DOCUMENT_BYTES_MAX",
    "KINDS",
    "TIMEOUT_DEFAULT_MS",
    "AnyDocument",
    "Batch",
    "BatchPolicy",
    "Change",
    "DeadLetterPolicy",
    "Declares",
    "Delivery",
    "Document",
    "DocumentKey",
    "DocumentRefused",
    "Edge",
    "Endpoint",
    "Graph",
    "Match",
    "Metadata",
    "Miss",
    "Order",
    "Pipeline",
    "PipelineSpec",
    "Predicate",
    "PredicateError",
    "Problem",
    "ResolvedStage",
    "RetryPolicy",
    "ServiceDocument",
    "ServiceKind",
    "ServiceOffer",
    "ServiceSpec",
    "Severity",
    "Slow",
    "SpillPolicy",
    "Stage",
    "changes",
    "check",
    "document_of",
    "errors_of",
    "format_bytes",
    "format_duration",
    "is_name",
    "nearest",
    "parse_bytes",
    "parse_document",
    "parse_duration_ms",
    "parse_path",
    "parse_predicate",
    "render_path",
    "split_endpoint",
    "validate",
]
