"""Positions: where to resume, as user code writes them and as they travel.

With stable offsets the handler yields each record's own offset, an integer from 0 that grows; the
position that travels is the next offset to read, 8 bytes big-endian, so that positions sort as
bytes. Without, a position is what the handler finds handy (text, a number, bytes, a small JSON
value) and means "resume after this record"; it comes back exactly as it was given.
"""

from __future__ import annotations

from typing import Protocol

from conveyor_sdk.codec import decode_json, encode
from conveyor_sdk.errors import CodecError

POSITION_BYTES_MAX = 1024
OFFSET_MAX = 2**64 - 2

_BYTES = b"b"
_JSON = b"j"


class Positions(Protocol):
    """How a source's positions become bytes and come back."""

    def encode(self, position: object) -> bytes:
        """Return the bytes of where to resume after a record that was yielded with `position`."""

    def decode(self, data: bytes) -> object:
        """Return what the handler gets as `resume` for these bytes."""


class OpaquePositions:
    """Positions as the handler likes them."""

    def encode(self, position: object) -> bytes:
        """Return the bytes of `position`.

        Raises:
            CodecError: It is neither bytes nor a JSON value, or it is too long.
        """
        if isinstance(position, bytes):
            data = _BYTES + position
        elif position is None:
            raise CodecError("None is no position: it would mean the start")
        else:
            data = _JSON + encode([position])
        if len(data) > POSITION_BYTES_MAX:
            raise CodecError(f"a position has {len(data)} bytes; at most {POSITION_BYTES_MAX}")
        return data

    def decode(self, data: bytes) -> object:
        """Return the position that `data` stands for.

        Raises:
            CodecError: This SDK did not write it.
        """
        if data[:1] == _BYTES:
            return data[1:]
        value = decode_json(data[1:]) if data[:1] == _JSON else None
        if not isinstance(value, list) or len(value) != 1:
            raise CodecError(f"the position {data[:32]!r} was not written by this SDK")
        return value[0]


class StableOffsets:
    """Integers that name the record itself and are the same at every replay."""

    def encode(self, position: object) -> bytes:
        """Return the position after the record at offset `position`.

        Raises:
            CodecError: It is not an integer from 0 on.
        """
        return (checked_offset(position) + 1).to_bytes(8, "big")

    def decode(self, data: bytes) -> object:
        """Return the next offset to read.

        Raises:
            CodecError: It is not 8 bytes.
        """
        if len(data) != 8:
            raise CodecError(
                f"the position {data[:32]!r} is not an offset of 8 bytes; was stable_offsets "
                "switched on after positions had been committed?"
            )
        return int.from_bytes(data, "big")


def checked_offset(position: object) -> int:
    """Return `position` if it is an offset.

    Raises:
        CodecError: It is not.
    """
    if type(position) is not int or not 0 <= position <= OFFSET_MAX:
        raise CodecError(
            f"with stable_offsets the second of the pair is an integer from 0 on, not {position!r}"
        )
    return position
