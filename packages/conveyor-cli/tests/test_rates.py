from google.protobuf.timestamp_pb2 import Timestamp

from conveyor_cli.cluster_view import ClusterView, Rates, rendered, structured
from conveyor_cli.output import print_renderable
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.sidecar_pb2 import StageCounters


def looked(at: float, records: int, since: int = 900) -> ClusterView:
    stage = wire.StageStatus(
        stage="enrich",
        kind="Transform",
        total=StageCounters(records_in=records, last_error="\x1bx"),
    )
    status = wire.PipelineStatusResponse(
        pipeline="default/p", stages=[stage], counters_since=Timestamp(seconds=since)
    )
    return ClusterView(wire.ClusterStatusResponse(), [], [status], [], "", at)


def rate(rates: Rates, view: ClusterView) -> float | None:
    rates.take(view)
    status = view.pipelines[0]
    return rates.of(status, status.stages[0], view.taken_at)


def test_one_look_gives_the_average() -> None:
    """Over all that the leader counted."""
    assert rate(Rates(), looked(1_000, 500)) == 5.0
    assert rate(Rates(), looked(1_000, 500, since=0)) is None


def test_watching_gives_the_rate_of_the_last_seconds() -> None:
    """The window moves; what was long ago does not count."""
    rates = Rates()
    rate(rates, looked(1_000, 0))
    assert rate(rates, looked(1_010, 100)) == 10.0
    rate(rates, looked(1_020, 100))
    assert rate(rates, looked(1_024, 100)) == 0.0


def test_counters_that_begin_anew_begin_the_window_anew() -> None:
    """A new leader counts from zero, and its first look gives the average since then."""
    rates = Rates()
    rate(rates, looked(1_000, 500))
    assert rate(rates, looked(1_001, 30, since=995)) == 5.0
    assert rate(rates, looked(1_002, 40, since=995)) == 10.0


def test_a_view_without_leader_says_so(capsys: object) -> None:
    """And control characters of others do not reach the terminal."""
    view = looked(1_000, 500)
    print_renderable(rendered(view, Rates()))
    text = capsys.readouterr().out  # type: ignore[attr-defined]
    assert "no leader" in text
    assert "no router leads" in text
    assert "\\x1bx" in text
    assert structured(view, Rates())["trouble"] == "no router leads"
