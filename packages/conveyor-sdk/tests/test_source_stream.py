"""A source's stream, driven as a sidecar drives it: credit, resume, revocation, endings."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from conveyor_sdk import Busy, Record, Reject, Retry, source
from conveyor_sdk.context import context_of
from conveyor_sdk.position import OpaquePositions
from conveyor_sdk.source_stream import SourceStream
from conveyor_sdk.wire import record_pb2, source_pb2

PLENTY = 10**9


class Sidecar:
    """The other end of a stream, in process: what it asks, and what it got."""

    def __init__(self, origin, **call):
        self.requests: asyncio.Queue[source_pb2.ReadRequest | None] = asyncio.Queue(100)
        self.answers: asyncio.Queue[source_pb2.ReadResponse] = asyncio.Queue(10_000)
        self.refuse_writes = False
        self._stream = SourceStream(
            origin, context_of(record_pb2.Call(**call)), self._write, asyncio.to_thread
        )

    async def __aenter__(self):
        self.serving = asyncio.create_task(self._stream.run(self._asked()))
        return self

    async def __aexit__(self, *_):
        await self.requests.put(None)
        await asyncio.wait_for(self.serving, 10)

    async def _asked(self):
        while (request := await self.requests.get()) is not None:
            yield request

    async def _write(self, message):
        if self.refuse_writes:
            raise ConnectionError("the sidecar is gone")
        await self.answers.put(message)

    async def open(self, partition="0", resume=b"", from_start=False):
        message = source_pb2.OpenPartition(
            partition=partition, resume=resume, from_start=from_start
        )
        await self.requests.put(source_pb2.ReadRequest(open=message))

    async def grant(self, records=PLENTY, size=PLENTY):
        credit = record_pb2.Credit(records_limit=records, bytes_limit=size)
        await self.requests.put(source_pb2.ReadRequest(credit=credit))

    async def revoke(self, partition="0"):
        message = source_pb2.RevokePartition(partition=partition)
        await self.requests.put(source_pb2.ReadRequest(revoke=message))

    async def answer(self):
        return await asyncio.wait_for(self.answers.get(), 10)

    async def settled(self):
        """Let everything run that can run without new input."""
        for _ in range(100):
            await asyncio.sleep(0)

    async def until_closed(self):
        """Return the batches and the message that ended the partition."""
        batches = []
        while (answer := await self.answer()).WhichOneof("message") == "batch":
            batches.append(answer.batch)
        return batches, answer


def payloads(batches):
    return [record.payload for batch in batches for record in batch.records]


def counter(count, **options):
    async def numbers(resume):
        for number in range(resume or 0, count):
            yield number, number

    return source(name="numbers", bounded=True, stable_offsets=True, **options)(numbers)


@pytest.mark.asyncio
async def test_a_bounded_source_is_read_to_its_end_in_full_batches():
    """All records, in order, 500 to a batch, then Finished."""
    async with Sidecar(counter(1200)) as sidecar:
        await sidecar.open()
        await sidecar.grant()
        batches, last = await sidecar.until_closed()
    assert payloads(batches) == [str(n).encode() for n in range(1200)]
    assert [len(batch.records) for batch in batches] == [500, 500, 200]
    assert [n for batch in batches for n in batch.offsets] == list(range(1200))
    assert not any(batch.positions for batch in batches)
    assert last.finished.partition == "0"


@pytest.mark.asyncio
async def test_nothing_is_sent_without_credit():
    """Records and bytes are both limits; a batch may overshoot the bytes, never the records."""
    async with Sidecar(counter(100)) as sidecar:
        await sidecar.open()
        await sidecar.settled()
        assert sidecar.answers.empty()
        await sidecar.grant(records=30, size=0)
        await sidecar.settled()
        assert sidecar.answers.empty()
        await sidecar.grant(records=30, size=1)
        await sidecar.settled()
        assert len((await sidecar.answer()).batch.records) == 30
        await sidecar.grant(records=10, size=1)  # an older grant that comes late
        await sidecar.settled()
        assert sidecar.answers.empty()
        await sidecar.grant(records=95)
        assert len((await sidecar.answer()).batch.records) == 65
        await sidecar.settled()
        assert sidecar.answers.empty()
        await sidecar.grant(records=PLENTY)
        assert len((await sidecar.answer()).batch.records) == 5
        assert (await sidecar.answer()).HasField("finished")


@pytest.mark.asyncio
async def test_the_generator_runs_ahead_by_one_batch_at_most():
    """A source that never waits does not fill the memory while there is no credit."""
    pulled = 0

    @source
    async def endless(resume):
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled, pulled

    async with Sidecar(endless) as sidecar:
        await sidecar.open()
        await sidecar.settled()
        assert pulled == 500
        await sidecar.grant(records=500)
        await sidecar.settled()
        assert pulled == 1000
        assert len((await sidecar.answer()).batch.records) == 500


@pytest.mark.asyncio
async def test_a_trickle_is_not_held_up():
    """A lone record goes out at once although the batch is not full."""
    more = asyncio.Event()

    @source
    async def slow(resume):
        yield "first", 1
        await more.wait()
        yield "second", 2

    async with Sidecar(slow) as sidecar:
        await sidecar.grant()
        await sidecar.open()
        assert payloads([(await sidecar.answer()).batch]) == [b"first"]
        more.set()
        assert payloads([(await sidecar.answer()).batch]) == [b"second"]


@pytest.mark.asyncio
async def test_a_source_resumes_where_it_is_told():
    """Opaque positions mean after the record, stable offsets the next one; from_start wins."""
    seen = []

    @source(bounded=True)
    async def lines(resume):
        seen.append(resume)
        yield "x", {"file": "a", "line": 3}

    position = OpaquePositions().encode({"file": "a", "line": 2})
    async with Sidecar(lines) as sidecar:
        await sidecar.grant()
        for resume, from_start in ((b"", False), (position, False), (position, True)):
            await sidecar.open(resume=resume, from_start=from_start)
            batches, _ = await sidecar.until_closed()
            assert OpaquePositions().decode(batches[0].positions[0]) == {"file": "a", "line": 3}
    assert seen == [None, {"file": "a", "line": 2}, None]

    async with Sidecar(counter(10)) as sidecar:
        await sidecar.grant()
        await sidecar.open(resume=(7).to_bytes(8, "big"))
        batches, _ = await sidecar.until_closed()
    assert payloads(batches) == [b"7", b"8", b"9"]


@pytest.mark.asyncio
async def test_a_position_of_another_kind_is_a_failure_not_a_fresh_start():
    """Starting anew in silence would repeat every record."""
    async with Sidecar(counter(3)) as sidecar:
        await sidecar.grant()
        await sidecar.open(resume=b"j[1]")
        batches, last = await sidecar.until_closed()
    assert batches == []
    assert "not an offset of 8 bytes" in last.failure.reason


@pytest.mark.asyncio
async def test_revoking_closes_the_generator_and_names_the_position():
    """The position is that after the last record sent; finally blocks run."""
    closed = []

    @source(partitions=["a", "b"])
    async def endless(partition, resume):
        try:
            n = resume or 0
            while True:
                n += 1
                yield n, n
                await asyncio.sleep(0)
        finally:
            closed.append(partition)

    async with Sidecar(endless) as sidecar:
        await sidecar.open("a")
        await sidecar.grant(records=40)
        sent = 0
        while sent < 40:
            sent += len((await sidecar.answer()).batch.records)
        await sidecar.revoke("a")
        revoked = (await sidecar.answer()).revoked
        assert (revoked.partition, OpaquePositions().decode(revoked.position)) == ("a", 40)
        assert closed == ["a"]
        await sidecar.revoke("b")  # never opened: there is nothing to give back
        assert (await sidecar.answer()).revoked == source_pb2.Revoked(partition="b")
        await sidecar.open("b", resume=OpaquePositions().encode(5))
        await sidecar.grant(records=41)
        assert payloads([(await sidecar.answer()).batch]) == [b"6"]
        await sidecar.revoke("b")
        assert OpaquePositions().decode((await sidecar.answer()).revoked.position) == 6
    assert closed == ["a", "b"]


@pytest.mark.asyncio
async def test_opening_again_starts_anew():
    """A second open replaces the first; records of the first that were not sent are dropped."""
    async with Sidecar(counter(20)) as sidecar:
        await sidecar.open()
        await sidecar.settled()
        await sidecar.open(resume=(15).to_bytes(8, "big"))
        await sidecar.grant()
        batches, _ = await sidecar.until_closed()
    assert payloads(batches) == [str(n).encode() for n in range(15, 20)]


@pytest.mark.asyncio
async def test_a_partition_that_does_not_exist_is_refused_by_name():
    """With the names that there are; partitions that cannot be listed are said so."""
    async with Sidecar(counter(1)) as sidecar:
        await sidecar.open("7")
        failure = (await sidecar.answer()).failure
    assert failure.kind == record_pb2.FAILURE_KIND_REJECT
    assert "no partition '7'; there is: 0" in failure.reason

    def broken():
        raise OSError("no disk")

    @source(partitions=broken)
    async def reads(partition, resume):
        yield 1, 1

    async with Sidecar(reads) as sidecar:
        await sidecar.open("7")
        assert "partitions: OSError: no disk" in (await sidecar.answer()).failure.reason


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (ValueError("odd"), record_pb2.FAILURE_KIND_RETRY, "ValueError: odd"),
        (Retry("later", after=3), record_pb2.FAILURE_KIND_RETRY, "later"),
        (Busy("slow", after=3), record_pb2.FAILURE_KIND_BUSY, "slow"),
        (Reject("gone"), record_pb2.FAILURE_KIND_REJECT, "gone"),
    ],
)
@pytest.mark.asyncio
async def test_a_generator_that_raises_fails_after_what_it_yielded(error, kind, reason):
    """No record that was yielded is lost; other partitions go on."""

    @source(partitions=["a", "b"], bounded=True)
    async def fragile(partition, resume):
        yield partition, 1
        if partition == "a":
            raise error

    async with Sidecar(fragile) as sidecar:
        await sidecar.grant()
        await sidecar.open("a")
        batches, last = await sidecar.until_closed()
        assert payloads(batches) == [b"a"]
        assert (last.failure.kind, last.failure.reason) == (kind, reason)
        if isinstance(error, Retry | Busy):
            assert last.failure.retry_after.ToTimedelta().total_seconds() == 3
        await sidecar.open("b")
        assert (await sidecar.until_closed())[1].HasField("finished")


@pytest.mark.parametrize(
    ("stable", "items", "reason"),
    [
        (False, ["only"], "a source yields pairs"),
        (False, [(1, None)], "None is no position"),
        (False, [(None, 1)], "None cannot be a record's value"),
        (False, [({1}, 1)], "cannot become JSON"),
        (True, [(1, 5), (2, 5)], "offset 5 after 5"),
        (True, [(1, 5), (2, 4)], "offset 4 after 5"),
        (True, [(1, "5")], "an integer from 0 on"),
    ],
)
@pytest.mark.asyncio
async def test_what_cannot_be_sent_is_named(stable, items, reason):
    """A source that replays in another order, or yields no pairs, is told so."""

    @source(stable_offsets=stable, bounded=True)
    async def odd(resume):
        for item in items:
            yield item

    async with Sidecar(odd) as sidecar:
        await sidecar.grant()
        await sidecar.open()
        _, last = await sidecar.until_closed()
    assert reason in last.failure.reason


@pytest.mark.asyncio
async def test_an_unbounded_source_that_returns_is_asked_again_later():
    """It is busy, not failed: a poll that found nothing costs no attempt."""

    @source
    async def polled(resume):
        yield 1, 1

    async with Sidecar(polled) as sidecar:
        await sidecar.grant()
        await sidecar.open()
        _, last = await sidecar.until_closed()
    assert last.failure.kind == record_pb2.FAILURE_KIND_BUSY
    assert last.failure.retry_after.ToTimedelta().total_seconds() == 1


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.asyncio
async def test_records_above_the_limit_become_named_tombstones(stable):
    """Size, digest, place and position are sent instead; the records around it go on."""
    big = b"x" * (4 * 2**20)

    @source(bounded=True, stable_offsets=stable)
    async def mixed(resume):
        for n, value in enumerate([b"a", big, b"b", big]):
            yield value, n

    async with Sidecar(mixed) as sidecar:
        await sidecar.grant()
        await sidecar.open()
        batches, last = await sidecar.until_closed()
    assert last.HasField("finished")
    assert payloads(batches) == [b"a", b"b"]
    (batch,) = batches
    assert [(o.before, o.sha256) for o in batch.oversize] == [
        (1, hashlib.sha256(big).digest()),
        (2, hashlib.sha256(big).digest()),
    ]
    assert all(o.size > len(big) for o in batch.oversize)
    positions = [mixed.positions.decode(o.position) for o in batch.oversize]
    assert positions == ([2, 4] if stable else [1, 3])
    assert [o.offset for o in batch.oversize] == ([1, 3] if stable else [0, 0])


@pytest.mark.asyncio
async def test_batches_stay_within_the_bytes_of_a_message():
    """Large records go in batches that a plain gRPC server accepts."""

    @source(bounded=True)
    async def large(resume):
        for n, size in enumerate([200_000, 4_000_000, 4_000_000, 10]):
            yield Record(bytes(size), type="big"), n

    async with Sidecar(large) as sidecar:
        await sidecar.grant()
        await sidecar.open()
        batches, _ = await sidecar.until_closed()
    assert [len(p) for p in payloads(batches)] == [200_000, 4_000_000, 4_000_000, 10]
    assert all(batch.ByteSize() < 4 * 2**20 for batch in batches)
    assert batches[0].records[0].type == "big"


@pytest.mark.asyncio
async def test_ended_positions_are_told():
    """The newest position of each partition reaches the function, plain or async."""
    told = asyncio.Queue(10)

    def make(name):
        async def queue(resume):
            yield 1, "m-1"

        return source(name=name, bounded=True)(queue)

    plain, awaited = make("plain"), make("awaited")

    @plain.ended
    def acknowledge(position):
        loop.call_soon_threadsafe(told.put_nowait, position)
        if position == "m-0":
            raise OSError("queue is down")

    @awaited.ended
    async def acknowledge_both(partition, position):
        await told.put((partition, position))

    loop = asyncio.get_running_loop()
    for origin, names in ((plain, ["m-0", "m-1"]), (awaited, ["m-1"])):
        async with Sidecar(origin) as sidecar:
            for name in names:
                ended = source_pb2.Ended(partition="0", position=OpaquePositions().encode(name))
                await sidecar.requests.put(source_pb2.ReadRequest(ended=ended))
                expected = name if origin is plain else ("0", name)
                assert await asyncio.wait_for(told.get(), 10) == expected


@pytest.mark.asyncio
async def test_config_reaches_the_generator():
    """ctx carries what the manifest gave for the stage."""

    @source(bounded=True)
    async def configured(resume, ctx):
        yield ctx.config["path"], 1

    async with Sidecar(configured, config={"path": "here"}) as sidecar:
        await sidecar.grant()
        await sidecar.open()
        batches, _ = await sidecar.until_closed()
    assert payloads(batches) == [b"here"]


@pytest.mark.asyncio
async def test_a_broken_connection_ends_the_stream():
    """A write that fails ends the stream with its error and closes the generators."""
    closed = asyncio.Event()

    @source
    async def endless(resume):
        try:
            while True:
                yield 1, 1
                await asyncio.sleep(0)
        finally:
            closed.set()

    sidecar = Sidecar(endless)
    await sidecar.__aenter__()
    sidecar.refuse_writes = True
    await sidecar.grant()
    await sidecar.open()
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(sidecar.serving, 10)
    assert caught.group_contains(ConnectionError)
    assert closed.is_set()
