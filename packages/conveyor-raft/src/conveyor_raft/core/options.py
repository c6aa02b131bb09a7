"""The numbers that the core works with; `RaftConfig.core_options` makes one for real nodes."""

from __future__ import annotations

from dataclasses import dataclass

_MAY_BE_ZERO = {
    "pre_vote",
    "check_quorum",
    "lease_reads",
    "lease_drift_ppm",
    "priority_delay_ms",
    "snapshot_trailing_entries",
    "snapshot_trailing_bytes",
}


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """Times in milliseconds of the clock that is given to `RaftCore.tick`; every field is a bound.

    `max_batch_bytes` bounds a frame and the frames of one message; a single larger payload still
    travels, alone. `max_uncommitted_*` bound what a leader has accepted and not applied yet, so
    that neither a slow quorum nor a slow state machine fills the memory. A snapshot is due after
    `snapshot_interval_entries` or `snapshot_interval_bytes`, whichever comes first; behind it the
    log keeps `snapshot_trailing_entries` for followers that are only a little late, but no more
    than `snapshot_trailing_bytes`. A leader keeps more for followers that are slow and alive, or
    that a snapshot is under way to, for `snapshot_hold_ms` at most, as long as that is within
    `snapshot_spared_entries` and `snapshot_spared_bytes`; who is further behind needs a snapshot.
    A learner that is to be promoted has `catch_up_rounds_max` rounds to catch up, and must not
    stand still for `catch_up_silence_ms`.

    `pre_vote`: a node asks whether it would be elected before it enters a new term, so one that was
    cut off comes back without deposing anybody. `check_quorum`: a leader that has not heard from a
    majority for `election_timeout_max_ms` steps down, and a node that has heard its leader within
    `election_timeout_min_ms` votes for nobody else (save in a transfer of leadership). Each covers
    a weakness of the other; leave both on.

    `priority_delay_ms` is added to this node's patience before it campaigns: nodes with less become
    leaders first. It never changes how a node votes.

    `lease_reads` lets a leader answer reads without asking anybody, as long as a majority has just
    promised to elect nobody else. It is as safe as the clocks: `lease_drift_ppm` is by how many
    millionths any two of them may differ in speed, and a clock that stands still while its process
    is frozen and the others run (a suspended virtual machine) breaks it. All members must have it,
    or none; it needs `pre_vote` and `check_quorum`. `max_pending_reads` bounds the reads that wait.
    """

    election_timeout_min_ms: int = 150
    election_timeout_max_ms: int = 300
    heartbeat_interval_ms: int = 50
    pre_vote: bool = True
    check_quorum: bool = True
    priority_delay_ms: int = 0
    lease_reads: bool = False
    lease_drift_ppm: int = 10_000
    max_pending_reads: int = 65_536
    max_payload_bytes: int = 1024 * 1024
    max_batch_bytes: int = 256 * 1024
    max_inflight_messages: int = 4
    max_inflight_bytes: int = 4 * 1024 * 1024
    max_uncommitted_entries: int = 65_536
    max_uncommitted_bytes: int = 64 * 1024 * 1024
    snapshot_interval_entries: int = 10_000
    snapshot_interval_bytes: int = 64 * 1024 * 1024
    snapshot_trailing_entries: int = 1_000
    snapshot_trailing_bytes: int = 16 * 1024 * 1024
    snapshot_spared_entries: int = 10_000
    snapshot_spared_bytes: int = 64 * 1024 * 1024
    snapshot_hold_ms: int = 60_000
    catch_up_rounds_max: int = 10
    catch_up_silence_ms: int = 10_000

    def __post_init__(self) -> None:
        """Refuse what the algorithm cannot work with."""
        if not 0 < self.heartbeat_interval_ms < self.election_timeout_min_ms:
            raise ValueError(
                f"heartbeat_interval_ms ({self.heartbeat_interval_ms}) must be positive and below"
                f" election_timeout_min_ms ({self.election_timeout_min_ms})"
            )
        if self.election_timeout_max_ms <= self.election_timeout_min_ms:
            raise ValueError(
                f"election_timeout_max_ms ({self.election_timeout_max_ms}) must be greater than"
                f" election_timeout_min_ms ({self.election_timeout_min_ms})"
            )
        if self.lease_reads and not (self.pre_vote and self.check_quorum):
            raise ValueError(
                "lease_reads needs pre_vote and check_quorum: without them somebody else may be"
                " elected while the lease runs"
            )
        if not self.lease_drift_ppm < 1_000_000:
            raise ValueError(f"lease_drift_ppm ({self.lease_drift_ppm}) must be below 1,000,000")
        for name in self.__slots__:
            if getattr(self, name) < (0 if name in _MAY_BE_ZERO else 1):
                raise ValueError(f"{name} ({getattr(self, name)}) is too small")
