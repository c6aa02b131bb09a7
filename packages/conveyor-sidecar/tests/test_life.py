"""Sidecars and services that come, go, crash and collide, while records flow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from conveyor_sdk import Record, Server, sink, source, transform
from conveyor_sdk.wire import info_pb2, lookup_pb2, record_pb2, transform_pb2
from conveyor_sidecar.dead_letters import read_dead_letters
from conveyor_sidecar.errors import BindError, DataDirectoryError

COUNT = 3_000
SPEC = {
    "spec": {
        "stages": [
            {"id": "numbers", "source": "numbers"},
            {"id": "work", "transform": "work"},
            {"id": "collect", "sink": "collect"},
        ]
    }
}


def slow_numbers(count: int = COUNT, pause_s: float = 0.02):
    @source(name="numbers", bounded=True)
    async def numbers(resume: bytes | None) -> AsyncIterator[tuple[int, bytes]]:
        for number in range(int(resume) if resume else 0, count):
            if number % 100 == 0:
                await asyncio.sleep(pause_s)
            yield number, str(number + 1).encode()

    return numbers


@transform(name="work")
def work(value: int) -> int:
    return value


class Collected:
    def __init__(self) -> None:
        self.values: list[int] = []

        @sink(name="collect")
        async def collect(values: list[int]) -> None:
            self.values.extend(values)

        self.service = collect


def finished(router):
    return lambda: bool(router.positions) and all(p.finished for p in router.positions.values())


@pytest.mark.asyncio
@pytest.mark.parametrize("victim", ["a", "b", "c"])
async def test_a_killed_sidecar_loses_nothing(router, sidecar, victim) -> None:
    """Whichever sidecar dies without a word and comes back: every record is written."""
    collected = Collected()
    async with (
        Server([slow_numbers()]) as one,
        Server([work]) as two,
        Server([collected.service]) as three,
    ):
        ports = {"a": one.port, "b": two.port, "c": three.port}
        running = {name: await sidecar(name, port) for name, port in ports.items()}
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(SPEC)
        await router.until(lambda: router.commits_total >= 1)
        assert not finished(router)()
        await running[victim].kill()
        await sidecar(victim, ports[victim])
        await router.until(finished(router))
    assert set(collected.values) == set(range(COUNT))


@pytest.mark.asyncio
async def test_a_restarted_service_is_used_again_at_once(router, sidecar) -> None:
    """The transform's process is replaced while records flow: nothing is lost."""
    collected = Collected()
    async with Server([slow_numbers()]) as one, Server([collected.service]) as three:
        two = Server([work])
        await two.__aenter__()
        port = two.port
        for name, at in (("a", one.port), ("b", port), ("c", three.port)):
            await sidecar(name, at)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(SPEC)
        await router.until(lambda: router.commits_total >= 1)
        await two.close(0)
        async with Server([work], ports=[port]):
            await router.until(finished(router))
    assert set(collected.values) == set(range(COUNT))


@pytest.mark.asyncio
async def test_without_a_router_records_flow_and_positions_wait(router, sidecar) -> None:
    """Commits that fail for a while hold nothing up, and are made good later."""
    collected = Collected()
    async with (
        Server([slow_numbers(1000)]) as one,
        Server([work]) as two,
        Server([collected.service]) as three,
    ):
        for name, port in (("a", one.port), ("b", two.port), ("c", three.port)):
            await sidecar(name, port)
        await router.until(lambda: len(router.sidecars) == 3)
        router.commit_failures = 10_000
        await router.apply(SPEC)
        async with asyncio.timeout(10):
            while len(collected.values) < 1000:
                await asyncio.sleep(0.01)
        assert not router.positions
        router.commit_failures = 0
        await router.until(finished(router))
    assert sorted(collected.values) == list(range(1000))


