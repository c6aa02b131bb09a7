"""A server that answers as the test says, on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from conveyor_grpc.server import Server, ServerOptions
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.admin_pb2_grpc import RouterAdminServicer, add_RouterAdminServicer_to_server

Answer = Callable[[Any], Awaitable[wire.GetResponse]]


class Scripted(RouterAdminServicer):
    """Answers `Get` by a function, and counts the calls."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.calls = 0

    async def Get(self, request: Any, context: Any) -> wire.GetResponse:
        self.calls += 1
        return await self.answer(context)

    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[wire.Event]:
        self.calls += 1
        async for event in self.answer(context):  # type: ignore[attr-defined]
            yield event


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[tuple[Server, Scripted]]]]:
    """Return a function that starts a server around an answer."""
    async with AsyncExitStack() as stack:

        async def start(
            answer: Answer, options: ServerOptions | None = None, address: str = "127.0.0.1:0"
        ) -> tuple[Server, Scripted]:
            server = Server(address, options)
            servicer = Scripted(answer)
            add_RouterAdminServicer_to_server(servicer, server.open())
            server.offers(["conveyor.control.v1.RouterAdmin"])
            await server.start()
            stack.push_async_callback(server.stop, 0)
            return server, servicer

        yield start


@pytest.fixture
def found() -> wire.GetResponse:
    """An answer that can be told from an empty one."""
    return wire.GetResponse(revision=42)
