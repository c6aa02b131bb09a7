"""One lane stream between two sidecars, the part that both of its ends have in common.

A stream is a reader and a writer that do not wait for each other. ``carry`` runs both until the
first of them ends and says why the stream is over. The writer takes from a bounded outbox; the
reader hands every bundle to the pump. Where batches are traced, the arrival of a frame is a span of
its own, and what is done with the frame here hangs below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from opentelemetry.trace import SpanKind

from conveyor_sdk.carrier import Frame
from conveyor_sidecar import lane_codec
from conveyor_sidecar.core.events import Event, LaneMessageReceived
from conveyor_sidecar.core.messages import LaneMessage
from conveyor_sidecar.routing.outbox import Outbox
from conveyor_sidecar.tracing import batch_span, traceparent_of

LANES_SERVICE = "conveyor.service.v1.DataPlane"
LANES_METHOD = f"/{LANES_SERVICE}/Lanes"

Post = Callable[[Event], None]
Read = Callable[[], Awaitable[Any]]
Write = Callable[[bytes], Awaitable[None]]
DoneWriting = Callable[[], Awaitable[None]]


class LaneStream:
    """The sending side of a link, whoever opened it."""

    def __init__(self, link: str) -> None:
        self.link = link
        self.outbox = Outbox()
        self._over = asyncio.Event()
        self._finishing = False
        self._reason = ""

    def send(self, message: LaneMessage) -> None:
        """Queue a bundle; a peer that no longer reads costs the link."""
        data = lane_codec.encode(message)
        if not self.outbox.put(data, alone=lane_codec.stands_alone(message)):
            self.give_up("the peer no longer reads")

    def finish(self) -> None:
        """No more bundles: what is queued may still leave, then the stream ends.

        What the peer still says is not heard any more.
        """
        self._finishing = True
        self.outbox.close()

    def give_up(self, reason: str) -> None:
        """End the stream now, whatever is queued."""
        self._reason = self._reason or reason
        self._over.set()

    async def carry(
        self, read: Read, write: Write, post: Post, done_writing: DoneWriting | None = None
    ) -> str:
        """Carry bundles both ways until one side ends; returns why.

        With `done_writing`, which tells the peer that nothing follows, a finished stream waits
        for the peer to end it too: cancelling it at once would take back what is on its way.

        Raises:
            ProtocolError: the peer sent what is not a bundle.
            grpc.aio.AioRpcError: the stream broke.
        """
        tasks = (
            asyncio.create_task(self._read_all(read, post)),
            asyncio.create_task(self._write_all(write, done_writing)),
            asyncio.create_task(self._over.wait()),
        )
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.cancelled():  # what a read says whose channel was closed under it
                    return "the connection was closed"
                task.result()
            return self._reason or ("closed by this side" if tasks[1] in done else "closed by peer")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # a second failure of the same broken stream says nothing

    async def _read_all(self, read: Read, post: Post) -> None:
        link = self.link
        while isinstance(data := await read(), bytes):
            message = lane_codec.decode(data)
            if self._finishing:
                continue
            if message.data and message.data[0].traceparent:
                message.data = [received(frame) for frame in message.data]
            post(LaneMessageReceived(link, message))

    async def _write_all(self, write: Write, done_writing: DoneWriting | None) -> None:
        while (bundle := await self.outbox.take()) is not None:
            await write(bundle)
        if done_writing is not None:
            await done_writing()
            await self._over.wait()


def received(frame: Frame) -> Frame:
    """The frame, its trace context moved on to the span of its arrival here."""
    origin = frame.origins[0] if frame.origins else None
    facts = {"conveyor.lane": frame.lane, "conveyor.records": frame.count}
    named = {"conveyor.pipeline": origin.pipeline} if origin else {}
    with batch_span(
        "conveyor.receive", frame.traceparent, SpanKind.CONSUMER, {**facts, **named}
    ) as span:
        return replace(frame, traceparent=traceparent_of(span) or frame.traceparent)
