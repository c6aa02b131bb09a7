"""Discovery against real listeners: ours, foreign ones, silent ones, and ones that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import grpc
import grpc.aio
import pytest

from conveyor_sdk.wire import info_pb2
from conveyor_sidecar.discovery import DescribedService, FoundProcess, PortScanner
from conveyor_sidecar.errors import ProbeError

INFO = "conveyor.service.v1.ServiceInfo"
TRANSFORM = "conveyor.service.v1.Transform"


def description(name: str = "enrich") -> info_pb2.ServiceDescription:
    return info_pb2.ServiceDescription(
        name=name, kind=info_pb2.KIND_TRANSFORM, labels={"team": "data"}, batch_records_max=200
    )


def scanner_of(port: int, **options: object) -> PortScanner:
    return PortScanner(port, port, **options)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_a_service_is_found_with_what_describe_says(serve) -> None:
    """Describe, not reflection, says what a process offers."""
    port = await serve([INFO, TRANSFORM, "conveyor.service.v1.Sink"], [description()])
    (found,) = await scanner_of(port).scan()
    assert found.described
    assert found.services == (
        DescribedService(
            name="enrich", kind="transform", labels=(("team", "data"),), batch_records_max=200
        ),
    )
    assert found.sdk == "test 1"


@pytest.mark.asyncio
async def test_a_service_without_service_info_is_reported_with_what_reflection_lists(serve) -> None:
    """A manifest can bind a foreign service by the names that it lists."""
    port = await serve([TRANSFORM, "acme.Enricher"])
    (found,) = await scanner_of(port).scan()
    assert (found.described, found.kinds) == (False, ("transform",))
    assert "acme.Enricher" in found.listed


@pytest.mark.asyncio
async def test_service_info_that_is_listed_but_not_implemented_counts_as_absent(serve) -> None:
    """A reflection server that lists more than is there does not hide the service."""
    port = await serve([INFO, TRANSFORM])
    (found,) = await scanner_of(port).scan()
    assert (found.described, found.kinds) == (False, ("transform",))


@pytest.mark.asyncio
async def test_what_is_not_ours_is_ignored_and_said_once(serve, caplog) -> None:
    """A router, a gRPC server without reflection: ignored, with one line each."""
    caplog.set_level(logging.INFO)
    router = await serve(["conveyor.control.v1.RegistryService"])
    silent = await serve(None)
    for port, reason in ((router, "nothing of ours"), (silent, "without reflection")):
        scanner = scanner_of(port)
        assert await scanner.scan() == ()
        assert await scanner.scan() == ()
        assert sum(reason in line for line in caplog.messages) == 1


@pytest.mark.asyncio
async def test_listeners_that_speak_no_grpc_or_nothing_cost_one_deadline(caplog) -> None:
    """A hanging listener and an HTTP/1 server never hold up the round."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await drain(reader, writer)

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await drain(reader, writer)

    async def drain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        ended.release()

    ended = asyncio.Semaphore(0)
    for handler in (hang, http):
        async with await asyncio.start_server(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            begun = asyncio.get_running_loop().time()
            assert await scanner_of(port, probe_deadline_ms=200).scan() == ()
            assert asyncio.get_running_loop().time() - begun < 2
            for _ in range(2):  # the connect and the question
                await ended.acquire()


@pytest.mark.asyncio
async def test_a_service_may_start_later_stop_and_come_back_as_another(serve, free_port) -> None:
    """Each round is the whole truth of that moment."""
    scanner = scanner_of(free_port)
    assert await scanner.scan() == ()
    await serve([INFO, TRANSFORM], [description("one")], port=free_port)
    assert [p.services[0].name for p in await scanner.scan()] == ["one"]
    await serve.servers[free_port].stop(None)
    assert await scanner.scan() == ()
    await serve([INFO, TRANSFORM], [description("two")], port=free_port)
    assert [p.services[0].name for p in await scanner.scan()] == ["two"]


@pytest.mark.asyncio
async def test_own_ports_are_skipped(serve) -> None:
    """A sidecar does not discover itself."""
    port = await serve([INFO, TRANSFORM], [description()])
    assert await scanner_of(port, skip_ports=[port]).scan() == ()


@pytest.mark.asyncio
async def test_a_busy_service_is_kept_for_some_rounds(serve) -> None:
    """Missing a deadline is not leaving: only the third silence in a row is."""
    port = await serve(None)
    process = FoundProcess(f"127.0.0.1:{port}", (TRANSFORM,))
    answers: list[FoundProcess | ProbeError] = [process, *(ProbeError("slow") for _ in range(3))]

    async def identify(endpoint: str, deadline_ms: int) -> FoundProcess:
        answer = answers.pop(0)
        if isinstance(answer, ProbeError):
            raise answer
        return answer

    scanner = scanner_of(port, identify=identify)
    assert [await scanner.scan() for _ in range(4)] == [(process,)] * 3 + [()]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (info_pb2.ServiceDescription(name="x"), "without a known kind"),
        (info_pb2.ServiceDescription(kind=info_pb2.KIND_SINK), "a name has 1 to 63"),
        (info_pb2.ServiceDescription(kind=info_pb2.KIND_SINK, name="My Sink"), "'My Sink'"),
        (
            info_pb2.ServiceDescription(kind=info_pb2.KIND_SINK, name="x", labels={"k": "v" * 300}),
            "label that is too long",
        ),
        (
            info_pb2.ServiceDescription(kind=info_pb2.KIND_SOURCE, name="x", partitions=[""]),
            "impossible partition name",
        ),
    ],
)
async def test_a_description_that_makes_no_sense_is_refused(serve, caplog, answer, reason) -> None:
    """Nonsense from a service never reaches the router."""
    caplog.set_level(logging.INFO)
    port = await serve([INFO], [answer])
    assert await scanner_of(port).scan() == ()
    assert any(reason in line for line in caplog.messages)


@pytest.mark.asyncio
async def test_describe_that_answers_garbage_is_refused(serve, caplog) -> None:
    """Bytes that are no DescribeResponse are named as such."""
    caplog.set_level(logging.INFO)

    async def garbage(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return b"\xff\xff\xff"

    def add(server: grpc.aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(garbage)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(INFO, {"Describe": handler}),)
        )

    port = await serve([INFO, TRANSFORM], add=add)
    assert await scanner_of(port).scan() == ()
    assert any("garbage" in line for line in caplog.messages)


def test_an_impossible_range_is_refused() -> None:
    """The scan is bounded to 1,024 ports in the right order."""
    with pytest.raises(ValueError, match="DISCOVERY_START_PORT"):
        PortScanner(5, 4)
    with pytest.raises(ValueError, match="1024 ports"):
        PortScanner(1, 1025)
