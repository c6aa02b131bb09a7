"""The faults of one seed: which there are, and how hard.

Swarm testing (Groce et al., ISSTA 2012): every seed leaves out some faults altogether, because a
fault that is always there hides what only its absence allows. Each is off in four of ten seeds.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import TypeVar

from conveyor_raft.core.options import CoreOptions

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Knobs:
    """Probabilities for each message; times in milliseconds; 0 where a fault is off.

    `*_every_ms` are mean times between faults. `clock_permille` is each node's clock rate.
    `batching` lets several inputs share one `take`; `pipelined_writes` allows several writes on
    their way to one disk; the disk of `slow_node` takes up to `slow_disk_ms` longer. Beside the
    `nodes` that vote at first there are `spares`, of which so many are `learners` from the start.
    """

    nodes: int = 3
    spares: int = 0
    learners: int = 0
    options: CoreOptions = dataclasses.field(default_factory=CoreOptions)
    drop: float = 0.0
    duplicate: float = 0.0
    ghost: float = 0.0
    delay_ms: int = 2
    reorder: bool = False
    partition_every_ms: int = 0
    partition_ms: int = 0
    stream_break: float = 0.0
    chunk_damage: float = 0.0
    change_every_ms: int = 0
    wipe_every_ms: int = 0
    crash_every_ms: int = 0
    down_ms: int = 0
    disk_error_every_ms: int = 0
    pause_every_ms: int = 0
    pause_ms: int = 0
    disk_ms: int = 1
    slow_node: int = 0
    slow_disk_ms: int = 0
    apply_ms: int = 0
    clock_permille: tuple[int, ...] = ()
    wall_jumps: bool = False
    client_every_ms: int = 20
    session_clients: int = 0
    payload_bytes: int = 16
    batching: bool = False
    pipelined_writes: bool = False
    peer_hints: bool = False
    lose_tail_every_ms: int = 0
    transfer_every_ms: int = 0
    read_every_ms: int = 0

    def calm(self) -> Knobs:
        """Return the same cluster without faults."""
        return dataclasses.replace(
            self,
            drop=0.0,
            duplicate=0.0,
            ghost=0.0,
            stream_break=0.0,
            chunk_damage=0.0,
            delay_ms=2,
            partition_every_ms=0,
            change_every_ms=0,
            wipe_every_ms=0,
            crash_every_ms=0,
            disk_error_every_ms=0,
            pause_every_ms=0,
            disk_ms=2,
            slow_disk_ms=0,
            apply_ms=1,
        )

    def quiet(self) -> Knobs:
        """Return the same cluster without clients."""
        return dataclasses.replace(self, client_every_ms=0, read_every_ms=0)


def draw_knobs(rng: random.Random) -> Knobs:
    """Draw a cluster and its faults."""

    def swarm(values: tuple[T, ...], off: T) -> T:
        return off if rng.random() < 0.4 else rng.choice(values)

    nodes = rng.choice((1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 7))
    spread = swarm((20, 100, 250), 0)
    lease = spread <= 100 and rng.random() < 0.4
    interval = swarm((20, 60, 200), 10_000)
    change_every_ms = swarm((200, 1_000, 3_000), 0)
    spares = rng.choice((0, 1, 2)) if change_every_ms else 0
    return Knobs(
        nodes=nodes,
        spares=spares,
        learners=rng.randint(0, spares),
        change_every_ms=change_every_ms,
        wipe_every_ms=swarm((2_000, 6_000), 0) if change_every_ms else 0,
        options=_draw_options(rng, interval, lease_drift_ppm=2_500 * spread if lease else None),
        drop=swarm((0.01, 0.05, 0.15, 0.3), 0.0),
        duplicate=swarm((0.01, 0.05), 0.0),
        ghost=swarm((0.005, 0.02), 0.0),
        stream_break=swarm((0.1, 0.4), 0.0),
        chunk_damage=swarm((0.1, 0.3), 0.0),
        delay_ms=rng.choice((2, 5, 15, 100)),
        reorder=swarm((True,), False),
        partition_every_ms=swarm((500, 2_000), 0),
        partition_ms=rng.choice((200, 600, 2_000)),
        crash_every_ms=swarm((300, 1_000, 4_000), 0),
        down_ms=rng.choice((20, 200, 1_000)),
        disk_error_every_ms=swarm((300, 2_000), 0),
        pause_every_ms=swarm((1_000, 4_000), 0),
        pause_ms=rng.choice((100, 400, 2_000)),
        disk_ms=rng.choice((1, 2, 10, 50, 300)),
        slow_node=rng.randint(1, nodes + spares),
        slow_disk_ms=swarm((100, 1_000), 0),
        apply_ms=rng.choice((0, 5, 50)),
        clock_permille=tuple(
            rng.randint(1000 - spread, 1000 + spread) for _ in range(nodes + spares)
        ),
        wall_jumps=swarm((True,), False),
        client_every_ms=rng.choice((2, 5, 20, 50)),
        payload_bytes=rng.choice((8, 64, 1_000)),
        batching=swarm((True,), False),
        pipelined_writes=swarm((True,), False),
        peer_hints=swarm((True,), False),
        session_clients=swarm((1, 3, 8), 0),
        lose_tail_every_ms=swarm((500, 2_000), 0),
        transfer_every_ms=swarm((300, 1_000), 0),
        read_every_ms=swarm((10, 50, 200), 0),
    )


def _draw_options(rng: random.Random, interval: int, *, lease_drift_ppm: int | None) -> CoreOptions:
    lease = lease_drift_ppm is not None
    return CoreOptions(
        election_timeout_min_ms=150,
        election_timeout_max_ms=rng.choice((200, 300, 600)),
        heartbeat_interval_ms=50,
        pre_vote=lease or rng.random() < 0.6,
        check_quorum=lease or rng.random() < 0.6,
        lease_reads=lease,
        lease_drift_ppm=lease_drift_ppm or 0,
        priority_delay_ms=rng.choice((0, 0, 100)),
        max_batch_bytes=rng.choice((200, 2_000, 256 * 1024)),
        max_inflight_messages=rng.choice((1, 2, 4, 16)),
        max_inflight_bytes=rng.choice((500, 1024 * 1024)),
        max_uncommitted_entries=rng.choice((20, 200, 2_000)),
        max_uncommitted_bytes=rng.choice((10_000, 64 * 1024 * 1024)),
        snapshot_interval_entries=interval,
        snapshot_interval_bytes=rng.choice((20_000, 64 * 1024 * 1024)),
        snapshot_trailing_entries=rng.choice((0, 10, 100)),
        snapshot_trailing_bytes=rng.choice((1_000, 16 * 1024 * 1024)),
        snapshot_spared_entries=rng.choice((1, 50, 10_000)),
        snapshot_hold_ms=rng.choice((50, 5_000)),
        catch_up_rounds_max=rng.choice((2, 10)),
        catch_up_silence_ms=rng.choice((300, 2_000)),
    )
