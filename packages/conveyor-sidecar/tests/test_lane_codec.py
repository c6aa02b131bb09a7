"""Bundles survive the wire, and nothing that is no bundle gets through."""

from __future__ import annotations

import pytest

from conveyor_sdk.carrier import Origin, from_records, record_field
from conveyor_sdk.carrier.frame import write_u32
from conveyor_sdk.wire import frame_pb2 as wire
from conveyor_sdk.wire import record_pb2
from conveyor_sidecar import lane_codec
from conveyor_sidecar.core import messages as core
from conveyor_sidecar.errors import ProtocolError

ORIGIN = Origin("default/p", "numbers", "a", term=3)


def frame(lane: int = 4, sequence: int = 7):
    record = record_field(record_pb2.Record(payload=b"x").SerializeToString())
    made = from_records(record * 2, write_u32([len(record)] * 2), ORIGIN, [5, 6])
    return made.on_lane(lane, sequence, 3)


FULL = core.LaneMessage(
    hello=core.Hello(
        "a",
        "boot-1",
        [
            core.LaneOpen(
                lane=4,
                pipeline="default/p",
                pipeline_version=2,
                edge="x>y",
                producer=core.StageInstance("x", 0, 3),
                consumer=core.StageInstance("y", 1, 9),
                first_open_sequence=1,
                next_sequence=8,
            )
        ],
    ),
    hello_ack=core.HelloAck(
        "b",
        "boot-2",
        [
            core.LaneAccept(
                lane=4,
                status=core.LaneStatus.OPEN,
                next_sequence=3,
                done=core.Done(4, 2, [(4, 5)]),
                credit=core.LaneCredit(4, 10, 1000),
            ),
            core.LaneAccept(lane=5, status=core.LaneStatus.FENCED, newer_term=12),
            core.LaneAccept(lane=6, status=core.LaneStatus.NOT_MINE, table_revision=44),
            core.LaneAccept(lane=7, status=core.LaneStatus.BUSY, retry_after_ms=250),
        ],
    ),
    fenced=[core.Fenced(1, 2)],
    credits=[core.LaneCredit(1, 2, 3)],
    done=[core.Done(1, 2, [(5, 6), (8, 8)])],
    stable=[core.StableMark(ORIGIN, 99)],
    data=[frame()],
    ends=[core.End(1, 9, "over")],
)


def test_a_full_bundle_survives_the_wire() -> None:
    """Every part of a bundle comes out as it went in."""
    assert lane_codec.decode(lane_codec.encode(FULL)) == FULL


def test_bundles_joined_are_their_sum() -> None:
    """What waits in an outbox may leave as one message: joined bytes are merged bundles."""
    first = core.LaneMessage(credits=[core.LaneCredit(1, 2, 3)], data=[frame(sequence=1)])
    second = core.LaneMessage(done=[core.Done(1, 2)], data=[frame(sequence=2)])
    joined = lane_codec.decode(lane_codec.encode(first) + lane_codec.encode(second))
    assert [item.sequence for item in joined.data] == [1, 2]
    assert (len(joined.credits), len(joined.done)) == (1, 1)
    assert not lane_codec.stands_alone(first)
    assert lane_codec.stands_alone(FULL)


def test_a_sidecar_without_a_table_can_say_not_mine() -> None:
    """Revision -1, no table yet, is 0 on the wire."""
    ack = core.HelloAck("b", "1", [core.LaneAccept(1, core.LaneStatus.NOT_MINE, table_revision=-1)])
    decoded = lane_codec.decode(lane_codec.encode(core.LaneMessage(hello_ack=ack)))
    assert decoded.hello_ack is not None
    assert decoded.hello_ack.lanes[0].table_revision == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff", "cannot be parsed"),
        (
            wire.LaneMessage(data=[wire.Data(lane=1, count=3)]).SerializeToString(),
            "malformed",
        ),
        (
            wire.LaneMessage(
                hello=wire.Hello(protocol=9, protocol_min=9, sidecar="new")
            ).SerializeToString(),
            "speaks lane protocol 9",
        ),
        (
            wire.LaneMessage(hello_ack=wire.HelloAck(protocol=7)).SerializeToString(),
            "chose lane protocol 7",
        ),
        (
            wire.LaneMessage(
                hello_ack=wire.HelloAck(protocol=1, lanes=[wire.LaneAccept(lane=3)])
            ).SerializeToString(),
            "unknown status",
        ),
        (
            wire.LaneMessage(done=[wire.Done(lane=1, ranges=[5, 4])]).SerializeToString(),
            "no ranges",
        ),
        (
            wire.LaneMessage(stable=[wire.StableMark(origin=b"\xff")]).SerializeToString(),
            "stable mark is malformed",
        ),
    ],
)
def test_what_is_no_bundle_is_refused_as_a_whole(data: bytes, reason: str) -> None:
    """A broken or foreign peer costs its stream, with a sentence."""
    with pytest.raises(ProtocolError, match=reason):
        lane_codec.decode(data)
