"""Between the engine's bundles and the bytes that sidecars exchange.

The engine speaks plain objects (``core/messages.py``); on every carrier a bundle is a serialized
``conveyor.service.v1.LaneMessage``. This is the one place that knows both. What comes from a peer
is not trusted: bytes that are no bundle, a frame whose columns do not fit, an unknown status,
ranges that run backwards, all are refused as a whole, and the stream they came on is given up.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from conveyor_sdk.carrier import Frame, MalformedFrame, Origin, lane_message
from conveyor_sdk.wire import frame_pb2 as wire
from conveyor_sidecar.core import messages as core
from conveyor_sidecar.errors import ProtocolError

PROTOCOL = 1
_LANES_MAX = 4_096

_STATUS = {
    core.LaneStatus.OPEN: wire.LANE_STATUS_OPEN,
    core.LaneStatus.FENCED: wire.LANE_STATUS_FENCED,
    core.LaneStatus.NOT_MINE: wire.LANE_STATUS_NOT_MINE,
    core.LaneStatus.BUSY: wire.LANE_STATUS_BUSY,
}
_STATUS_BACK = {number: status for status, number in _STATUS.items()}


def encode(message: core.LaneMessage) -> bytes:
    """The bytes of a bundle."""
    control = message.hello or message.hello_ack or message.fenced or message.credits
    if control or message.done or message.stable or message.ends:
        return lane_message(_control(message), message.data)
    return lane_message(None, message.data)


def stands_alone(message: core.LaneMessage) -> bool:
    """Whether the bundle must not be joined with its neighbours on the way."""
    return message.hello is not None or message.hello_ack is not None or bool(message.ends)


def decode(data: bytes) -> core.LaneMessage:
    """The bundle in these bytes.

    Raises:
        ProtocolError: they are none; the peer is broken or not ours.
    """
    try:
        parsed = wire.LaneMessage.FromString(data)
        message = core.LaneMessage(data=[Frame.from_wire(item) for item in parsed.data])
    except DecodeError as error:
        raise ProtocolError("a peer's message cannot be parsed as a LaneMessage") from error
    except MalformedFrame as error:
        raise ProtocolError(f"a peer's frame is malformed: {error}") from error
    if parsed.HasField("hello"):
        message.hello = _hello(parsed.hello)
    if parsed.HasField("hello_ack"):
        message.hello_ack = _hello_ack(parsed.hello_ack)
    if parsed.fenced:
        message.fenced = [core.Fenced(item.lane, item.newer_term) for item in parsed.fenced]
    if parsed.credits:
        message.credits = [_credit(item) for item in parsed.credits]
    if parsed.done:
        message.done = [_done(item) for item in parsed.done]
    if parsed.stable:
        try:
            message.stable = [
                core.StableMark(Origin.decode(item.origin), item.below) for item in parsed.stable
            ]
        except MalformedFrame as error:
            raise ProtocolError(f"a peer's stable mark is malformed: {error}") from error
    if parsed.ends:
        message.ends = [core.End(e.lane, e.last_sequence, e.reason) for e in parsed.ends]
    return message


def _control(message: core.LaneMessage) -> wire.LaneMessage:
    """Everything of a bundle but its frames."""
    return wire.LaneMessage(
        hello=None if message.hello is None else _hello_out(message.hello),
        hello_ack=None if message.hello_ack is None else _hello_ack_out(message.hello_ack),
        fenced=[wire.Fenced(lane=f.lane, newer_term=f.newer_term) for f in message.fenced],
        credits=[_credit_out(item) for item in message.credits],
        done=[_done_out(item) for item in message.done],
        stable=[wire.StableMark(origin=s.origin.encode(), below=s.below) for s in message.stable],
        ends=[
            wire.End(lane=e.lane, last_sequence=e.last_sequence, reason=e.reason)
            for e in message.ends
        ],
    )


def _hello_out(hello: core.Hello) -> wire.Hello:
    return wire.Hello(
        protocol=PROTOCOL,
        protocol_min=PROTOCOL,
        sidecar=hello.sidecar,
        boot_id=hello.boot_id,
        lanes=[
            wire.LaneOpen(
                lane=lane.lane,
                pipeline=lane.pipeline,
                pipeline_version=lane.pipeline_version,
                edge=lane.edge,
                producer=_instance_out(lane.producer),
                consumer=_instance_out(lane.consumer),
                first_open_sequence=lane.first_open_sequence,
                next_sequence=lane.next_sequence,
            )
            for lane in hello.lanes
        ],
    )


def _hello(hello: wire.Hello) -> core.Hello:
    if hello.protocol_min > PROTOCOL or hello.protocol < PROTOCOL:
        raise ProtocolError(
            f"sidecar {hello.sidecar!r} speaks lane protocol {hello.protocol_min} to "
            f"{hello.protocol}; this one speaks {PROTOCOL}"
        )
    if len(hello.lanes) > _LANES_MAX:
        raise ProtocolError(f"sidecar {hello.sidecar!r} opens {len(hello.lanes)} lanes at once")
    return core.Hello(
        sidecar=hello.sidecar,
        boot_id=hello.boot_id,
        lanes=[
            core.LaneOpen(
                lane=lane.lane,
                pipeline=lane.pipeline,
                pipeline_version=lane.pipeline_version,
                edge=lane.edge,
                producer=_instance(lane.producer),
                consumer=_instance(lane.consumer),
                first_open_sequence=lane.first_open_sequence,
                next_sequence=lane.next_sequence,
            )
            for lane in hello.lanes
        ],
    )


def _hello_ack_out(ack: core.HelloAck) -> wire.HelloAck:
    answer = wire.HelloAck(protocol=PROTOCOL, sidecar=ack.sidecar, boot_id=ack.boot_id)
    for lane in ack.lanes:
        accept = answer.lanes.add(
            lane=lane.lane,
            status=_STATUS[lane.status],
            next_sequence=lane.next_sequence,
            newer_term=lane.newer_term,
            table_revision=max(0, lane.table_revision),  # -1: no table yet
        )
        if lane.done is not None:
            accept.done.CopyFrom(_done_out(lane.done))
        if lane.credit is not None:
            accept.credit.CopyFrom(_credit_out(lane.credit))
        if lane.retry_after_ms:
            accept.retry_after.FromMilliseconds(lane.retry_after_ms)
    return answer


def _hello_ack(ack: wire.HelloAck) -> core.HelloAck:
    if ack.protocol != PROTOCOL:
        raise ProtocolError(f"sidecar {ack.sidecar!r} chose lane protocol {ack.protocol}")
    return core.HelloAck(
        sidecar=ack.sidecar, boot_id=ack.boot_id, lanes=[_accept(lane) for lane in ack.lanes]
    )


def _accept(lane: wire.LaneAccept) -> core.LaneAccept:
    status = _STATUS_BACK.get(lane.status)
    if status is None:
        raise ProtocolError(f"a peer answers lane {lane.lane} with unknown status {lane.status}")
    return core.LaneAccept(
        lane=lane.lane,
        status=status,
        next_sequence=lane.next_sequence,
        done=_done(lane.done) if lane.HasField("done") else None,
        credit=_credit(lane.credit) if lane.HasField("credit") else None,
        newer_term=lane.newer_term,
        table_revision=lane.table_revision,
        retry_after_ms=lane.retry_after.ToMilliseconds() if lane.HasField("retry_after") else 0,
    )


def _instance_out(instance: core.StageInstance) -> wire.StageInstance:
    return wire.StageInstance(stage=instance.stage, index=instance.index, term=instance.term)


def _instance(instance: wire.StageInstance) -> core.StageInstance:
    return core.StageInstance(instance.stage, instance.index, instance.term)


def _credit_out(credit: core.LaneCredit) -> wire.LaneCredit:
    return wire.LaneCredit(
        lane=credit.lane, records_limit=credit.records_limit, bytes_limit=credit.bytes_limit
    )


def _credit(credit: wire.LaneCredit) -> core.LaneCredit:
    return core.LaneCredit(credit.lane, credit.records_limit, credit.bytes_limit)


def _done_out(done: core.Done) -> wire.Done:
    return wire.Done(
        lane=done.lane, low=done.low, ranges=[edge for pair in done.ranges for edge in pair]
    )


def _done(done: wire.Done) -> core.Done:
    edges = done.ranges[:]
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    if len(edges) % 2 or any(first > last for first, last in pairs):
        raise ProtocolError(f"a peer's done ranges of lane {done.lane} are no ranges")
    return core.Done(done.lane, done.low, pairs)
