"""The one table between exceptions and statuses."""

import grpc
import pytest

from conveyor_grpc import errors
from conveyor_grpc.convert.failures import to_control_error
from conveyor_grpc.wire import errors_pb2
from conveyor_raft import errors as raft
from conveyor_registry import errors as registry
from conveyor_registry.model import DocumentRefused, Problem


def _subclasses(kind: type) -> set[type]:
    return {kind, *(s for sub in kind.__subclasses__() for s in _subclasses(sub))}


def _bare(status: grpc.StatusCode) -> grpc.aio.AioRpcError:
    empty = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(status, empty, empty, "the transport says so")


def _answered(error: errors.ControlError) -> grpc.aio.AioRpcError:
    detail = errors.detail_of(error).SerializeToString()
    trailing = grpc.aio.Metadata((errors.DETAIL_KEY, detail))
    return grpc.aio.AioRpcError(errors.status_of(error), grpc.aio.Metadata(), trailing, "")


def test_every_error_has_exactly_one_row() -> None:
    """The table covers the tree, and codes tell the classes apart."""
    rows = [row.exception for row in errors.TABLE]
    assert set(rows) == _subclasses(errors.ControlError) - {errors.ControlError}
    assert len(rows) == len(set(rows))
    assert len({row.code for row in rows}) == len(rows)


@pytest.mark.parametrize("row", errors.TABLE, ids=lambda row: row.exception.code)
def test_an_error_survives_the_way_to_the_client(row: errors.Row) -> None:
    """Class, message and outcome arrive as they were raised."""
    sent = row.exception("what is wrong")
    received = errors.from_rpc_error(_answered(sent), "router:1")
    assert type(received) is row.exception
    assert received.message == "what is wrong"
    assert received.retry_safe == sent.retry_safe


def test_not_leader_carries_the_way_to_the_leader() -> None:
    """Id, client address, term and members arrive."""
    sent = errors.NotLeaderError(
        "not me", leader_id=2, leader_address="b:2", term=7, member_addresses=["a:1", "b:2"]
    )
    received = errors.from_rpc_error(_answered(sent), "router:1")
    assert isinstance(received, errors.NotLeaderError)
    assert (received.leader_id, received.leader_address, received.term) == (2, "b:2", 7)
    assert received.member_addresses == ("a:1", "b:2")


def test_problems_arrive_and_are_bounded() -> None:
    """Problems travel in the metadata as far as it holds them."""
    one = errors_pb2.Problem(
        document="Pipeline default/p", path="spec.stages[0]", message="m" * 100
    )
    received = errors.from_rpc_error(
        _answered(errors.InvalidRequestError("bad", problems=[one] * 1000)), "router:1"
    )
    assert isinstance(received, errors.InvalidRequestError)
    assert received.problems[0] == one
    assert 10 < len(received.problems) < 100


def test_a_long_message_is_cut_rather_than_lost() -> None:
    """Metadata has a limit; the call must still answer."""
    assert len(errors.detail_of(errors.RefusedError("x" * 100_000)).message) == 2048


@pytest.mark.parametrize(
    ("status", "kind", "retry_safe"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.UnknownOutcomeError, False),
        (grpc.StatusCode.CANCELLED, errors.UnknownOutcomeError, False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineError, False),
        (grpc.StatusCode.UNIMPLEMENTED, errors.UnreachableError, True),
    ],
)
def test_an_answer_without_detail_comes_from_the_transport(
    status: grpc.StatusCode, kind: type[errors.ControlError], retry_safe: bool
) -> None:
    """Nobody says that nothing was done, so the outcome is unknown."""
    received = errors.from_rpc_error(_bare(status), "router:1")
    assert type(received) is kind
    assert received.retry_safe is retry_safe
    assert "router:1" in received.message


def test_a_garbled_detail_counts_as_none() -> None:
    """A proxy that mangles metadata does not break the client."""
    trailing = grpc.aio.Metadata((errors.DETAIL_KEY, b"\xff\xff"))
    garbled = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailing, "gone"
    )
    assert type(errors.from_rpc_error(garbled, "r:1")) is errors.UnknownOutcomeError


@pytest.mark.parametrize(
    ("raised", "kind", "retry_safe"),
    [
        (raft.NotLeader(2, "raft:2", "client:2", 3), errors.NotLeaderError, True),
        (raft.Busy("full"), errors.BusyError, True),
        (raft.PayloadTooLarge(10, 5), errors.TooLargeError, True),
        (raft.NotReady("starting"), errors.NotReadyError, True),
        (raft.ShuttingDown("stopping"), errors.NotReadyError, True),
        (raft.NodeStopped("disk full"), errors.NotReadyError, False),
        (raft.UnknownOutcome("leader changed"), errors.UnknownOutcomeError, False),
        (raft.CommandRejected("unknown", "no such"), errors.NotFoundError, True),
        (raft.CommandRejected("conflict", "changed"), errors.ConflictError, True),
        (raft.CommandRejected("outdated", "newer boot"), errors.FencedError, True),
        (raft.CommandRejected("taken", "somebody's"), errors.RefusedError, True),
        (registry.NotRegistered("service", "x"), errors.NotFoundError, True),
        (registry.InvalidRegistration("too long"), errors.InvalidRequestError, True),
        (registry.Contended("again"), errors.BusyError, True),
        (registry.WatchOverflow(3), errors.FellBehindError, True),
        (registry.TooManyWatchers("1000"), errors.BusyError, True),
        (DocumentRefused([Problem.error(("spec",), "bad")]), errors.InvalidRequestError, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_exceptions_of_lower_packages_have_their_place(
    raised: Exception, kind: type[errors.ControlError], retry_safe: bool
) -> None:
    """Each foreign exception becomes one of the table's, with the right outcome."""
    translated = to_control_error(raised)
    assert type(translated) is kind
    assert translated.retry_safe is retry_safe


def test_the_address_of_the_leader_comes_along() -> None:
    """Raft's not-leader error names where clients are to go."""
    translated = to_control_error(raft.NotLeader(2, "raft:2", "client:2", 3))
    assert isinstance(translated, errors.NotLeaderError)
    assert translated.leader_address == "client:2"


def test_what_nobody_foresaw_stays_unknown() -> None:
    """The interceptor logs these; they are not disguised."""
    assert to_control_error(KeyError("x")) is None
