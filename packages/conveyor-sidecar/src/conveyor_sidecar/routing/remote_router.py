"""Links to other sidecars: one lane stream per peer, opened by the side that produces.

The engine decides which links exist and when a broken one is tried again; here a link is one
attempt: connect, say ``LinkUp``, carry bundles both ways, and say ``LinkDown`` once when it is
over. ``gone`` tells the engine that the peer's process is surely not there (its port refuses), so
that it need not wait for the stream to be resumed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio

from conveyor_sidecar.core.effects import OpenLink
from conveyor_sidecar.core.events import LinkDown, LinkUp
from conveyor_sidecar.core.messages import LaneMessage
from conveyor_sidecar.errors import ProtocolError
from conveyor_sidecar.routing.client_pool import ClientPool
from conveyor_sidecar.routing.lane_stream import LANES_METHOD, LaneStream, Post

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 2.0
_PROBE_TIMEOUT_S = 0.5
_FINISH_S = 1.0


class RemoteRouter:
    """Opens the links that the engine asks for, and sends on them."""

    def __init__(self, pool: ClientPool, post: Post) -> None:
        self._pool = pool
        self._post = post
        self._links: dict[str, tuple[LaneStream, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def open(self, effect: OpenLink) -> None:
        """Begin to connect; ``LinkUp`` or ``LinkDown`` follows."""
        stream = LaneStream(effect.link)
        task = asyncio.create_task(self._run(effect, stream), name=f"link {effect.link}")
        self._links[effect.link] = (stream, task)

    def send(self, link: str, message: LaneMessage) -> bool:
        """Queue a bundle; False if this is not one of our links."""
        entry = self._links.get(link)
        if entry is not None:
            entry[0].send(message)
        return entry is not None

    def close_link(self, link: str) -> bool:
        """Let a link go without an event; False if it is not one of ours."""
        entry = self._links.pop(link, None)
        if entry is None:
            return False
        stream, task = entry
        stream.finish()  # what is queued may still leave; then, or soon, it ends
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        asyncio.get_running_loop().call_later(_FINISH_S, task.cancel)
        return True

    async def close(self) -> None:
        """End all links without events."""
        tasks = {task for _, task in self._links.values()} | self._ending
        self._links.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def links(self) -> int:
        """Links that are open or being opened."""
        return len(self._links)

    async def _run(self, effect: OpenLink, stream: LaneStream) -> None:
        try:
            gone, reason = await self._attempt(effect, stream)
        except Exception as error:
            logger.exception("link %s to %s failed", effect.link, effect.endpoint)
            gone, reason = False, f"{type(error).__name__}: {error}"
        # A link that the engine has closed is gone from the table and says nothing.
        if self._links.pop(effect.link, None) is not None:
            self._post(LinkDown(effect.link, gone, reason))

    async def _attempt(self, effect: OpenLink, stream: LaneStream) -> tuple[bool, str]:
        """One life of the link; returns whether the peer is gone, and why the link is over."""
        channel = self._pool.channel(effect.endpoint)
        refusal = await self._connect(channel, effect.endpoint)
        if refusal is not None:
            return refusal
        method: grpc.aio.StreamStreamMultiCallable[Any, Any] = channel.stream_stream(LANES_METHOD)
        call = method()
        try:
            if effect.link in self._links:
                self._post(LinkUp(effect.link))
            reason = await stream.carry(call.read, call.write, self._post, call.done_writing)
            return False, reason
        except ProtocolError as error:
            logger.warning("link %s to %s: %s", effect.link, effect.endpoint, error)
            return False, str(error)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
            return await _is_refused(effect.endpoint), reason
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            # What grpc.aio raises when a write meets a stream that has just ended.
            return await _is_refused(effect.endpoint), f"the stream has ended: {error}"
        finally:
            call.cancel()

    async def _connect(self, channel: grpc.aio.Channel, endpoint: str) -> tuple[bool, str] | None:
        """Bring the channel to READY; else say whether the peer is gone and why."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                state = channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    failed = state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
                    if failed and await _is_refused(endpoint):
                        return True, f"nobody listens at {endpoint}"
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            return False, f"no connection to {endpoint} within {_CONNECT_TIMEOUT_S} s"
        return None


async def _is_refused(endpoint: str) -> bool:
    """Whether the endpoint's port refuses connections: surely no process is there."""
    host, _, port = endpoint.rpartition(":")
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        return False
    writer.transport.abort()
    return False
