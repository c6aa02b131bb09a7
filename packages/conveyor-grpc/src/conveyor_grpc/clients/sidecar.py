"""What a sidecar asks of the routers: registration, heartbeats, its table."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

from conveyor_grpc.channel import TIMEOUT_S, LeaderChannel
from conveyor_grpc.errors import ControlError
from conveyor_grpc.wire import sidecar_pb2 as wire
from conveyor_grpc.wire.sidecar_pb2_grpc import SidecarServiceStub

WATCH_SILENCE_S = 15.0
"""Routers send a progress message at least each 5 s; a stream silent for three of them is dead."""

RECONNECT_MIN_S, RECONNECT_MAX_S = 0.1, 2.0


class SidecarClient:
    """Calls `SidecarService`: the leader for what changes something, any router for the table."""

    def __init__(self, channel: LeaderChannel, *, timeout_s: float = TIMEOUT_S) -> None:
        """Use `channel`, which stays the caller's to close; `timeout_s` bounds each unary call."""
        self._channel = channel
        self._timeout_s = timeout_s

    async def register_sidecar(
        self, request: wire.RegisterSidecarRequest
    ) -> wire.RegisterSidecarResponse:
        """Replace all that the cluster knows of this sidecar, its services included. Idempotent."""
        response = await self._channel.call(
            lambda channel: SidecarServiceStub(channel).RegisterSidecar,
            request,
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        self._channel.learn(response.member_addresses)
        return response

    async def heartbeat(
        self, request: wire.SidecarHeartbeatRequest
    ) -> wire.SidecarHeartbeatResponse:
        """Say that this sidecar lives, with its counters; the answer carries revision and
        commands.
        """
        response = await self._channel.call(
            lambda channel: SidecarServiceStub(channel).Heartbeat,
            request,
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        self._channel.learn(response.member_addresses)
        return response

    async def watch_table(
        self, sidecar_id: str, boot_id: str, revision_known: int = 0
    ) -> AsyncGenerator[wire.TableUpdate, None]:
        """Yield this sidecar's table, then each later one, and progress between them; never ends.

        Any router serves it. A broken or silent stream is opened again at the next router, from the
        newest revision seen, so revisions never go backwards. Close the generator to stop.
        """
        newest = revision_known
        pause = RECONNECT_MIN_S
        while True:
            request = wire.WatchTableRequest(
                sidecar_id=sidecar_id, boot_id=boot_id, revision_known=newest
            )
            stream = self._channel.stream_any(
                lambda channel: SidecarServiceStub(channel).WatchTable,
                request,
                silence_s=WATCH_SILENCE_S,
            )
            try:
                async with aclosing(stream):
                    async for update in stream:
                        pause = RECONNECT_MIN_S
                        if update.revision < newest:
                            continue
                        newest = update.revision
                        yield update
            except ControlError:
                pause = min(pause * 2, RECONNECT_MAX_S)
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))

    async def drain_sidecar(self, sidecar_id: str, reason: str) -> wire.DrainSidecarResponse:
        """Take the sidecar's assignments away; it may leave when its table is empty."""
        return await self._channel.call(
            lambda channel: SidecarServiceStub(channel).DrainSidecar,
            wire.DrainSidecarRequest(sidecar_id=sidecar_id, reason=reason),
            timeout_s=self._timeout_s,
            repeatable=True,
        )

    async def deregister_sidecar(self, sidecar_id: str, boot_id: str) -> bool:
        """Remove the sidecar and its services at once; True if it was there."""
        response = await self._channel.call(
            lambda channel: SidecarServiceStub(channel).DeregisterSidecar,
            wire.DeregisterSidecarRequest(sidecar_id=sidecar_id, boot_id=boot_id),
            timeout_s=self._timeout_s,
            repeatable=True,
        )
        return response.existed
