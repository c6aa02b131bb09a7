"""Transforms and sinks, called with real requests: results, failures, metadata, limits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from conveyor_sdk import Busy, Partial, Record, Reject, Retry, sink, transform
from conveyor_sdk.calls import MalformedCall, run_unwaiting
from conveyor_sdk.wire import record_pb2, sink_pb2, transform_pb2

RETRY = record_pb2.FAILURE_KIND_RETRY
REJECT = record_pb2.FAILURE_KIND_REJECT
BUSY = record_pb2.FAILURE_KIND_BUSY


def request(kind, payloads, **call):
    records = [
        p if isinstance(p, record_pb2.Record) else record_pb2.Record(payload=p) for p in payloads
    ]
    lineage = b"".join(bytes([i % 256]) * 16 for i in range(len(records)))
    return kind(call=record_pb2.Call(**call), records=records, lineage=lineage, batch_id=5)


async def process(service, payloads, **call):
    data = await service.answer(request(transform_pb2.TransformRequest, payloads, **call))
    return transform_pb2.TransformResponse.FromString(data)


async def write(service, payloads, **call):
    data = await service.answer(request(sink_pb2.SinkRequest, payloads, **call))
    return sink_pb2.SinkResponse.FromString(data)


def payloads(answer):
    return [record.payload for record in answer.records]


def failed(answer):
    return [(f.index, f.kind, f.reason) for f in answer.failures]


def numbers(*values):
    return [str(value).encode() for value in values]


@pytest.mark.asyncio
async def test_plain_async_and_generators_answer_alike():
    """None filters, one value is one output, a generator gives any number; parents say whose."""

    @transform(name="plain")
    def plain(value):
        return value + 1 if value % 2 else None

    @transform(name="awaited")
    async def awaited(value):
        return value + 1 if value % 2 else None

    @transform(name="generated")
    def generated(value):
        yield from range(value)

    @transform(name="streamed")
    async def streamed(value):
        for number in range(value):
            yield number

    for service in (plain, awaited):
        answer = await process(service, numbers(1, 2, 3))
        assert (payloads(answer), list(answer.parents)) == ([b"2", b"4"], [0, 2])
        assert (answer.batch_id, list(answer.failures), list(answer.routes)) == (5, [], [])
    for service in (generated, streamed):
        answer = await process(service, numbers(2, 0, 1))
        assert (payloads(answer), list(answer.parents)) == ([b"0", b"1", b"0"], [0, 0, 2])


@pytest.mark.asyncio
async def test_a_plain_result_keeps_the_metadata_and_a_record_says_its_own():
    """Key, type, headers and event time pass through a transform that does not speak of them."""
    given = record_pb2.Record(payload=b"1", key=b"k", type="t", headers={"h": "v"})
    given.event_time.seconds = 77

    kept = await process(transform(name="kept")(lambda value: value + 1), [given])
    expected = record_pb2.Record()
    expected.CopyFrom(given)
    expected.payload = b"2"
    assert list(kept.records) == [expected]

    @transform(name="own")
    def own(record: Record[int]):
        yield Record(record.value, key=record.key + b"2", type="u", headers={}).to("errors")
        yield record.value

    answer = await process(own, [given])
    assert [(r.key, r.type, dict(r.headers)) for r in answer.records] == [
        (b"k2", "u", {}),
        (b"k", "t", {"h": "v"}),
    ]
    assert list(answer.routes) == ["errors", ""]


@pytest.mark.asyncio
async def test_exceptions_are_answers_for_their_record_alone():
    """Retry, Reject and Busy map to their kinds; anything else is a retry with its stack trace."""

    @transform(name="picky")
    def picky(value):
        match value:
            case 0:
                raise Retry("later", after=1.5)
            case 1:
                raise Reject("bad")
            case 2:
                raise Busy("slow", after=2)
            case 3:
                raise KeyError("lost")
            case 4:
                raise SystemExit(3)
        return value

    answer = await process(picky, numbers(0, 1, 2, 3, 4, 5))
    assert payloads(answer) == [b"5"]
    assert failed(answer) == [
        (0, RETRY, "later"),
        (1, REJECT, "bad"),
        (2, BUSY, "slow"),
        (3, RETRY, "KeyError: 'lost'"),
        (4, RETRY, "SystemExit: 3"),
    ]
    assert answer.failures[0].retry_after.ToTimedelta().total_seconds() == 1.5
    assert "test_calls.py" in answer.failures[3].detail
    assert not answer.failures[1].detail
    with pytest.raises(ValueError, match="seconds to wait"):
        Retry(after=-1)


@pytest.mark.asyncio
async def test_a_failed_generator_sends_none_of_its_outputs():
    """All outputs of an input or none: half of them would be lost when it is tried again."""

    @transform(name="halfway")
    def halfway(value):
        yield value
        if value == 1:
            raise ValueError("halfway")
        yield value

    answer = await process(halfway, numbers(0, 1, 2))
    assert (payloads(answer), list(answer.parents)) == ([b"0", b"0", b"2", b"2"], [0, 0, 2, 2])
    assert failed(answer) == [(1, RETRY, "ValueError: halfway")]


@pytest.mark.asyncio
async def test_payloads_that_cannot_be_read_are_rejected_and_the_rest_goes_on():
    """The handler never sees them, alone or in a batch."""

    @dataclass
    class Order:
        quantity: int

    def single(order: Order):
        return order.quantity

    def batch(orders: list[Order]):
        return [order.quantity for order in orders]

    single.__annotations__["order"] = Order
    batch.__annotations__["orders"] = list[Order]
    given = [b'{"quantity":1}', b"garbage", b'{"colour":1}', b'{"quantity":2}']
    for service in (transform(single), transform(batch)):
        answer = await process(service, given)
        assert (payloads(answer), list(answer.parents)) == ([b"1", b"2"], [0, 3])
        assert [f.kind for f in answer.failures] == [REJECT, REJECT]
        assert [f.index for f in answer.failures] == [1, 2]
    nothing = await process(transform(name="n")(batch), [b"garbage"])
    assert [f.kind for f in nothing.failures] == [REJECT]


@pytest.mark.asyncio
async def test_a_batched_transform_answers_by_place():
    """None filters, an exception fails its own record."""

    @transform
    async def sorted_out(values: list[int]):
        return [None if v == 0 else Reject("one") if v == 1 else v for v in values]

    answer = await process(sorted_out, numbers(0, 1, 2))
    assert (payloads(answer), list(answer.parents)) == ([b"2"], [2])
    assert failed(answer) == [(1, REJECT, "one")]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ([1], "ValueError: a batched transform got 2 records and returned 1 entries"),
        (None, "TypeError: a batched transform returns a list"),
        (Partial({0: Reject("x")}), "its batch raised Partial"),
        (RuntimeError("all"), "RuntimeError: all"),
    ],
)
@pytest.mark.asyncio
async def test_a_batch_that_went_wrong_loses_nothing(result, reason):
    """Whatever the handler did, each record is answered with an output or a failure."""

    @transform
    def wrong(values: list):
        if isinstance(result, Exception):
            raise result
        return result

    answer = await process(wrong, numbers(1, 2))
    assert payloads(answer) == []
    assert [f.index for f in answer.failures] == [0, 1]
    assert reason in answer.failures[1].reason


@pytest.mark.asyncio
async def test_outputs_that_are_no_records_fail_their_input():
    """A set cannot travel, nor can a record above the limit."""

    @transform(name="odd")
    def odd(value):
        return {1} if value == 0 else b"x" * (4 * 2**20) if value == 1 else value

    answer = await process(odd, numbers(0, 1, 2))
    assert payloads(answer) == [b"2"]
    assert [f.kind for f in answer.failures] == [RETRY, REJECT]
    assert "cannot become JSON" in answer.failures[0].reason
    assert "the limit is 4128768" in answer.failures[1].reason


@pytest.mark.asyncio
async def test_an_answer_has_a_bound():
    """Outputs beyond it are asked for again; an input that alone exceeds it is a dead letter."""

    @transform(name="exploding")
    def exploding(value):
        for _ in range(value):
            yield bytes(2**20)

    answer = await process(exploding, numbers(8, 8, 1))
    assert list(answer.parents) == [0] * 8
    assert [(f.index, f.kind) for f in answer.failures] == [(1, BUSY), (2, BUSY)]
    alone = await process(exploding, numbers(13))
    assert [(f.index, f.kind) for f in alone.failures] == [(0, REJECT)]

    @transform(name="batched")
    def batched(values: list[int]):
        return [bytes(3 * 2**20) for _ in values]

    answer = await process(batched, numbers(1, 1, 1, 1, 1))
    assert list(answer.parents) == [0, 1, 2]
    assert [(f.index, f.kind) for f in answer.failures] == [(3, BUSY), (4, BUSY)]


@pytest.mark.asyncio
async def test_details_share_a_bound():
    """A thousand stack traces do not make a message that cannot be sent."""

    @transform(name="broken")
    def broken(value):
        raise ValueError("x" * 100_000 + "\ud800")

    answer = await process(broken, numbers(*range(1000)))
    assert len(answer.failures) == 1000
    assert sum(len(f.detail) for f in answer.failures) <= 64_000
    assert all(len(f.reason) <= 500 for f in answer.failures)


@pytest.mark.asyncio
async def test_context_tells_what_the_call_carries():
    """Config, attempt, stage and lineage reach a handler that asks for them."""
    seen = []

    @transform(name="nosy")
    def nosy(value, ctx):
        seen.append((ctx.lineage, ctx.attempt, ctx.config, ctx.stage, ctx.pipeline, ctx.sidecar))
        return value

    call = {"stage": "s", "pipeline": "p", "sidecar": "c", "attempt": 3, "config": {"a": "b"}}
    await process(nosy, numbers(1, 2), **call)
    assert seen == [(bytes([i]) * 16, 3, {"a": "b"}, "s", "p", "c") for i in (0, 1)]

    @sink(name="both")
    def both(values: list, ctx):
        seen.append(ctx.lineages)
        with pytest.raises(AttributeError, match=r"use ctx.lineages"):
            ctx.lineage.hex()
        ctx.log.info("hello")

    assert not (await write(both, [b"1", b"bad", b"3"])).failures[1:]
    assert seen[-1] == [b"\x00" * 16, b"\x02" * 16]


@pytest.mark.asyncio
async def test_a_lineage_that_does_not_fit_is_the_callers_mistake():
    """The call is refused as a whole; without lineage the handler gets none."""
    service = transform(name="x")(lambda value, ctx: ctx.lineage.hex() or "none")
    wrong = transform_pb2.TransformRequest(
        records=[record_pb2.Record(payload=b"1")], lineage=b"short"
    )
    with pytest.raises(MalformedCall, match="5 bytes; 1 records need 16"):
        await service.answer(wrong)
    wrong.lineage = b""
    answer = transform_pb2.TransformResponse.FromString(await service.answer(wrong))
    assert payloads(answer) == [b"none"]


@pytest.mark.asyncio
async def test_sinks_report_what_was_not_written():
    """Single, async and batched sinks answer for each record."""
    written = []

    @sink(name="single")
    def single(value):
        if value == 1:
            raise Reject("one")
        written.append(value)

    @sink(name="awaited")
    async def awaited(value):
        if value == 1:
            raise Retry("one")
        written.append(value)

    @sink(name="batched")
    def batched(values: list[int]):
        written.extend(values)
        raise Partial({1: Reject("dup"), 2: ValueError("odd")})

    assert failed(await write(single, numbers(0, 1, 2))) == [(1, REJECT, "one")]
    assert failed(await write(awaited, numbers(0, 1, 2))) == [(1, RETRY, "one")]
    assert written == [0, 2, 0, 2]
    answer = await write(batched, [b"bad", *numbers(1, 2, 3)])
    assert [(f.index, f.kind) for f in answer.failures] == [(0, REJECT), (2, REJECT), (3, RETRY)]
    assert answer.batch_id == 5


@pytest.mark.asyncio
async def test_a_sink_that_only_seems_to_write_fails():
    """A coroutine that nobody awaits, or a wild place in Partial, must not count as written."""

    async def inner():
        pass

    started = []

    @sink(name="forgot")
    def forgot(value):
        started.append(inner())
        return started[-1]

    answer = await write(forgot, numbers(1))
    assert [f.kind for f in answer.failures] == [RETRY]
    assert "nobody runs" in answer.failures[0].reason
    started[0].close()

    @sink(name="wild")
    def wild(values: list):
        raise Partial({7: Reject("x")})

    answer = await write(wild, numbers(1, 2))
    assert [f.kind for f in answer.failures] == [RETRY, RETRY]
    assert "places [7] of a batch of 2" in answer.failures[0].reason


def test_plain_handlers_need_no_event_loop():
    """run_unwaiting drives them in a thread; something that waits is an error, not a hang."""
    service = transform(name="x")(lambda value: value)
    answer = run_unwaiting(service.answer(request(transform_pb2.TransformRequest, [b"1"])))
    assert transform_pb2.TransformResponse.FromString(answer).records[0].payload == b"1"

    class Waits:
        def __await__(self):
            yield

    async def waits():
        await Waits()

    with pytest.raises(RuntimeError, match="waited"):
        run_unwaiting(waits())