@pytest.mark.asyncio
async def test_a_stop_drains_and_leaves(router, sidecar) -> None:
    """SIGTERM's way: what was read is written and committed, then the sidecar deregisters."""
    collected = Collected()
    async with (
        Server([slow_numbers(100_000, 0.01)]) as one,
        Server([work]) as two,
        Server([collected.service]) as three,
    ):
        running = {}
        for name, port in (("a", one.port), ("b", two.port), ("c", three.port)):
            running[name] = await sidecar(name, port)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(SPEC)
        await router.until(lambda: router.commits_total >= 2)
        await running["a"].stop()
        assert router.drained == ["a"]
        assert router.left == ["a"]
        (position,) = router.positions.values()
        assert position.ordinal == len(collected.values)
        assert not position.finished


@pytest.mark.asyncio
async def test_a_service_without_service_info_is_bound_by_what_reflection_shows(
    router, sidecar, serve
) -> None:
    """A plain gRPC transform in any language takes part."""

    async def process(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        asked = transform_pb2.TransformRequest.FromString(request)
        assert asked.call.service == f"transform-{port}"
        return transform_pb2.TransformResponse(
            records=asked.records, parents=range(len(asked.records))
        ).SerializeToString()

    def add(server: grpc.aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(process)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "conveyor.service.v1.Transform", {"Process": handler}
                ),
            )
        )

    port = await serve(["conveyor.service.v1.Transform", "acme.Enricher"], add=add)
    collected = Collected()
    async with Server([slow_numbers(100)]) as one, Server([collected.service]) as three:
        for name, at in (("a", one.port), ("b", port), ("c", three.port)):
            await sidecar(name, at)
        await router.until(lambda: len(router.sidecars) == 3)
        (plain,) = router.sidecars["b"].services
        assert plain.undescribed
        assert "acme.Enricher" in plain.grpc_services
        document = {"spec": {**SPEC["spec"], "stages": [*SPEC["spec"]["stages"]]}}
        document["spec"]["stages"][1] = {"id": "work", "transform": f"transform-{port}"}
        await router.apply(document)
        await router.until(finished(router))
    assert sorted(collected.values) == list(range(100))


@pytest.mark.asyncio
async def test_a_taken_port_and_a_locked_directory_are_clear_errors(
    sidecar, tmp_path, free_port
) -> None:
    """The second sidecar on a port or a directory says what to change, and changes nothing."""
    first = await sidecar("a", 1, GRPC_PORT=str(free_port))
    async with asyncio.timeout(5):
        await first.bound.wait()
    second = await sidecar("b", 1, GRPC_PORT=str(free_port))
    with pytest.raises(BindError, match="GRPC_PORT"):
        await second.task
    third = await sidecar("c", 1, CONVEYOR_DATA_DIR=str(tmp_path / "a"))
    with pytest.raises(DataDirectoryError, match="in use by another sidecar"):
        await third.task


@pytest.mark.asyncio
async def test_two_sidecars_that_see_one_service(router, sidecar, caplog) -> None:
    """The first registration wins, the second says so, and takes over when the first has left."""
    async with Server([work]) as server:
        first = await sidecar("a", server.port)
        await router.until(lambda: "a" in router.sidecars and router.sidecars["a"].services)
        await sidecar("b", server.port)
        await router.until(lambda: "b" in router.sidecars)
        assert not router.sidecars["b"].services
        await first.stop()
        await router.until(lambda: router.sidecars["b"].services)
    assert sum("already registered by sidecar a" in line for line in caplog.messages) == 1


@pytest.mark.asyncio
async def test_a_forgotten_sidecar_registers_again(router, sidecar) -> None:
    """A router that lost its memory has the whole registration back at once."""
    async with Server([work]) as server:
        await sidecar("a", server.port)
        await router.until(lambda: "a" in router.sidecars)
        before = router.sidecars.pop("a")
        await router.changed()
        await router.until(lambda: "a" in router.sidecars)
        assert router.sidecars["a"].boot_id == before.boot_id
        assert [s.description.name for s in router.sidecars["a"].services] == ["work"]


@pytest.mark.asyncio
async def test_two_sidecars_with_one_id_are_named(router, sidecar, tmp_path, caplog) -> None:
    """Each evicts the other; the log says why, and what to do."""
    await sidecar("a", 1)
    await router.until(lambda: "a" in router.sidecars)
    await sidecar("a", 1, CONVEYOR_DATA_DIR=str(tmp_path / "elsewhere"))
    await router.until(
        lambda: any("give each sidecar its own SIDECAR_ID" in line for line in caplog.messages)
    )


