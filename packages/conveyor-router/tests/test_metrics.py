"""What tools read over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from conveyor_grpc.errors import ListenError
from conveyor_grpc.testing import router_cluster
from conveyor_router.metrics import StatusPages


async def ask(address: str, request: bytes) -> tuple[str, str]:
    """Send raw bytes; return the first line and the body of the answer."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return head.partition("\r\n")[0], body


@pytest.mark.asyncio
async def test_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics, readiness that means a leader, life, and a hint for everything else."""
    async with router_cluster() as (router,):
        pages = StatusPages("127.0.0.1:0", router.plane, router.server.statistics)
        async with pages:
            line, body = await ask(pages.address, b"GET /metrics HTTP/1.1\r\n\r\n")
            assert line == "HTTP/1.1 200 OK"
            assert "conveyor_router_is_leader 1.0" in body
            assert "conveyor_raft_commit_index" in body
            assert await ask(pages.address, b"GET /readyz?x=1 HTTP/1.1\r\n\r\n") == (
                "HTTP/1.1 200 OK",
                "ready\n",
            )
            router.plane.end_leading()
            line, body = await ask(pages.address, b"GET /readyz HTTP/1.1\r\n\r\n")
            assert line == "HTTP/1.1 503 Service Unavailable"
            line, body = await ask(pages.address, b"GET / HTTP/1.1\r\n\r\n")
            assert (line, "/readyz" in body) == ("HTTP/1.1 404 Not Found", True)
            line, _ = await ask(pages.address, b"POST /metrics HTTP/1.1\r\n\r\n")
            assert line == "HTTP/1.1 405 Method Not Allowed"
            assert await ask(pages.address, b"HEAD /healthz HTTP/1.1\r\n\r\n") == (
                "HTTP/1.1 200 OK",
                "",
            )


@pytest.mark.asyncio
@pytest.mark.parametrize("request_bytes", [b"G" * 100_000, b"GET"], ids=["too large", "unfinished"])
async def test_a_client_that_misbehaves_gets_no_answer(
    monkeypatch: pytest.MonkeyPatch, request_bytes: bytes
) -> None:
    """Bounded in size and time; the next one is served."""
    monkeypatch.setattr("conveyor_router.metrics.REQUEST_TIMEOUT_S", 0.05)
    async with router_cluster() as (router,):
        pages = StatusPages("127.0.0.1:0", router.plane, router.server.statistics)
        async with pages:
            # It may be closed while the request is still being sent.
            with contextlib.suppress(ConnectionError):
                assert await ask(pages.address, request_bytes) == ("", "")
            assert (await ask(pages.address, b"GET /healthz HTTP/1.1\r\n\r\n"))[1] == "ok\n"


@pytest.mark.asyncio
async def test_a_taken_port_is_named() -> None:
    """With the setting to change."""
    plane: Any = None
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with router_cluster() as (router,):
            plane = router.plane
            with pytest.raises(ListenError, match=r"metrics\.listen_addr"):
                async with StatusPages(f"127.0.0.1:{port}", plane, router.server.statistics):
                    pass
