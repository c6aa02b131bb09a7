"""What every document has: version, kind, metadata, canonical bytes and a digest.

The canonical bytes are JSON with sorted keys and no blanks. All defaults are written out, so that a
pipeline keeps its meaning when a later release changes a default; absent optional keys stay absent.
Being JSON with units in the text, they are a document again: what the cluster stores can be shown,
edited and applied. The digest is SHA-256 over these bytes: equal digests mean equal documents.
"""

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema

from conveyor_registry.model.names import (
    DEFAULT_NAMESPACE,
    TEXTS_SCHEMA,
    DocumentKey,
    Labels,
    Name,
)
from conveyor_registry.model.policies import Noun
from conveyor_registry.model.problem import DocumentRefused, Problem, problems_of

API_VERSION = "conveyor/v1"
DOCUMENT_BYTES_MAX = 256 << 10


def _empty_if_absent(value: Any) -> Any:
    return {} if value is None else value


class Metadata(Noun):
    """A document's name, namespace and labels."""

    name: Name
    namespace: Name = DEFAULT_NAMESPACE
    labels: Labels = Field(default_factory=dict)


class Document(Noun):
    """Base of :class:`Pipeline` and :class:`ServiceDocument`."""

    api_version: Literal["conveyor/v1"]
    kind: str
    metadata: Metadata

    @property
    def name(self) -> str:
        """The name in the metadata."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace in the metadata."""
        return self.metadata.namespace

    @property
    def key(self) -> DocumentKey:
        """What the cluster knows the document by."""
        return DocumentKey(self.kind, self.metadata.namespace, self.metadata.name)

    @property
    def id(self) -> str:
        """``namespace/name``: unique within the kind."""
        return self.key.qualified_name

    def plain(self) -> dict[str, Any]:
        """The document as plain data, as it would stand in a file."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def canonical(self) -> bytes:
        """The canonical bytes; equal documents have equal ones."""
        return json.dumps(
            self.plain(), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hexadecimal."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def of(cls, data: Any) -> Self:
        """The document that plain data describe (as a loader of YAML or JSON gives them).

        Raises:
            DocumentRefused: with every problem found, each with its path.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise DocumentRefused(problems_of(error, cls, data)) from None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The document in JSON bytes; the inverse of :meth:`canonical`.

        Raises:
            DocumentRefused: too large, not JSON, or not such a document.
        """
        return cls.of(plain_of(data))


def plain_of(data: bytes) -> Any:
    """The plain data in JSON bytes of bounded size.

    Raises:
        DocumentRefused: too large or not JSON.
    """
    if len(data) > DOCUMENT_BYTES_MAX:
        raise DocumentRefused(
            [Problem.error((), f"the document has {len(data)} bytes; at most {DOCUMENT_BYTES_MAX}")]
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DocumentRefused([Problem.error((), f"not JSON: {error}")]) from None


CONFIG_ENTRIES_MAX = 256
CONFIG_CHARACTERS_MAX = 64 << 10


def _check_config(config: dict[str, str]) -> dict[str, str]:
    if len(config) > CONFIG_ENTRIES_MAX:
        raise ValueError(f"{len(config)} entries are too many (at most {CONFIG_ENTRIES_MAX})")
    size = sum(len(key) + len(value) for key, value in config.items())
    if size > CONFIG_CHARACTERS_MAX:
        raise ValueError(f"{size} characters are too many (at most {CONFIG_CHARACTERS_MAX})")
    return config


Absent = BeforeValidator(_empty_if_absent)
"""Reads a key without a value (``config:``) as an empty mapping."""

Config = Annotated[
    dict[str, str], Absent, AfterValidator(_check_config), WithJsonSchema(TEXTS_SCHEMA)
]
"""A service's configuration: at most 256 texts of 64 Ki characters together."""
