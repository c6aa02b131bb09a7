"""Values to payloads and back.

A handler's type hint says what it wants: `bytes` is the payload untouched, `str` its UTF-8 text, a
dataclass or `dict` a JSON object, other JSON types and no hint at all the JSON value. The way back
goes by the value: `bytes` and `str` as they are, everything else as compact JSON. JSON is the
standard library's; NaN and infinities, which are not JSON, are refused.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable

from conveyor_sdk.errors import CodecError

Codec = Callable[[bytes], object]
"""Makes a value of a payload; raises `CodecError`."""

_JSON_TYPES = (dict, list, int, float, bool, str)


def _jsonable(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not a JSON value")


_encode_json = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_jsonable
).encode
_decoder = json.JSONDecoder(parse_constant=_refuse)


def encode(value: object) -> bytes:
    """Return the payload of `value`.

    Raises:
        CodecError: It has none.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if value is None:
        raise CodecError("None cannot be a record's value")
    try:
        return _encode_json(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CodecError(f"a {type(value).__name__} cannot become JSON: {error}") from error


def decode_json(payload: bytes) -> object:
    """Return the JSON value of `payload`.

    Raises:
        CodecError: It is not JSON.
    """
    try:
        text = payload.decode()
        if text[:1] in ("{", "["):
            value, end = _decoder.raw_decode(text)
            if end == len(text):
                return value
        return _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"the payload is not JSON: {error}") from error


def decode_bytes(payload: bytes) -> bytes:
    """Return `payload`."""
    return payload


def decode_text(payload: bytes) -> str:
    """Return the text of `payload`.

    Raises:
        CodecError: It is not UTF-8.
    """
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise CodecError(f"the payload is not UTF-8 text: {error}") from error


def codec_for(hint: object) -> Codec | None:
    """Return the codec for a type hint, or None if there is none."""
    if hint in (inspect.Parameter.empty, typing.Any, object):
        return decode_json
    if hint is bytes:
        return decode_bytes
    if hint is str:
        return decode_text
    base = typing.get_origin(hint) or hint
    if base in (typing.Union, types.UnionType) or typing.is_typeddict(base):
        return decode_json
    if isinstance(base, type):
        if base in _JSON_TYPES:
            return _json_of(base)
        if dataclasses.is_dataclass(base):
            return _dataclass(base)
        if base.__module__ == "collections.abc" and issubclass(dict, base):
            return _json_of(dict)
    return None


def _json_of(kind: type) -> Codec:
    accepted = (int, float) if kind is float else (kind,)

    def decode(payload: bytes) -> object:
        value = decode_json(payload)
        if type(value) not in accepted:
            raise CodecError(
                f"the handler asks for {kind.__name__}, the payload is a {type(value).__name__}"
            )
        return value

    return decode


def _dataclass(kind: type) -> Codec:
    def decode(payload: bytes) -> object:
        value = decode_json(payload)
        if not isinstance(value, dict):
            raise CodecError(
                f"the handler asks for {kind.__name__}, the payload is a {type(value).__name__}"
            )
        try:
            return kind(**value)
        except (TypeError, ValueError) as error:
            raise CodecError(f"the payload is not a {kind.__name__}: {error}") from error

    return decode
