"""Rows of the log table: runs of frames, chained by a CRC, appended by one statement.

Rules kept: a row holds whole frames and at most 256 KiB of them (a single larger frame stands
alone), so that reading a piece of the log never moves much more than was asked for; the CRC of a
row covers the checksums of its frames and the CRC of the row before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from conveyor_raft.core.frames import Frame, encode_frames
from conveyor_raft.core.types import LogIndex

_ROW_BYTES_MAX = 256 * 1024
_CRC_BYTES = 4


class Row(NamedTuple):
    """One row, as it is inserted."""

    first: LogIndex
    last: LogIndex
    before: int
    """The CRC of the row before."""
    chain: int
    data: bytes


def chain_crc(frames: Iterable[Frame], before: int) -> int:
    """Return the CRC of a row: over the checksums of its frames, from the row before."""
    return zlib.crc32(b"".join([frame.data[:_CRC_BYTES] for frame in frames]), before)


def group_rows(frames: Iterable[Frame], before: int) -> list[Row]:
    """Group consecutive frames into rows, chained from the row before them."""
    groups: list[list[Frame]] = []
    room = 0
    for frame in frames:
        if frame.size > room:
            groups.append([])
            room = _ROW_BYTES_MAX
        groups[-1].append(frame)
        room -= frame.size
    rows = []
    for group in groups:
        chain = chain_crc(group, before)
        ends = (group[0].first_index, group[-1].last_index)
        rows.append(Row(*ends, before, chain, encode_frames(group)))
        before = chain
    return rows


def insert_statement(rows: Sequence[Row]) -> list[tuple[str, Sequence[object]]]:
    """Return the one statement that appends all rows, or none if there are none."""
    if not rows:
        return []
    places = ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
    values = [value for row in rows for value in row]
    return [(f"INSERT INTO log VALUES {places}", values)]  # noqa: S608 - question marks only
