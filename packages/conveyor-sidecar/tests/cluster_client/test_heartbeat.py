"""What a heartbeat says of the engine."""

from __future__ import annotations

from conveyor_sidecar.cluster_client import SidecarIdentity, heartbeat_request
from conveyor_sidecar.core.statistics import EngineStatistics, OpenRecords, StageCounters


def test_a_stage_reports_counters_and_what_is_open() -> None:
    """Totals since the boot, and the moment: records, bytes, age of the oldest."""
    statistics = EngineStatistics(
        now_ms=5_000,
        records=50,
        stages={
            ("default/p", "work"): StageCounters(received=9, emitted=7, credit_wait_ms=12),
            ("default/p", "idle"): StageCounters(),
        },
        open={
            ("default/p", "work"): OpenRecords(2, 30, 1_000),
            ("default/p", "idle"): OpenRecords(),
        },
    )
    beat = heartbeat_request(
        SidecarIdentity("pod-a", "7"),
        revision_applied=3,
        statistics=statistics,
        records_max=100,
        dead_letters=[("default/p", 4, 400)],
        last_errors={("default/p", "work"): "x" * 1_000},
    )
    assert beat.load == 0.5
    work, idle = beat.stages
    assert (work.records_in, work.records_out) == (9, 7)
    assert (work.open_records, work.open_bytes, work.oldest_open_ms) == (2, 30, 4_000)
    assert work.credit_wait_ms == 12
    assert len(work.last_error) == 256
    assert (idle.open_records, idle.oldest_open_ms) == (0, 0)
    assert beat.dead_letters[0].records == 4
