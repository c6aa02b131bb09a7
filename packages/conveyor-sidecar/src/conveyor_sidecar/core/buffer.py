"""The process's bound: how much may be in custody, and how much was promised to be taken.

Credit is a promise that cannot be taken back, because a sender may use it at any time. The budget
therefore counts what is held *and* what was promised, and grants come out of what is left. Two
things may go beyond it, both bounded: the one frame that every lane may always have under way
(else a full buffer could wait for itself), and outputs of a transform that are larger than its
inputs.
"""

from __future__ import annotations


class Budget:
    """Counts records and bytes that are held or promised.

    Args:
        records_max: Bound of un-ended records.
        bytes_max: Bound of retained bytes.
        threshold: Share of a bound above which new credit is halved.
    """

    def __init__(self, records_max: int, bytes_max: int, threshold: float) -> None:
        self.records_max = records_max
        self.bytes_max = bytes_max
        self.threshold = threshold
        self.records = 0
        self.bytes = 0
        self.promised_records = 0
        self.promised_bytes = 0

    @property
    def free_records(self) -> int:
        """Records that may still be promised."""
        return self.records_max - self.records - self.promised_records

    @property
    def free_bytes(self) -> int:
        """Bytes that may still be promised."""
        return self.bytes_max - self.bytes - self.promised_bytes

    @property
    def tight(self) -> bool:
        """Above the threshold in either unit."""
        return (
            self.free_records < (1 - self.threshold) * self.records_max
            or self.free_bytes < (1 - self.threshold) * self.bytes_max
        )

    @property
    def exhausted(self) -> bool:
        """Nothing more can be promised."""
        return self.free_records <= 0 or self.free_bytes <= 0
