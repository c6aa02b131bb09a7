"""The engine's numbers and its two injected abilities: chance, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Chance(Protocol):
    """A source of chance; `random.Random` is one. A seeded one makes every decision repeatable."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Bounds and intervals of one sidecar's engine.

    Attributes:
        sidecar_id: Identity of this sidecar, as the table names it.
        boot_id: Of this process; a new one remembers nothing.
        records_max: Un-ended records in the process, with those ended above a low mark
            (`buffer.max_total_records`).
        stage_records_max: The same for one stage instance (`buffer.max_per_stage`).
        retained_bytes_max: Bytes of frames that are kept for others or wait for a service.
        backpressure_threshold: Share of a bound above which new credit is halved.
        record_bytes_max: Longer records become dead letters.
        frame_records: A frame on a lane has no more.
        frame_bytes: Nor more bytes, unless it is one record.
        lane_window_bytes_max: Credit of one lane beyond what it has ended.
        drain_window_ms: A lane's credit covers what it drains in this time.
        linger_ms: A frame that is not full waits so long for more records, unless the lane is idle.
        resume_ms: A broken link may be resumed for so long; then its frames go elsewhere.
        reconnect_min_ms: First wait before a broken link is opened again; doubled up to the
            maximum.
        reconnect_max_ms: Longest wait for that, and for opening a source again.
        refused_lane_ms: Wait before a lane is asked for again that its consumer did not know.
        commit_interval_ms: Positions are committed at most so often.
        commit_retry_ms: Wait after a commit without a decision.
        dead_letter_retry_ms: Wait after a dead letter could not be stored.
        call_grace_ms: How much later than its timeout a call is given up.
    """

    sidecar_id: str
    boot_id: str
    records_max: int = 100_000
    stage_records_max: int = 10_000
    retained_bytes_max: int = 32 * 1024 * 1024
    backpressure_threshold: float = 0.8
    record_bytes_max: int = 4 * 1024 * 1024 - 64 * 1024
    frame_records: int = 500
    frame_bytes: int = 256 * 1024
    lane_window_bytes_max: int = 8 * 1024 * 1024
    drain_window_ms: int = 250
    linger_ms: int = 5
    resume_ms: int = 15_000
    reconnect_min_ms: int = 50
    reconnect_max_ms: int = 2_000
    refused_lane_ms: int = 200
    commit_interval_ms: int = 250
    commit_retry_ms: int = 250
    dead_letter_retry_ms: int = 1_000
    call_grace_ms: int = 250
