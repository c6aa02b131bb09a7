"""What the sidecars' heartbeats say of stages, in the leader's memory.

Counters are cumulative since a sidecar's boot and never enter the log. The last report of each
boot is kept; when a sidecar comes back with another boot, what it had counted before is folded
into the past of its stages, so the total of a stage only grows while this router leads. A new
leader begins with what the next heartbeats bring and says so (`since_ms`). Rates are taken here
too, between two heartbeats of one boot, because only here is it known when a count was reported.
All of it is bounded by sidecars times stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from conveyor_grpc.wire.sidecar_pb2 import DeadLetterCount, SidecarHeartbeatRequest, StageCounters

REPORTS_MAX = 100_000
"""Stage reports kept in all; above it a heartbeat's counters are ignored (its lease is not)."""

RATE_INTERVAL_MIN_MS = 1_000
"""Heartbeats that follow each other faster are measured together."""

RATE_AGE_MAX_MS = 30_000
"""An older rate says nothing of the present."""

# What counts up; the other fields describe the moment and end with their boot.
_SUMMED = (
    "records_in",
    "records_out",
    "filtered",
    "dead_lettered",
    "retried",
    "dropped",
    "duplicates",
    "bytes_in",
    "bytes_out",
    "credit_wait_ms",
    "calls",
)
_MOMENTARY = ("open_records", "open_bytes")
_StageKey = tuple[str, str]


@dataclass(slots=True)
class SidecarReport:
    """The last heartbeat of one sidecar."""

    boot_id: str
    revision_applied: int = 0
    load: float = 0.0
    dead_letters: Sequence[DeadLetterCount] = ()
    stages: dict[_StageKey, StageCounters] = field(default_factory=dict)
    rates: dict[_StageKey, float] = field(default_factory=dict)
    measured_ms: int | None = None
    _measured: dict[_StageKey, int] = field(default_factory=dict)

    def measure(self, now_ms: int) -> None:
        """Take the rates since the last measurement, if that is long enough ago."""
        passed_ms = RATE_INTERVAL_MIN_MS if self.measured_ms is None else now_ms - self.measured_ms
        if passed_ms < RATE_INTERVAL_MIN_MS:
            return
        counted = {key: counters.records_in for key, counters in self.stages.items()}
        if self.measured_ms is not None:
            self.rates = {
                key: (records - self._measured.get(key, 0)) * 1_000 / passed_ms
                for key, records in counted.items()
            }
        self.measured_ms, self._measured = now_ms, counted

    def open_of(self, pipeline: str) -> int:
        """Return how many records of a pipeline the sidecar holds, as far as it says.

        A sidecar that is loaded without saying by which stage may hold some of any pipeline.
        """
        unexplained = self.load > 0 and not any(one.open_records for one in self.stages.values())
        own = sum(one.open_records for key, one in self.stages.items() if key[0] == pipeline)
        return own or int(unexplained)


class CountersBook:
    """The reports of all sidecars, and the past of the boots that are gone."""

    def __init__(self) -> None:
        self._reports: dict[str, SidecarReport] = {}
        self._past: dict[_StageKey, StageCounters] = {}
        self._held = 0
        self.since_ms = 0

    def restart(self, now_ms: int) -> None:
        """Forget everything: this router begins to lead now."""
        self._reports.clear()
        self._past.clear()
        self._held = 0
        self.since_ms = now_ms

    def take(self, heartbeat: SidecarHeartbeatRequest, now_ms: int) -> None:
        """Take in a heartbeat that came at `now_ms`."""
        report = self._reports.get(heartbeat.sidecar_id)
        if report is None or report.boot_id != heartbeat.boot_id:
            self._fold(report)
            report = self._reports[heartbeat.sidecar_id] = SidecarReport(heartbeat.boot_id)
        report.revision_applied = heartbeat.revision_applied
        report.load = heartbeat.load
        report.dead_letters = tuple(heartbeat.dead_letters)
        named = {(one.pipeline, one.stage): one for one in heartbeat.stages}
        for key, ended in report.stages.items():
            if key not in named:
                # The stage runs here no more: what it counted stays, what was open is not.
                ended.open_records = ended.open_bytes = ended.oldest_open_ms = 0
        for key, counters in named.items():
            if key not in report.stages:
                if self._held >= REPORTS_MAX:
                    continue
                self._held += 1
            report.stages[key] = counters
        report.measure(now_ms)

    def forget(self, sidecar_ids: Iterable[str]) -> None:
        """Fold the reports of sidecars that are gone."""
        for sidecar_id in sidecar_ids:
            self._fold(self._reports.pop(sidecar_id, None))

    def keep_only(self, sidecar_ids: Iterable[str], pipelines: Iterable[str]) -> None:
        """Fold sidecars that are not among `sidecar_ids`; drop the past of other pipelines."""
        known, running = set(sidecar_ids), set(pipelines)
        self.forget([sidecar_id for sidecar_id in self._reports if sidecar_id not in known])
        for key in [key for key in self._past if key[0] not in running]:
            del self._past[key]

    def report(self, sidecar_id: str) -> SidecarReport | None:
        """Return the last heartbeat of a sidecar since this router leads."""
        return self._reports.get(sidecar_id)

    def at(self, sidecar_id: str, pipeline: str, stage: str) -> StageCounters | None:
        """Return what a sidecar counted for a stage since its boot."""
        report = self._reports.get(sidecar_id)
        return None if report is None else report.stages.get((pipeline, stage))

    def total(self, pipeline: str, stage: str) -> StageCounters:
        """Return what a stage counted since `since_ms`, all sidecars and boots together."""
        total = StageCounters(pipeline=pipeline, stage=stage)
        past = self._past.get((pipeline, stage))
        if past is not None:
            _add(total, past, _SUMMED)
        for report in self._reports.values():
            counters = report.stages.get((pipeline, stage))
            if counters is not None:
                _add(total, counters, _SUMMED + _MOMENTARY)
                total.oldest_open_ms = max(total.oldest_open_ms, counters.oldest_open_ms)
                total.last_error = counters.last_error or total.last_error
        return total

    def rate(self, pipeline: str, stage: str, now_ms: int) -> float | None:
        """Return how many records a second go into a stage; None if that is not known yet."""
        rates = [
            report.rates[pipeline, stage]
            for report in self._reports.values()
            if report.measured_ms is not None and now_ms - report.measured_ms <= RATE_AGE_MAX_MS
            if (pipeline, stage) in report.rates
        ]
        return sum(rates) if rates else None

    def _fold(self, report: SidecarReport | None) -> None:
        if report is None:
            return
        for (pipeline, stage), counters in report.stages.items():
            past = self._past.setdefault(
                (pipeline, stage), StageCounters(pipeline=pipeline, stage=stage)
            )
            _add(past, counters, _SUMMED)
        self._held -= len(report.stages)


def _add(total: StageCounters, part: StageCounters, names: Iterable[str]) -> None:
    for name in names:
        setattr(total, name, getattr(total, name) + getattr(part, name))
