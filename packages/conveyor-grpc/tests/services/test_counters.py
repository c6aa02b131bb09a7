"""What heartbeats say of stages, in the leader's memory."""

import pytest

from conveyor_grpc.services import counters
from conveyor_grpc.services.counters import CountersBook
from conveyor_grpc.wire.sidecar_pb2 import SidecarHeartbeatRequest, StageCounters


def beat(sidecar: str, boot: str, **counts: int) -> SidecarHeartbeatRequest:
    stage = StageCounters(pipeline="default/p", stage="s", **counts)
    return SidecarHeartbeatRequest(sidecar_id=sidecar, boot_id=boot, stages=[stage])


def test_totals_add_sidecars_and_replace_repeated_reports() -> None:
    """Counters are cumulative, so the newest report of a boot stands for all earlier ones."""
    book = CountersBook()
    book.take(beat("a", "1", records_in=10, open_records=3), 0)
    book.take(beat("a", "1", records_in=25, open_records=2), 0)
    book.take(beat("b", "1", records_in=5, open_records=1), 0)
    total = book.total("default/p", "s")
    assert (total.records_in, total.open_records) == (30, 3)


def test_a_new_boot_keeps_what_was_counted_and_drops_what_was_open() -> None:
    """Totals never fall while a router leads; what a dead process held is not open any more."""
    book = CountersBook()
    book.take(beat("a", "1", records_in=25, open_records=2), 0)
    book.take(beat("a", "2", records_in=4, open_records=1), 0)
    total = book.total("default/p", "s")
    assert (total.records_in, total.open_records) == (29, 1)
    counted = book.at("a", "default/p", "s")
    assert counted is not None
    assert counted.records_in == 4


def test_a_sidecar_that_is_gone_leaves_its_counts() -> None:
    """Expired sidecars are folded, deleted pipelines forgotten."""
    book = CountersBook()
    book.take(beat("a", "1", records_in=25), 0)
    book.keep_only([], ["default/p"])
    assert book.report("a") is None
    assert book.total("default/p", "s").records_in == 25
    book.keep_only([], [])
    assert book.total("default/p", "s").records_in == 0


def test_what_is_open_is_told_by_pipeline() -> None:
    """A sidecar that is loaded and names no stage counts as holding records of every pipeline."""
    book = CountersBook()
    book.take(beat("a", "1", open_records=3), 0)
    report = book.report("a")
    assert report is not None
    assert (report.open_of("default/p"), report.open_of("default/other")) == (3, 0)
    book.take(SidecarHeartbeatRequest(sidecar_id="a", boot_id="1", load=0.1), 0)
    assert report.open_of("default/other") == 1
    book.take(SidecarHeartbeatRequest(sidecar_id="a", boot_id="1"), 0)
    assert report.open_of("default/p") == 0


def test_a_new_leader_begins_at_zero_and_says_since_when() -> None:
    """Counters belong to a leader's time."""
    book = CountersBook()
    book.take(beat("a", "1", records_in=25), 0)
    book.restart(1_000)
    assert (book.total("default/p", "s").records_in, book.since_ms) == (0, 1_000)


def test_reports_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar that invents stages cannot fill the leader's memory."""
    monkeypatch.setattr(counters, "REPORTS_MAX", 2)
    book = CountersBook()
    stages = [StageCounters(pipeline="p", stage=str(n), records_in=1) for n in range(5)]
    book.take(SidecarHeartbeatRequest(sidecar_id="a", boot_id="1", stages=stages), 0)
    assert [book.total("p", str(n)).records_in for n in range(5)] == [1, 1, 0, 0, 0]
    book.take(SidecarHeartbeatRequest(sidecar_id="a", boot_id="2", stages=stages[3:]), 0)
    assert book.total("p", "3").records_in == 1


def test_rates_are_taken_between_heartbeats_of_one_boot() -> None:
    """Heartbeats in quick succession, a first report and a long silence do not distort them."""
    book = CountersBook()
    book.take(beat("a", "1", records_in=1_000_000), 10_000)
    assert book.rate("default/p", "s", 10_000) is None
    book.take(beat("a", "1", records_in=1_000_050), 10_100)
    assert book.rate("default/p", "s", 10_100) is None
    book.take(beat("a", "1", records_in=1_000_500), 15_000)
    assert book.rate("default/p", "s", 15_000) == 100.0
    book.take(beat("b", "1", records_in=0), 15_000)
    book.take(beat("b", "1", records_in=50), 20_000)
    assert book.rate("default/p", "s", 20_000) == 110.0
    assert book.rate("default/p", "s", 50_000) == 10.0
    book.take(beat("b", "2", records_in=70), 25_000)
    assert book.rate("default/p", "s", 50_001) is None
