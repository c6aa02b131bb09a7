"""Names: their grammar, the key that a document is known by, and the nearest one to a mistake.

Names follow the grammar of DNS labels (RFC 1123), which every place that they travel to accepts:
Kubernetes objects, file names, metric labels, URLs.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

NAME_PATTERN = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAME_LENGTH_MAX = 63
LABELS_MAX = 64
LABEL_VALUE_LENGTH_MAX = 256
DEFAULT_NAMESPACE = "default"

TEXTS_SCHEMA = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
"""A mapping of texts: unquoted numbers and flags are read as the text that they are."""

_NAME = re.compile(NAME_PATTERN)
_ENDPOINT = re.compile(
    r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?):([0-9]{1,5})"
)
_LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")


class DocumentKey(NamedTuple):
    """What a document is known by: unique in a cluster."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """``Kind namespace/name``."""
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def qualified_name(self) -> str:
        """``namespace/name``: unique within the kind."""
        return f"{self.namespace}/{self.name}"


def is_name(text: str) -> bool:
    """Whether the text keeps the grammar of names."""
    return _NAME.fullmatch(text) is not None


def nearest(text: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that the author most likely meant, or None when nothing is close.

    Case and the difference between ``-`` and ``_`` do not count, so that ``maxSize``,
    ``max_size`` and ``max-size`` find each other. ``cutoff`` is difflib's ratio: 1 is equality.
    """
    plain = {_plain(word): word for word in sorted(known, reverse=True)}
    found = difflib.get_close_matches(_plain(text), list(plain), n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _check_name(text: str) -> str:
    if not is_name(text):
        raise PydanticCustomError(
            "name",
            "{text} is not a name: lower-case letters, digits and '-', at most 63, "
            "beginning and ending with a letter or digit",
            {"text": f"{text[:80]!r}"},
        )
    return text


def split_endpoint(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``; an IPv6 host stands in brackets.

    Raises:
        ValueError: the text is not of that form, or the port is above 65535.
    """
    match = _ENDPOINT.fullmatch(text)
    if match is None or int(match.group(3)) > 65_535:
        raise ValueError(f"{text[:80]!r} is not host:port")
    return match.group(1).strip("[]"), int(match.group(3))


def _check_endpoint(text: str) -> str:
    try:
        port = split_endpoint(text)[1]
    except ValueError as error:
        raise PydanticCustomError("endpoint", "{reason}", {"reason": str(error)}) from None
    if port == 0:
        raise PydanticCustomError("endpoint", "{text} has no port", {"text": f"{text!r}"})
    return text


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > LABELS_MAX:
        raise PydanticCustomError(
            "labels", "{count} labels are too many (at most 64)", {"count": len(labels)}
        )
    for key, value in labels.items():
        if _LABEL_KEY.fullmatch(key) is None:
            raise PydanticCustomError(
                "labels",
                "{key} is not a label: letters, digits, '.', '_', '/', '-', at most 63, "
                "beginning and ending with a letter or digit",
                {"key": f"{key[:80]!r}"},
            )
        if len(value) > LABEL_VALUE_LENGTH_MAX:
            raise PydanticCustomError(
                "labels", "the value of label {key} is longer than 256", {"key": f"{key!r}"}
            )
    return labels


def _empty_if_absent(value: Any) -> Any:
    return {} if value is None else value


Name = Annotated[
    str,
    AfterValidator(_check_name),
    WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"}),
]
"""A name of at most 63 lower-case letters, digits and dashes."""

Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
"""``host:port`` with a port from 1 to 65535."""

Labels = Annotated[
    dict[str, str],
    BeforeValidator(_empty_if_absent),
    AfterValidator(_check_labels),
    WithJsonSchema(TEXTS_SCHEMA),
]
"""At most 64 labels with values of at most 256 characters."""
