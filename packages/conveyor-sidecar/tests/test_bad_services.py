"""Services that misbehave: each bad record ends as a dead letter, everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from conveyor_sdk import Reject, Server, sink, source, transform
from conveyor_sdk.wire import info_pb2, record_pb2, source_pb2, transform_pb2
from conveyor_sidecar.dead_letters import DeadLetter, read_dead_letters

QUICK = {"attempts": 2, "backoff": "10ms", "max": "20ms"}
COUNT = 40


@source(name="numbers", bounded=True)
async def numbers(resume: bytes | None) -> AsyncIterator[tuple[int, bytes]]:
    for number in range(int(resume) if resume else 0, COUNT):
        yield number, str(number + 1).encode()


class Collected:
    """A sink that remembers what it was given."""

    def __init__(self) -> None:
        self.values: list[int] = []

        @sink(name="collect")
        async def collect(values: list[int]) -> None:
            self.values.extend(values)

        self.service = collect


def spec(**stage: object) -> dict[str, object]:
    return {
        "spec": {
            "stages": [
                {"id": "numbers", "source": "numbers"},
                {"id": "work", "transform": "work", "retry": QUICK, **stage},
                {"id": "collect", "sink": "collect", "retry": QUICK},
            ]
        }
    }


def letters(path: Path, name: str) -> list[DeadLetter]:
    found = list(read_dead_letters(path / name / "dead-letters" / "default~p"))
    assert all(isinstance(item, DeadLetter) for item in found)
    return found  # type: ignore[return-value]


def finished(router) -> Callable[[], bool]:
    return lambda: (
        bool(router.positions) and all(position.finished for position in router.positions.values())
    )


async def run(router, sidecar, work_port: int, document: dict[str, object]) -> list[int]:
    """Run numbers > work > collect to its end; returns what was written."""
    collected = Collected()
    async with Server([numbers]) as first, Server([collected.service]) as last:
        for name, port in (("a", first.port), ("b", work_port), ("c", last.port)):
            await sidecar(name, port)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(document)
        await router.until(finished(router))
    return sorted(collected.values)


@pytest.mark.asyncio
async def test_a_transform_that_raises_costs_only_the_records_it_raises_for(
    router, sidecar, tmp_path
) -> None:
    """Reject is a dead letter at once, an exception after the stage's attempts; the rest flows."""

    @transform(name="work")
    def work(value: int) -> int:
        if value == 7:
            raise Reject("seven is not welcome")
        if value == 8:
            raise ZeroDivisionError("eight")
        return value

    async with Server([work]) as server:
        written = await run(router, sidecar, server.port, spec())
    assert written == [n for n in range(COUNT) if n not in (7, 8)]
    by_value = {letter.record[-1:]: letter for letter in letters(tmp_path, "b")}
    assert set(by_value) == {b"7", b"8"}
    assert by_value[b"7"].reason == "seven is not welcome"
    assert (by_value[b"7"].kind, by_value[b"7"].attempts) == ("reject", 1)
    assert "eight" in by_value[b"8"].reason
    assert by_value[b"8"].attempts == 2
    assert by_value[b"8"].source_stage == "numbers"


def raw_transform(answer: Callable[[bytes], object]):
    """Add a Transform whose Process answers with any bytes."""

    async def process(request: bytes, context: grpc.aio.ServicerContext) -> object:
        reply = answer(request)
        return await reply if asyncio.iscoroutine(reply) else reply

    def add(server: grpc.aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(process)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "conveyor.service.v1.Transform", {"Process": handler}
                ),
            )
        )

    return add


def parents_missing(request: bytes) -> bytes:
    records = transform_pb2.TransformRequest.FromString(request).records
    return transform_pb2.TransformResponse(records=records).SerializeToString()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "case",
    [
        (lambda request: b"\xff\xff\xff", "cannot be parsed as a TransformResponse", "30s"),
        (parents_missing, "records came with 0 parents", "30s"),
        (lambda request: asyncio.sleep(60), "no answer within 60 ms", "60ms"),
    ],
    ids=["garbage", "broken-contract", "never-returns"],
)
async def test_a_transform_without_usable_answers_makes_dead_letters_and_the_source_ends(
    router, sidecar, serve, tmp_path, case
) -> None:
    """Garbage, a broken contract and silence all end: the pipeline completes, nothing is lost."""
    answer, reason, timeout = case
    work = info_pb2.ServiceDescription(name="work", kind=info_pb2.KIND_TRANSFORM)
    port = await serve(
        ["conveyor.service.v1.ServiceInfo", "conveyor.service.v1.Transform"],
        [work],
        raw_transform(answer),
    )
    written = await run(router, sidecar, port, spec(timeout=timeout))
    assert written == []
    found = letters(tmp_path, "b")
    assert len(found) == COUNT
    assert all(reason in letter.reason for letter in found)


