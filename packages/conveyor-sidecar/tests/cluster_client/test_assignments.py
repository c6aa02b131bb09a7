"""The reducer: tables and hints in any order lead to the right next step."""

from __future__ import annotations

from conveyor_grpc.wire import sidecar_pb2 as wire
from conveyor_grpc.wire import table_pb2
from conveyor_sidecar.cluster_client import Assignments, Register, Rewatch, SwapTable


def update(revision: int, *, boot: str = "b1", registered: bool = True, table: bool = True):
    message = wire.TableUpdate(revision=revision, registered=registered)
    if table:
        message.table.CopyFrom(
            table_pb2.SidecarTable(revision=revision, sidecar_id="me", boot_id=boot)
        )
    return message


def test_a_newer_table_is_taken_and_an_older_one_is_not() -> None:
    """Revisions in force never go back, whatever router speaks."""
    known = Assignments("me", "b1")
    (action,) = known.on_update(update(5))
    assert isinstance(action, SwapTable)
    assert known.on_update(update(4)) == []
    assert known.revision_applied == 5
    assert known.on_update(update(9, table=False)) == []
    assert known.revision_applied == 9


def test_a_table_for_an_earlier_boot_is_not_ours() -> None:
    """After a restart, the table of the last life may still come: it is left alone."""
    known = Assignments("me", "b2")
    assert known.on_update(update(5, boot="b1")) == []
    assert not known.has_table
    assert known.revision_applied == 0


def test_unknown_to_the_routers_means_register_unless_the_news_is_old() -> None:
    """A lagging router that has not seen our registration yet does not cause another one."""
    known = Assignments("me", "b1")
    known.on_registered(7)
    assert known.on_update(update(6, registered=False, table=False)) == []
    (action,) = known.on_update(update(8, registered=False, table=False))
    assert isinstance(action, Register)


def test_commands_of_heartbeats() -> None:
    """Register again, or watch anew from nothing."""
    known = Assignments("me", "b1")
    response = wire.SidecarHeartbeatResponse(revision=0)
    response.commands.add().re_register.reason = "new leader"
    response.commands.add().resync.reason = "ahead"
    response.commands.add().drain.reason = "operator"
    assert known.on_heartbeat(response) == [Register("new leader"), Rewatch("ahead", forget=True)]


def test_a_lagging_router_is_left_after_three_heartbeats() -> None:
    """One heartbeat ahead of the stream is normal; three in a row are not."""
    known = Assignments("me", "b1")
    known.on_update(update(5))
    ahead = wire.SidecarHeartbeatResponse(revision=9)
    assert known.on_heartbeat(ahead) == []
    assert known.on_heartbeat(ahead) == []
    (action,) = known.on_heartbeat(ahead)
    assert isinstance(action, Rewatch)
    assert not action.forget
    known.on_update(update(9, table=False))
    assert known.on_heartbeat(ahead) == []
