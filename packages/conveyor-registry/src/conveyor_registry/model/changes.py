"""What differs between two versions of a document, key by key.

Stages are aligned by their id and edges by their two ends, so that inserting a stage shows as one
addition and not as a change of everything behind it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from conveyor_registry.model.document import Document


class Change(NamedTuple):
    """One difference; None stands for absent."""

    path: str
    before: Any
    after: Any


def changes(before: Document | None, after: Document | None) -> list[Change]:
    """The differences from one version to another, in the order of their paths."""
    return _compare(
        "",
        before.plain() if before is not None else None,
        after.plain() if after is not None else None,
    )


def _compare(path: str, before: Any, after: Any) -> list[Change]:
    if before == after:
        return []
    left, right = _keyed(before), _keyed(after)
    if left is None or right is None:
        return [Change(path, before, after)]
    found: list[Change] = []
    for key in (*left, *(key for key in right if key not in left)):
        found += _compare(_joined(path, key), left.get(key), right.get(key))
    if not found:
        return [Change(path, list(left), list(right))]
    return found


def _keyed(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        keys = [_identity(item) for item in value]
        if None not in keys and len(set(keys)) == len(keys):
            return {f"[{key}]": item for key, item in zip(keys, value, strict=True)}
    return None


def _identity(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return None
    if "id" in item:
        return str(item["id"])
    if "from" in item and "to" in item:
        return f"{item['from']}->{item['to']}"
    return None


def _joined(path: str, key: str) -> str:
    return f"{path}{key}" if key.startswith("[") or not path else f"{path}.{key}"