@pytest.mark.asyncio
async def test_a_process_that_only_lists_transform_is_withdrawn_until_it_is_replaced(
    router, sidecar, serve
) -> None:
    """UNIMPLEMENTED is no attempt: the records wait, and flow when a real one takes the port."""
    work = info_pb2.ServiceDescription(name="work", kind=info_pb2.KIND_TRANSFORM)
    port = await serve(["conveyor.service.v1.ServiceInfo", "conveyor.service.v1.Transform"], [work])

    @transform(name="work")
    def real(value: int) -> int:
        return value

    collected = Collected()
    async with Server([numbers]) as first, Server([collected.service]) as last:
        for name, at in (("a", first.port), ("b", port), ("c", last.port)):
            await sidecar(name, at)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(spec())
        await router.until(
            lambda: any("does not implement" in s.reason for s in router.sidecars["b"].services)
        )
        await serve.servers[port].stop(None)
        await router.until(lambda: not router.sidecars["b"].services)
        async with Server([real], ports=[port]):
            await router.until(finished(router))
    assert sorted(collected.values) == list(range(COUNT))


@pytest.mark.asyncio
async def test_a_sink_that_rejects_some_records_writes_the_others(
    router, sidecar, tmp_path
) -> None:
    """Failures of a sink are by record."""
    kept: list[int] = []

    @transform(name="work")
    def work(value: int) -> int:
        return value

    @sink(name="collect")
    async def collect(value: int) -> None:
        if value % 10 == 0:
            raise Reject("no round numbers")
        kept.append(value)

    async with Server([numbers]) as one, Server([work]) as two, Server([collect]) as three:
        for name, port in (("a", one.port), ("b", two.port), ("c", three.port)):
            await sidecar(name, port)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(spec())
        await router.until(finished(router))
    assert sorted(kept) == [n for n in range(COUNT) if n % 10]
    found = letters(tmp_path, "c")
    assert sorted(int(letter.record.rpartition(b"\n")[2][1:]) for letter in found) == [
        0,
        10,
        20,
        30,
    ]
    assert {letter.reason for letter in found} == {"no round numbers"}


@pytest.mark.asyncio
async def test_a_source_that_replays_in_another_order_is_named_and_read_again(
    router, sidecar, serve, caplog
) -> None:
    """Offsets that go back break their promise: the stream is opened anew where it was good."""
    opened: list[int] = []

    async def read(requests: object, context: grpc.aio.ServicerContext) -> None:
        while True:
            request = source_pb2.ReadRequest.FromString(await context.read())
            if request.HasField("open"):
                break
        first = int.from_bytes(request.open.resume, "big")
        opened.append(first)
        orders = [range(5), range(2, 7)] if len(opened) == 1 else [range(first, 10)]
        for offsets in orders:
            records = [record_pb2.Record(payload=str(offset).encode()) for offset in offsets]
            batch = source_pb2.SourceBatch(partition="0", records=records, offsets=offsets)
            await context.write(source_pb2.ReadResponse(batch=batch).SerializeToString())
        done = source_pb2.ReadResponse(finished=source_pb2.Finished(partition="0"))
        await context.write(done.SerializeToString())
        while isinstance(await context.read(), bytes):
            pass

    def add(server: grpc.aio.Server) -> None:
        handlers = {"Read": grpc.stream_stream_rpc_method_handler(read)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("conveyor.service.v1.Source", handlers),)
        )

    numbers = info_pb2.ServiceDescription(
        name="numbers", kind=info_pb2.KIND_SOURCE, stable_offsets=True, bounded=True
    )
    listed = ["conveyor.service.v1.ServiceInfo", "conveyor.service.v1.Source"]
    port = await serve(listed, [numbers], add)

    @transform(name="work")
    def work(value: int) -> int:
        return value

    collected = Collected()
    async with Server([work]) as two, Server([collected.service]) as three:
        for name, at in (("a", port), ("b", two.port), ("c", three.port)):
            await sidecar(name, at)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(spec())
        await router.until(finished(router))
    assert sorted(set(collected.values)) == list(range(10))
    assert len(opened) > 1
    assert any("declares stable offsets" in line for line in caplog.messages)


@pytest.mark.asyncio
async def test_a_record_above_the_limit_is_a_named_tombstone(router, sidecar, tmp_path) -> None:
    """What is too large to travel is named with its size, and the rest goes on."""

    @source(name="numbers", bounded=True)
    async def large(resume: bytes | None) -> AsyncIterator[tuple[object, bytes]]:
        for number in range(int(resume) if resume else 0, 5):
            yield "x" * (5 * 1024 * 1024) if number == 2 else number, str(number + 1).encode()

    @transform(name="work")
    def work(value: int) -> int:
        return value

    collected = Collected()
    async with (
        Server([large]) as one,
        Server([work]) as two,
        Server([collected.service]) as three,
    ):
        for name, port in (("a", one.port), ("b", two.port), ("c", three.port)):
            await sidecar(name, port)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(spec())
        await router.until(finished(router))
    assert sorted(collected.values) == [0, 1, 3, 4]
    (found,) = letters(tmp_path, "a")
    assert found.kind == "oversize"
    assert found.size > 5 * 1024 * 1024
    assert found.record == b""
