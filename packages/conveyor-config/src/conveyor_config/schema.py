"""JSON Schema of manifests and settings, generated from the models that read them.

For editors (``# yaml-language-server: $schema=…``) and for checks before anything is applied. The
models remain the authority: what spans several keys (cycles, promises) a schema cannot say.
"""

from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from conveyor_config.settings import RouterSettings, SidecarSettings
from conveyor_registry.model import KINDS, Pipeline, ServiceDocument, ServiceKind, nearest

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODE: JsonSchemaMode = "validation"
_SETTINGS: dict[str, type[BaseModel]] = {"router": RouterSettings, "sidecar": SidecarSettings}

SCHEMA_KINDS = ("Manifest", *KINDS, *_SETTINGS)
"""What there is a schema of; ``Manifest`` is any document."""


def json_schema(kind: str = "Manifest") -> dict[str, Any]:
    """The JSON Schema of a kind of document or of a process's settings.

    Raises:
        ValueError: there is no such kind.
    """
    if kind in _SETTINGS:
        schema = _SETTINGS[kind].model_json_schema(mode=_MODE)
    elif kind == "Manifest":
        adapter: TypeAdapter[Any] = TypeAdapter(Pipeline | ServiceDocument)
        schema = adapter.json_schema(mode=_MODE)
    elif kind in KINDS:
        schema = KINDS[kind].model_json_schema(mode=_MODE)
        if kind in list(ServiceKind):
            schema["properties"]["kind"] = {"const": kind, "type": "string"}
    else:
        close = nearest(kind, SCHEMA_KINDS)
        meant = f"; did you mean {close}?" if close else ""
        raise ValueError(f"{kind!r} is not one of: {', '.join(SCHEMA_KINDS)}{meant}")
    return {"$schema": _DIALECT, **_tidied(schema)}


_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}


def _tidied(schema: Any) -> Any:
    """Bounds under the dialect's words, and no titles that repeat the key."""
    if isinstance(schema, list):
        return [_tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        _BOUNDS.get(key, key): _tidied(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str) and "properties" not in schema)
    }