@pytest.mark.asyncio
async def test_conditions_and_keys_route_records(router, sidecar) -> None:
    """Two sinks behind predicates on headers each get their own records, by key in order."""
    even, odd = [], []

    @transform(name="work")
    def mark(value: int) -> Record:
        return Record(
            value,
            key=str(value % 7).encode(),
            headers={"parity": "odd" if value % 2 else "even"},
        )

    @sink(name="even")
    async def write_even(values: list[int]) -> None:
        even.extend(values)

    @sink(name="odd")
    async def write_odd(values: list[int]) -> None:
        odd.extend(values)

    document = {
        "spec": {
            "stages": [
                {"id": "numbers", "source": "numbers"},
                {"id": "work", "transform": "work"},
                {"id": "even", "sink": "even"},
                {"id": "odd", "sink": "odd"},
            ],
            "edges": [
                {"from": "numbers", "to": "work"},
                {
                    "from": "work",
                    "to": "even",
                    "when": 'headers["parity"] == "even"',
                    "order": "key",
                },
                {"from": "work", "to": "odd", "when": 'headers["parity"] == "odd"'},
            ],
        }
    }
    async with (
        Server([slow_numbers(500)]) as one,
        Server([mark]) as two,
        Server([write_even, write_odd]) as three,
    ):
        for name, port in (("a", one.port), ("b", two.port), ("c", three.port)):
            await sidecar(name, port)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply(document)
        await router.until(finished(router))
    assert sorted(even) == list(range(0, 500, 2))
    assert sorted(odd) == list(range(1, 500, 2))


@pytest.mark.asyncio
async def test_a_lookup_adds_headers_by_key(router, sidecar, serve, tmp_path) -> None:
    """Values found are headers of the record; a key without one is what the stage says, and a
    known key is not asked for again."""
    asked: list[list[bytes]] = []

    async def find(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        keys = lookup_pb2.LookupRequest.FromString(request).keys
        asked.append(list(keys))
        found = [record_pb2.Record(headers={"name": f"user {key.decode()}"}) for key in keys]
        missing = [key == b"3" for key in keys]
        return lookup_pb2.LookupResponse(found=found, missing=missing).SerializeToString()

    def add(server: grpc.aio.Server) -> None:
        handlers = {"Find": grpc.unary_unary_rpc_method_handler(find)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("conveyor.service.v1.Lookup", handlers),)
        )

    users = info_pb2.ServiceDescription(name="users", kind=info_pb2.KIND_LOOKUP)
    listed = ["conveyor.service.v1.ServiceInfo", "conveyor.service.v1.Lookup"]
    port = await serve(listed, [users], add)

    @source(name="numbers", bounded=True)
    async def keyed(resume: bytes | None) -> AsyncIterator[tuple[Record, bytes]]:
        for number in range(int(resume) if resume else 0, 50):
            yield Record(number, key=str(number % 5).encode()), str(number + 1).encode()

    seen: list[tuple[int, str]] = []

    @sink(name="collect")
    async def collect(records: list[Record[int]]) -> None:
        seen.extend((record.value, record.headers["name"]) for record in records)

    stages = [
        {"id": "numbers", "source": "numbers"},
        {"id": "users", "lookup": "users", "cache": "60s", "miss": "dead-letter"},
        {"id": "collect", "sink": "collect"},
    ]
    async with Server([keyed]) as one, Server([collect]) as three:
        for name, at in (("a", one.port), ("b", port), ("c", three.port)):
            await sidecar(name, at)
        await router.until(lambda: len(router.sidecars) == 3)
        await router.apply({"spec": {"stages": stages}})
        await router.until(finished(router))
    assert sorted(seen) == [(n, f"user {n % 5}") for n in range(50) if n % 5 != 3]
    letters = list(read_dead_letters(tmp_path / "b" / "dead-letters" / "default~p"))
    assert len(letters) == 10
    assert "no value" in letters[0].reason
    assert sorted(key for keys in asked for key in keys) == [b"0", b"1", b"2", b"3", b"4"]
