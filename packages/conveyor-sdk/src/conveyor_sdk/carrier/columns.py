"""Columns of integers as bytes: one little-endian unsigned integer per record, on every host."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence

_LITTLE = sys.byteorder == "little"

Column = Sequence[int]
"""One unsigned integer per record."""


def read_u32(column: bytes) -> Column:
    """Return the 32-bit integers of a little-endian column."""
    return memoryview(column).cast("I") if _LITTLE else _swapped("I", column)


def read_u64(column: bytes) -> Column:
    """Return the 64-bit integers of a little-endian column."""
    return memoryview(column).cast("Q") if _LITTLE else _swapped("Q", column)


def write_u32(values: Iterable[int]) -> bytes:
    """Return `values` as a little-endian column of 32 bits each."""
    return _column("I", values)


def write_u64(values: Iterable[int]) -> bytes:
    """Return `values` as a little-endian column of 64 bits each."""
    return _column("Q", values)


def _swapped(code: str, column: bytes) -> array[int]:
    values: array[int] = array(code, column)
    values.byteswap()
    return values


def _column(code: str, values: Iterable[int]) -> bytes:
    column: array[int] = array(code, values)
    if not _LITTLE:
        column.byteswap()
    return column.tobytes()


def varint(value: int) -> bytes:
    """Return `value` as a protobuf varint."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
