"""Results as bytes, for the sessions that must give the same answer twice.

A state machine may offer `encode_result` and `decode_result` (`ResultCodec`). One that does not is
served as far as its results are plain values: None, bool, int, float, str, bytes, and tuples, lists
and dicts of them.

Rules kept: equal results give equal bytes; a value comes back with the type that it had; what is
not plain is refused, never guessed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<d")


@runtime_checkable
class ResultCodec(Protocol):
    """What a state machine offers whose results are not plain values."""

    def encode_result(self, result: Any) -> bytes:
        """Return the result as bytes."""
        ...

    def decode_result(self, data: bytes) -> Any:
        """Return the result of the bytes."""
        ...


class PlainResults:
    """The codec of plain values."""

    def encode_result(self, result: Any) -> bytes:
        """Return a plain value as bytes.

        Raises:
            TypeError: it is none.
        """
        parts: list[bytes] = []
        _encode(result, parts.append)
        return b"".join(parts)

    def decode_result(self, data: bytes) -> Any:
        """Return the value of the bytes."""
        value, _ = _decode(data, 0)
        return value


def _encode(value: Any, write: Callable[[bytes], None]) -> None:
    kind = type(value)
    if value is None:
        write(b"n")
    elif kind is bool:
        write(b"t" if value else b"f")
    elif kind is int:
        _encode_bytes(b"i", str(value).encode(), write)
    elif kind is float:
        write(b"d" + _FLOAT.pack(value))
    elif kind is str:
        _encode_bytes(b"s", value.encode(), write)
    elif kind is bytes:
        _encode_bytes(b"b", value, write)
    elif kind is tuple or kind is list:
        write((b"(" if kind is tuple else b"[") + _LENGTH.pack(len(value)))
        for item in value:
            _encode(item, write)
    elif kind is dict:
        write(b"{" + _LENGTH.pack(len(value)))
        for key, item in value.items():
            _encode(key, write)
            _encode(item, write)
    else:
        raise TypeError(f"{kind.__name__} is no plain value")


def _encode_bytes(mark: bytes, data: bytes, write: Callable[[bytes], None]) -> None:
    write(mark + _LENGTH.pack(len(data)))
    write(data)


def _decode(data: bytes, at: int) -> tuple[Any, int]:
    mark = data[at : at + 1]
    at += 1
    if mark in _CONSTANTS:
        return _CONSTANTS[mark], at
    if mark == b"d":
        return _FLOAT.unpack_from(data, at)[0], at + _FLOAT.size
    (length,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    if mark in _RAW:
        return _RAW[mark](data[at : at + length]), at + length
    items = []
    for _ in range(2 * length if mark == b"{" else length):
        item, at = _decode(data, at)
        items.append(item)
    if mark == b"{":
        return dict(zip(items[::2], items[1::2], strict=True)), at
    return (tuple(items) if mark == b"(" else items), at


_CONSTANTS = {b"n": None, b"t": True, b"f": False}
_RAW: dict[bytes, Callable[[bytes], Any]] = {b"i": int, b"s": bytes.decode, b"b": bytes}
