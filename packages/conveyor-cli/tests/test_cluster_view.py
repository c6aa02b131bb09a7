"""The view of ``conveyor status``, from answers as routers give them."""

from google.protobuf.timestamp_pb2 import Timestamp

from conveyor_cli.cluster_view import ClusterView, rendered, structured
from conveyor_cli.output import print_renderable
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.sidecar_pb2 import StageCounters


def looked(rate: float | None = None) -> ClusterView:
    stage = wire.StageStatus(
        stage="enrich",
        kind="Transform",
        total=StageCounters(records_in=500, last_error="\x1bx"),
        records_per_second=rate,
    )
    status = wire.PipelineStatusResponse(
        pipeline="default/p", stages=[stage], counters_since=Timestamp(seconds=900)
    )
    return ClusterView(wire.ClusterStatusResponse(), [], [status], [], "", 1_000)


def test_a_rate_is_shown_as_soon_as_it_is_known(capsys: object) -> None:
    """An unknown rate is a dash and null, never a guess; none at all is zero."""
    assert structured(looked())["pipelines"][0]["stages"][0]["records_per_second"] is None
    print_renderable(rendered(looked(rate=1234.5)))
    shown = capsys.readouterr().out  # type: ignore[attr-defined]
    assert "RATE/S" in shown
    assert "1,23" in shown
    assert structured(looked(rate=0.0))["pipelines"][0]["stages"][0]["records_per_second"] == 0.0


def test_a_view_without_leader_says_so(capsys: object) -> None:
    """And control characters of others do not reach the terminal."""
    print_renderable(rendered(looked()))
    text = capsys.readouterr().out  # type: ignore[attr-defined]
    assert "no leader" in text
    assert "no router leads" in text
    assert "\\x1bx" in text
    assert structured(looked())["trouble"] == "no router leads"
