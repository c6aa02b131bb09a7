"""The settings of one node, checked when they are made.

What for: `RaftConfig` carries the four fields of the specification and what a real node needs
besides: where its data lie, where it listens, and how much of everything it allows. The core gets a
plain dataclass (`core_options`), so that it never sees pydantic.

Rules kept: every queue has its bound here; election timeouts are at least two heartbeats, because a
single lost heartbeat must not end a leader. The defaults 150/300/50 ms suit a quiet local network;
hosts that share their processors, and anything across a WAN, want 1000/2000/200.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from conveyor_raft.core.options import CoreOptions


class RaftConfig(BaseModel):
    """What one node is told; immutable.

    `data_dir=None` keeps the log in memory: for tests, and for clusters that may forget.
    `listen_address` is needed as soon as there are peers; port 0 takes a free one.
    `advertise_address` (default: the bound address) is what the peers are told, `client_address`
    what `NotLeader` tells clients; both become part of the agreed membership.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: int = Field(ge=1, lt=2**63)
    election_timeout_min_ms: int = Field(default=150, ge=2)
    election_timeout_max_ms: int = Field(default=300, ge=2, le=600_000)
    heartbeat_interval_ms: int = Field(default=50, ge=1)
    pre_vote: bool = True
    """Ask whether an election would be won before entering a new term for it."""
    check_quorum: bool = True
    """Step down without a majority in reach, and vote for nobody while a leader is heard."""
    priority_delay_ms: int = Field(default=0, ge=0, le=600_000)
    """Extra patience of this node before it campaigns; nodes with less lead first."""
    lease_reads: bool = False
    """Allow reads by lease: without a round of messages, but only as safe as the clocks."""
    lease_drift_ppm: int = Field(default=10_000, ge=0, lt=1_000_000)
    """By how many millionths any two members' clocks may differ in speed."""
    max_pending_reads: int = Field(default=65_536, ge=1)

    data_dir: Path | None = None
    listen_address: str | None = None
    advertise_address: str | None = None
    client_address: str = ""

    snapshot_interval_entries: int = Field(default=10_000, ge=1)
    snapshot_trailing_entries: int = Field(default=1_000, ge=0)
    """Entries kept in the log behind a snapshot, for followers that are only a little late."""
    snapshot_interval_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    snapshot_trailing_bytes: int = Field(default=16 * 1024 * 1024, ge=0)
    snapshot_spared_entries: int = Field(default=10_000, ge=1)
    """Entries that a leader keeps for followers that are slow and alive."""
    snapshot_spared_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    snapshot_hold_ms: int = Field(default=60_000, ge=1)
    """How long the log behind a snapshot is kept while the snapshot is sent."""
    snapshot_chunk_bytes: int = Field(default=256 * 1024, ge=1024, le=4 * 1024 * 1024)

    max_payload_bytes: int = Field(default=1024 * 1024, ge=1, le=8 * 1024 * 1024)
    max_batch_bytes: int = Field(default=256 * 1024, ge=1024, le=4 * 1024 * 1024)
    """Entry bytes in one message to a peer; a single larger entry still travels, alone."""
    max_inflight_messages: int = Field(default=4, ge=1, le=256)
    """Unanswered messages with entries per peer."""
    max_inflight_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_uncommitted_entries: int = Field(default=65_536, ge=1)
    max_uncommitted_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    catch_up_rounds_max: int = Field(default=10, ge=1)
    """Rounds in which a learner must come up to the leader's log before it is promoted."""
    catch_up_silence_ms: int = Field(default=10_000, ge=1)
    """How long such a learner may stand still before its promotion is withdrawn."""
    outbox_bytes_max: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Bytes that wait for one peer; above it the oldest message that can be replaced is dropped."""
    watchers_max: int = Field(default=1_000, ge=1)

    propose_timeout_ms: int = Field(default=5_000, ge=1)
    """How long `propose` waits when it is not told."""

    @model_validator(mode="after")
    def _address_can_be_reached(self) -> Self:
        if self.listen_address is not None and self.advertise_address is None:
            host = self.listen_address.rpartition(":")[0]
            if host in {"0.0.0.0", "[::]", "::", ""}:  # noqa: S104 - refused here
                raise ValueError(
                    f"listen_address ({self.listen_address}) names no host that the peers could"
                    " reach; set advertise_address"
                )
        return self

    @model_validator(mode="after")
    def _lease_is_safe(self) -> Self:
        if self.lease_reads and not (self.pre_vote and self.check_quorum):
            raise ValueError(
                "lease_reads needs pre_vote and check_quorum: without them another leader may be"
                " elected while the lease runs"
            )
        return self

    @model_validator(mode="after")
    def _timeouts_fit(self) -> Self:
        if self.election_timeout_max_ms <= self.election_timeout_min_ms:
            raise ValueError(
                f"election_timeout_max_ms ({self.election_timeout_max_ms}) must be greater than"
                f" election_timeout_min_ms ({self.election_timeout_min_ms}):"
                " the spread is what keeps nodes from campaigning together"
            )
        if self.election_timeout_min_ms < 2 * self.heartbeat_interval_ms:
            raise ValueError(
                f"election_timeout_min_ms ({self.election_timeout_min_ms}) must be at least twice"
                f" heartbeat_interval_ms ({self.heartbeat_interval_ms}):"
                " one lost heartbeat must not start an election"
            )
        return self

    def core_options(self) -> CoreOptions:
        """Return the part that the algorithm itself needs, as a plain dataclass."""
        names = CoreOptions.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return CoreOptions(**{name: getattr(self, name) for name in names})
