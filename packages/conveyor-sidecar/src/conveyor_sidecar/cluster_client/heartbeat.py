"""What a heartbeat says: counters, load, dead letters. It never enters the routers' log.

Counters are cumulative since this boot, so a lost heartbeat loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from conveyor_grpc.wire import sidecar_pb2 as wire
from conveyor_sidecar.cluster_client.registration import SidecarIdentity
from conveyor_sidecar.core.statistics import EngineStatistics, StageCounters

_STAGES_MAX = 1_024


def heartbeat_request(
    identity: SidecarIdentity,
    *,
    revision_applied: int,
    statistics: EngineStatistics | None,
    records_max: int,
    dead_letters: Iterable[tuple[str, int, int]],
    last_errors: Mapping[tuple[str, str], str],
) -> wire.SidecarHeartbeatRequest:
    """A heartbeat of this moment.

    Args:
        identity: Who speaks.
        revision_applied: Of the table in force.
        statistics: The engine's, where there is one.
        records_max: What the engine may hold; load is measured against it.
        dead_letters: Pipeline, records and bytes held.
        last_errors: For each (pipeline, stage) the reason of its latest failure.
    """
    request = wire.SidecarHeartbeatRequest(
        sidecar_id=identity.sidecar_id,
        boot_id=identity.boot_id,
        revision_applied=revision_applied,
        dead_letters=[
            wire.DeadLetterCount(pipeline=pipeline, records=records, bytes=size)
            for pipeline, records, size in dead_letters
        ],
    )
    if statistics is not None:
        request.load = min(1.0, statistics.records / max(1, records_max))
        for (pipeline, stage), counters in list(statistics.stages.items())[:_STAGES_MAX]:
            reported = _stage(pipeline, stage, counters)
            held = statistics.open.get((pipeline, stage))
            if held is not None:
                reported.open_records, reported.open_bytes = held.records, held.bytes
                if held.since_ms is not None:
                    reported.oldest_open_ms = max(0, statistics.now_ms - held.since_ms)
            reported.last_error = last_errors.get((pipeline, stage), "")[:256]
            request.stages.append(reported)
    return request


def _stage(pipeline: str, stage: str, counters: StageCounters) -> wire.StageCounters:
    return wire.StageCounters(
        pipeline=pipeline,
        stage=stage,
        records_in=counters.read + counters.received,
        records_out=counters.written + counters.emitted,
        filtered=counters.filtered,
        dead_lettered=counters.dead,
        retried=counters.retried,
        dropped=counters.unrouted,
        duplicates=counters.duplicates,
        credit_wait_ms=counters.credit_wait_ms,
    )
