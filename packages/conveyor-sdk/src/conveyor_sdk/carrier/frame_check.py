"""Whether the parts of a frame fit together; nothing that came from outside is used before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conveyor_sdk.carrier.errors import MalformedFrame

if TYPE_CHECKING:
    from conveyor_sdk.carrier.frame import Frame


def check_frame(frame: Frame) -> None:
    """Refuse a frame whose parts do not fit together.

    Raises:
        MalformedFrame: With the column and the two numbers that differ.
    """
    count = frame.count
    for name, column, width in (
        ("origin_indexes", frame.origin_indexes_column, 4),
        ("offsets", frame.offsets_column, 8),
        ("paths", frame.paths_column, 8),
        ("key_hashes", frame.key_hashes_column, 8),
    ):
        if column and len(column) != count * width:
            raise MalformedFrame(
                f"column {name} has {len(column)} bytes; {count} records need {count * width}"
            )
    if len(frame.lengths_column) != count * 4:
        raise MalformedFrame(
            f"column lengths has {len(frame.lengths_column)} bytes; "
            f"{count} records need {count * 4}"
        )
    total = sum(frame.lengths)
    if total != len(frame.body):
        raise MalformedFrame(f"the lengths add up to {total}, the body has {len(frame.body)} bytes")
    if count:
        highest = max(frame.origin_indexes) if frame.origin_indexes_column else 0
        if highest >= len(frame.origins):
            raise MalformedFrame(
                f"a record names origin {highest}; the frame has {len(frame.origins)} origins"
            )
