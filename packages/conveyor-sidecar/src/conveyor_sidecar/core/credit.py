"""Credit: permission to send, apart from being done.

A receiver says in absolute totals how many records and bytes it will have taken; a sender may
start a frame while it is below both, and that one frame may overshoot, so that a large record
cannot wait for ever. Absolute totals make lost and repeated grants harmless.

How much: what the receiver drains in `drain_window_ms`, not less than two full frames and not more
than `lane_window_bytes_max`, halved when the process's budget is above its threshold, nothing when
it is exhausted. The floor is one frame for a sender that has nothing open at all: with it every
stage can always move, so that a process full of records that wait for their next stage empties
itself (buffer debloating as in Flink, credit as in its network stack and in HTTP/2).
"""

from __future__ import annotations

from conveyor_sidecar.core.buffer import Budget
from conveyor_sidecar.core.options import EngineOptions

_SAMPLE_MS = 50
_WEIGHT = 0.3


class DrainRate:
    """How fast a receiver works: an exponentially weighted mean of what it finished."""

    __slots__ = ("_bytes", "_records", "_since", "bytes_per_ms", "records_per_ms")

    def __init__(self, now_ms: int) -> None:
        self.records_per_ms = 0.0
        self.bytes_per_ms = 0.0
        self._records = 0
        self._bytes = 0
        self._since = now_ms

    def add(self, records: int, size: int, now_ms: int) -> None:
        """Count what was finished."""
        self._records += records
        self._bytes += size
        elapsed = now_ms - self._since
        if elapsed >= _SAMPLE_MS:
            self.records_per_ms += _WEIGHT * (self._records / elapsed - self.records_per_ms)
            self.bytes_per_ms += _WEIGHT * (self._bytes / elapsed - self.bytes_per_ms)
            self._records = self._bytes = 0
            self._since = now_ms


class Credit:
    """What one sender may send us, as absolute totals.

    Args:
        options: Window sizes.
        budget: The process's; promises are counted there.
        now_ms: The present.
    """

    __slots__ = (
        "_budget",
        "_options",
        "bytes_limit",
        "drain",
        "received_bytes",
        "received_records",
        "records_limit",
    )

    def __init__(self, options: EngineOptions, budget: Budget, now_ms: int) -> None:
        self._options = options
        self._budget = budget
        self.drain = DrainRate(now_ms)
        self.received_records = 0
        self.received_bytes = 0
        self.records_limit = 0
        self.bytes_limit = 0

    @property
    def promised_records(self) -> int:
        """Records that may still come."""
        return max(0, self.records_limit - self.received_records)

    @property
    def promised_bytes(self) -> int:
        """Bytes that may still come."""
        return max(0, self.bytes_limit - self.received_bytes)

    def receive(self, records: int, size: int) -> None:
        """Count what came: what was a promise is held from now on."""
        self._unpromise()
        self.received_records += records
        self.received_bytes += size
        self._promise()

    def close(self) -> None:
        """Nothing more will come."""
        self._unpromise()
        self.records_limit = min(self.records_limit, self.received_records)
        self.bytes_limit = min(self.bytes_limit, self.received_bytes)

    def renew(self, waiting_records: int, waiting_bytes: int, room: int, *, idle: bool) -> bool:
        """Raise the limits if that is due; return whether they rose.

        Args:
            waiting_records: Received and not yet worked off.
            waiting_bytes: The same in bytes.
            room: Records that the stage may still take.
            idle: Nothing of this sender is open.
        """
        options = self._options
        budget = self._budget
        records = max(
            2 * options.frame_records, int(self.drain.records_per_ms * options.drain_window_ms)
        )
        size = max(2 * options.frame_bytes, int(self.drain.bytes_per_ms * options.drain_window_ms))
        size = min(size, options.lane_window_bytes_max)
        if budget.tight:
            records, size = records // 2, size // 2
        remaining_records = self.promised_records
        remaining_bytes = self.promised_bytes
        if remaining_records > records // 2 and remaining_bytes > size // 2:
            return False
        more_records = min(records - waiting_records - remaining_records, room)
        more_records = min(more_records, budget.free_records)
        more_bytes = min(size - waiting_bytes - remaining_bytes, budget.free_bytes)
        if idle and not (remaining_records and remaining_bytes):
            # The floor: one frame of whatever size can start.
            more_records = max(more_records, 1 - remaining_records)
            more_bytes = max(more_bytes, 1 - remaining_bytes)
        if remaining_records + more_records <= 0 or remaining_bytes + more_bytes <= 0:
            return False  # one unit alone lets nothing start
        return self._raise(more_records, more_bytes)

    def _raise(self, more_records: int, more_bytes: int) -> bool:
        if more_records <= 0 and more_bytes <= 0:
            return False
        self._unpromise()
        if more_records > 0:
            base = max(self.records_limit, self.received_records)
            self.records_limit = base + more_records
        if more_bytes > 0:
            self.bytes_limit = max(self.bytes_limit, self.received_bytes) + more_bytes
        self._promise()
        return True

    def _promise(self) -> None:
        self._budget.promised_records += self.promised_records
        self._budget.promised_bytes += self.promised_bytes

    def _unpromise(self) -> None:
        self._budget.promised_records -= self.promised_records
        self._budget.promised_bytes -= self.promised_bytes
